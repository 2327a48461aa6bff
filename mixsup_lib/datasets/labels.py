"""What the label values of a cohort's masks mean: by the names that people give them, as regions, or as stated."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from mixsup_lib import paper
from mixsup_lib.cohort import Labels, LabelValue, Report
from mixsup_lib.files import DataError, shown

CLASS_NAMES = {
    0: ("background", "healthy", "nontumor", "nontumour"),
    1: (
        "nonenhancing",
        "nonenhancingtumor",
        "nonenhancingtumour",
        "nonenhancingcore",
        "necrosis",
        "necrotic",
        "ncrnet",
    ),
    2: ("oedema", "edema", "peritumoraloedema", "peritumoraledema", "snfh"),
    3: ("enhancing", "enhancingtumor", "enhancingtumour", "enhancingcore"),
}
"""The paper's classes, as data sets name them; letters and digits only."""

LESION_NAMES = ("lesion", "tumor", "tumour", "wholetumor", "wholetumour")
REGION_NAMES = {
    "whole_tumor": ("wholetumor", "wholetumour", "wt"),
    "tumor_core": ("tumorcore", "tumourcore", "tc"),
    "enhancing_core": ("enhancingcore", "enhancingtumor", "enhancingtumour", "et"),
}


def plain(name: object) -> str:
    """A name without capitals, spaces and signs, as names are compared."""
    return re.sub(r"[^a-z0-9]", "", str(name).lower())


def labels_by_name(names: Mapping[int, str], source: str, *, stated: bool = False) -> Labels:
    """What {value on disk: name} means, where every name is one of the classes, or the only one is a lesion.

    Raises `DataError`, beginning with `source`, for a name without a meaning here.
    """
    classes = {value: _named(name, CLASS_NAMES) for value, name in names.items()}
    tumor = [value for value, meaning in classes.items() if meaning != 0]
    if len(tumor) == 1 and plain(names[tumor[0]]) in LESION_NAMES:
        classes[tumor[0]] = 2  # of a single outline any class of the whole tumour serves
        tasks: tuple[str, ...] = ("whole_tumor",)
    else:
        for value in tumor:
            if classes[value] is None:
                raise DataError(
                    f"{source}: the label {value} is called {shown(names[value])}, which could mean several things; "
                    "write a cohort.yaml whose `regions` say which values make which region (data/README.md)."
                )
        there = set(classes.values())
        given = {"whole_tumor": True, "tumor_core": {1, 3} <= there, "enhancing_core": 3 in there}
        tasks = tuple(task for task in paper.TASKS if given.get(task, {1, 2, 3} <= there))
    if classes.get(0, 0) != 0 or not tumor:
        raise DataError(f"{source}: labels are {shown(dict(names))}, expected background as 0 and a tumour class.")
    return Labels(_values(classes, names), tasks, source, stated)


def labels_by_region(
    regions: Mapping[str, Sequence[int]], names: Mapping[int, str], source: str, *, stated: bool = False
) -> Labels:
    """What {region: its values on disk} means; `names` are for the reader, and values of no region count as healthy.

    Raises `DataError`, beginning with `source`, where the regions do not lie within each other as the benchmark's do.
    """
    sets = {region: set(regions[region]) for region in paper.REGIONS if region in regions}
    if "whole_tumor" not in sets or not all(sets.values()) or any(0 in values for values in sets.values()):
        raise DataError(f"{source}: regions are {shown(dict(regions))}, expected whole_tumor with at least one value.")
    for (outer, holds), (inner, held) in zip(sets.items(), list(sets.items())[1:], strict=False):
        if not held <= holds:
            odd = min(held - holds)
            raise DataError(f"{source}: the value {odd} is in {inner} but not in {outer}, which holds it; correct one.")
    classes = dict.fromkeys(names, 0) | dict.fromkeys(sets["whole_tumor"], 2)
    classes |= dict.fromkeys(sets.get("tumor_core", ()), 1) | dict.fromkeys(sets.get("enhancing_core", ()), 3)
    every = len(sets) == len(paper.REGIONS) and {1, 2, 3} <= set(classes.values())
    tasks = (*sets, "multiclass") if every else tuple(sets)
    return Labels(_values(classes, names), tasks, source, stated)


def region_named(name: str) -> str | None:
    """The region that a data set calls so, or None."""
    return _named(name, REGION_NAMES)


def map_labels(values: np.ndarray, labels: Labels, file: str, report: Report) -> np.ndarray | None:
    """Label values on disk -> the paper's classes, uint8 of the same shape; None after an unknown value.

    The value 0 is always background. A value within 0.01 of a whole number is that number: a scale factor in the
    header makes 1.00002 of 1.
    """
    planes = values.T  # (Z, Y, X), the order in memory
    labelled = planes != 0
    found = planes[labelled]  # (N,), few beside all
    if found.dtype.kind == "f":
        whole = np.rint(found)
        found = np.where(np.abs(found - whole) <= 0.01, whole, found)
    meanings, known = np.zeros(len(found), np.uint8), found == 0
    for value, meaning, _ in labels.values:
        hit = found == value
        meanings[hit] = meaning
        known |= hit
    if known.all():
        classes = np.zeros(planes.shape, np.uint8)
        classes[labelled] = meanings
        return classes.T
    odd = np.unique(found[~known])
    expected = ", ".join(str(value) for value in sorted({0, *(label.value for label in labels.values)}))
    hint = next((f" {text}" for value, text in labels.hints if value in odd), "")
    report(
        file,
        f"holds the unknown label value {', '.join(f'{value:g}' for value in odd[:5])}; {labels.source} has "
        f"{expected}.{hint} Correct the mask, or say in cohort.yaml what the value means (data/README.md).",
    )
    return None


def _named(name: str, meanings: Mapping) -> object:
    return next((meaning for meaning, spellings in meanings.items() if plain(name) in spellings), None)


def _values(classes: Mapping[int, int], names: Mapping[int, str]) -> tuple[LabelValue, ...]:
    return tuple(
        LabelValue(value, classes[value], names.get(value) or paper.CLASSES.get(classes[value], "background"))
        for value in sorted(classes)
        if value
    )
