"""Who is fully annotated, who is weak, who is tested: the circular folds of section 4.2."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from mixsup_lib.files import DataError, SettingError, composed, nearest, shown

_YEAR_PREFIX = re.compile(r"^brats\d{2,4}_", re.IGNORECASE)


@dataclass(frozen=True)
class Split:
    """One fold of one scenario: three disjoint groups of patient ids.

    Raises `DataError` if a patient stands on two sides.
    """

    fully_annotated: tuple[str, ...]
    weak: tuple[str, ...]
    test: tuple[str, ...]

    def __post_init__(self) -> None:
        everyone = [*self.fully_annotated, *self.weak, *self.test]
        twice = sorted({patient for patient in everyone if everyone.count(patient) > 1})
        if twice:
            raise DataError(
                f"Patient {twice[0]} is used twice in one split ({len(twice)} such); a patient can be fully annotated, "
                "weak or tested, only one of them: remove it from the other lists."
            )


def permutation(patients: Iterable[str], n_fa: int, scenario_seed: int = 0) -> list[str]:
    """The patients in the order of one scenario (section 4.2: "folds are re-generated randomly" for each scenario)."""
    ordered = sorted(patients)
    order = np.random.default_rng([scenario_seed, n_fa]).permutation(len(ordered))
    return [ordered[i] for i in order]


def fold_bounds(n_patients: int, fold: int, n_folds: int = 5) -> tuple[int, int]:
    """First position and one past the last of test fold k: [(k-1)*57, k*57) for 285 patients and 5 folds."""
    return (fold - 1) * n_patients // n_folds, fold * n_patients // n_folds


def make_split(
    patients: Sequence[str],
    *,
    n_fa: int,
    n_wa: int | None = None,
    fold: int = 1,
    n_folds: int = 5,
    scenario_seed: int = 0,
    permutation_of: int | None = None,
    with_mask: Collection[str] | None = None,
    tested: bool = True,
) -> Split:
    """Fold `fold` (from 1) of the scenario with `n_fa` fully annotated patients.

    The permutation is that of `n_fa`, or of `permutation_of`: scenarios that share one test the same patients, and the
    annotated patients of a smaller one are among those of a larger one.

    Test patients are block `fold` of the permutation, the next `n_fa` positions (circular) are fully annotated, the
    next `n_wa` are weak (None: all that remain). Patients outside `with_mask` (None: everyone has one) can only be
    weak: they are passed over in the test block and among the fully annotated, so that the mask of a weak patient,
    present or not, never changes a split.

    Without `tested` nobody is tested: the first `n_fa` patients with a mask are fully annotated, the next ones weak.

    Raises `SettingError` if the cohort is too small for the request.
    """
    if not 1 <= fold <= n_folds:
        raise SettingError(f"Setting 'fold': found {fold}, expected 1..{n_folds}.")
    order = permutation(patients, permutation_of or n_fa, scenario_seed)
    has_mask = set(order if with_mask is None else with_mask)
    start, stop = fold_bounds(len(order), fold, n_folds) if tested else (0, 0)
    block, others = order[start:stop], order[stop:] + order[:start]
    test = [patient for patient in block if patient in has_mask]
    candidates = [patient for patient in others if patient in has_mask]
    if tested and not test:
        raise SettingError(
            f"Fold {fold} of {n_folds} holds no patient with a mask to test on ({len(has_mask)} of {len(order)} "
            "patients have one); choose another fold, fewer folds, or test nobody (test=none)."
        )
    if len(candidates) < n_fa:
        outside = "outside the test fold " if tested else ""
        raise SettingError(
            f"Setting 'n_fa': {n_fa} fully annotated patients asked for, but {outside}only {len(candidates)} of "
            f"{len(others)} patients have a mask; lower n_fa{', or test nobody (test=none)' if tested else ''}."
        )
    chosen = set(candidates[:n_fa])
    maskless = [patient for patient in block if patient not in has_mask]
    remaining = [patient for patient in others if patient not in chosen] + maskless
    if n_wa is not None and n_wa > len(remaining):
        raise SettingError(f"Setting 'n_wa': {n_wa} weak patients asked for, but only {len(remaining)} remain.")
    return Split(tuple(candidates[:n_fa]), tuple(remaining[:n_wa]), tuple(test))


def read_patient_list(path: str | Path, patients: Collection[str]) -> tuple[list[str], list[str]]:
    """Ids named in a list file of the authors' form, and the entries that match no patient.

    One patient folder path a line; the last path component is the id. Ids are compared without the year prefix
    (the lists say `Brats17_...`, the folders of BraTS 2018 `Brats18_...`).
    """
    known = {_YEAR_PREFIX.sub("", patient): patient for patient in patients}
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a list of patients ({error}); expected one a line.") from None
    entries = [re.split(r"[/\\]", line.strip().rstrip("/\\"))[-1] for line in lines if line.strip()]
    keys = {entry: _YEAR_PREFIX.sub("", composed(entry)) for entry in entries}
    matched = [known[keys[entry]] for entry in entries if keys[entry] in known]
    return matched, [entry for entry in entries if keys[entry] not in known]


def read_split(folder: str | Path, patients: Collection[str], *, n_fa: int, n_wa: int | None = None) -> Split:
    """The split of the list files `fully_annotated.txt`, `weak.txt` and `test.txt` in `folder`, as the authors publish.

    Raises `DataError` naming the first entry that matches no patient, and `SettingError` where the lists' lengths are
    not the `n_fa` and `n_wa` (None: any) that name the run.
    """
    groups = {}
    for name in ("fully_annotated", "weak", "test"):
        path = Path(folder) / f"{name}.txt"
        matched, unmatched = read_patient_list(path, patients)
        if unmatched:
            raise DataError(
                f"{path}: {len(unmatched)} of {len(matched) + len(unmatched)} entries match no patient of the cohort, "
                f"the first is {shown(unmatched[0])}.{nearest(unmatched[0], patients)}"
            )
        groups[name] = tuple(matched)
        if not matched and name != "weak":
            raise DataError(f"{path}: found no patient, expected one folder a line.")
    for patient in chain(*groups.values()):
        files = [f"{name}.txt" for name, ids in groups.items() for other in ids if other == patient]
        if len(files) > 1:
            raise DataError(
                f"{folder}: {patient} stands in {' and in '.join(files)}; a patient can be fully annotated, weak or "
                "tested, only one of them: remove the others."
            )
    split = Split(**groups)
    for name, wanted, found in (("n_fa", n_fa, split.fully_annotated), ("n_wa", n_wa, split.weak)):
        if wanted is not None and wanted != len(found):
            raise SettingError(f"Setting {name!r}: found {wanted}, but the lists in {folder} name {len(found)}.")
    return split
