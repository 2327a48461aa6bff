"""Repeat a finished run from its own record and compare: bit for bit, elsewhere within a stated tolerance."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from mixsup_lib.config import make_config
from mixsup_lib.datasets import find_cohort
from mixsup_lib.experiments.provenance import labels_fingerprint
from mixsup_lib.experiments.runs import (
    load_run,
    load_weights,
    open_store,
    read_provenance,
    run,
    run_folder,
    split_of,
    weights_digest,
)
from mixsup_lib.files import DataError, SettingError
from mixsup_lib.training import set_up

TOLERANCE = 5.0
"""Dice points by which the mean of a region may move where the machine, the precision or a version differs.

Training amplifies the last bit of a sum. The six workshop runs that are recorded on two CPU models with equal settings
(data/results: phantom.csv in float32, weak-scans-phantom-seed1.csv in bfloat16) differ by 0.8 to 4.5 points in the
mean, about as much as two seeds do. Within one CPU model and version nothing may differ, not by one bit.
"""

DATA = ("data_fingerprint", "labels_fingerprint", "initial_weights")
MACHINE = (
    "commit", "mixsup_lib", "python", "packages", "platform", "cpu", "cpu_instructions", "device", "precision",
    "threads",
)  # fmt: skip
"""Entries of provenance.json that may explain a difference. An entry that an older record lacks explains nothing."""


def rerun(
    recorded: str | Path,
    out: str | Path | None = None,
    *,
    cohort: str | Path | None = None,
    say: Callable[[str], None] = print,
) -> Comparison:
    """Run the settings of the finished run in `recorded` again, in another place, and compare.

    Computes on the kind of device and in the precision that provenance.json records. Data that differ are said before
    the training starts. The run itself is never touched; an interrupted repetition continues.

    Args:
        recorded: folder of the finished run.
        out: receives the repetition (None: the recorded `out` with "-rerun" behind its name).
        cohort: where the cohort lies now (None: where it lay).
        say: gets the lines that are said before the training.

    Raises:
        DataError: the record cannot be read, the cohort is not there, or the repetition is there already.
        SettingError: `out` is where the run itself lies.
    """
    folder = Path(recorded)
    config, metrics = load_run(folder)
    record = read_provenance(folder)
    place = Path(out) if out else config.out.with_name(f"{config.out.name}-rerun")
    changes: dict[str, Any] = {"out": place, "cohort": Path(cohort) if cohort else config.cohort}
    changes["stores"] = config.stores if config.stores.exists() else place / "stores"
    changes["device"] = "cpu" if record["device"] == "cpu" else "auto"
    used = record.get("precision", config.precision)
    config = make_config(**{**config.settings(), **changes})
    if set_up(config)[1] != used:
        config = make_config(**{**config.settings(), "precision": used})
    if not config.cohort.exists():
        raise DataError(f"{config.cohort}: the cohort of {folder} is not there; name its folder with --cohort.")
    found = find_cohort(config.cohort)
    split = split_of(config, found)
    target = run_folder(config, split)
    if target.resolve() == folder.resolve():
        raise SettingError(f"{config.out}: holds the run itself; choose another folder with --out.")
    if target.exists():
        raise DataError(f"{target}: has been repeated before; delete it, or choose another folder with --out.")
    store = open_store(config, found)
    now = {"data_fingerprint": store.fingerprint(), "labels_fingerprint": labels_fingerprint(store, split)}
    if config.initial_weights:
        now["initial_weights"] = weights_digest(config.initial_weights)
    for line in differences(record, now, DATA):
        say(f"the data differ from those of the run: {line}")
    if any(sorted(patients) != sorted(getattr(split, name)) for name, patients in metrics.split.items()):
        say("the cohort gives another split than the run had: other patients are annotated, weak or tested")
    return compare_runs(folder, run(config))


class Comparison(NamedTuple):
    """A run beside its repetition.

    folder: the repetition. differ: which of weights, per_patient.csv and metrics are not bit-identical. data, machine:
    what differs in the provenance, in words. table: per region the mean Dice recorded and repeated, and the largest
    difference of one patient. largest: largest difference of a region's mean Dice, points.
    """

    folder: Path
    differ: tuple[str, ...]
    data: tuple[str, ...]
    machine: tuple[str, ...]
    table: pd.DataFrame
    largest: float

    @property
    def agrees(self) -> bool:
        """Bit-identical; or of the same data, with another machine or version, and within `TOLERANCE`."""
        return not self.differ or (not self.data and bool(self.machine) and self.largest <= TOLERANCE)

    def verdict(self) -> str:
        """One sentence."""
        if not self.differ:
            return "bit-identical: weights, per_patient.csv and metrics"
        what = f"{', '.join(self.differ)} differ"
        if self.data:
            return f"{what}, and so do the data: this is not the same experiment"
        if not self.machine:
            return f"{what}, and nothing in provenance.json explains it: expected bit-identical results"
        within = "within" if self.largest <= TOLERANCE else "beyond"
        return (
            f"{what}; mean Dice by up to {self.largest:.2f} points, {within} the tolerance of {TOLERANCE:g} points for "
            "another machine or version"
        )


def compare_runs(first: str | Path, second: str | Path) -> Comparison:
    """Weights, tables and provenance of two finished runs side by side."""
    folders = [Path(first), Path(second)]
    one, other = (load_weights(folder) for folder in folders)
    metrics = [load_run(folder)[1] for folder in folders]
    records = [read_provenance(folder) for folder in folders]
    results = [metric.model_dump(exclude={"config"}) for metric in metrics]
    same = {
        "weights": one.keys() == other.keys() and all(one[name].equal(other[name]) for name in one),
        "per_patient.csv": len({(folder / "per_patient.csv").read_bytes() for folder in folders}) == 1,
        "metrics": results[0] == results[1],
    }
    means = pd.DataFrame({"recorded": metrics[0].mean_dice, "repeated": metrics[1].mean_dice}, dtype=float)
    apart = (means["recorded"] - means["repeated"]).abs()
    apart[means.isna().sum(axis=1) == 1] = math.inf  # scored on one side alone: nothing to tolerate
    patients = [pd.read_csv(f / "per_patient.csv").set_index(["region", "patient"])["dice"] for f in folders]
    means["largest of a patient"] = (patients[0] - patients[1]).abs().groupby("region").max()
    return Comparison(
        folder=folders[1],
        differ=tuple(name for name, equal in same.items() if not equal),
        data=tuple(differences(*records, DATA)),
        machine=tuple(differences(*records, MACHINE)),
        table=means.rename_axis("region").reset_index(),
        largest=float(apart.fillna(0.0).max()),
    )


def differences(first: Mapping, second: Mapping, names: tuple[str, ...]) -> list[str]:
    """What differs between two records, such as "cpu: A, now B"; code with uncommitted changes may always differ."""
    found = []
    for name in names:
        old, new = first.get(name), second.get(name)
        if old is None or new is None:
            continue
        if isinstance(old, dict):
            found += [f"{name}: {line}" for line in differences(old, new, tuple(old.keys() & new.keys()))]
        elif old != new:
            found.append(f"{name}: {old}, now {new}")
        elif name == "commit" and str(old).endswith("-dirty"):
            found.append(f"commit: {old}, both with uncommitted changes")
    return found
