"""A notebook's papermill parameters -> settings, refusing every name that is not one.

papermill only warns of an unknown parameter and runs the defaults; these functions make the notebook stop.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mixsup_lib import paper
from mixsup_lib.files import SettingError, nearest, shown

PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {
        "pixel_mm": 5.0,
        "window": (48, 48),
        "padding": "same",
        "input_size": None,
        "width": 4,
        "depth": 2,
        "optimizer": "adam",
        "learning_rate": 3e-3,
        "schedule": "cosine",
        "iterations": 40,
        "batches_per_iteration": 1,
        "batch_norm_batches": 10,
    },
    "workshop": {
        "pixel_mm": 2.5,
        "window": (80, 64),
        "padding": "same",
        "input_size": None,
        "width": 16,
        "depth": 3,
        "optimizer": "adam",
        "learning_rate": 1e-3,
        "schedule": "cosine",
        "iterations": 1500,
        "batches_per_iteration": 1,
        "batch_norm_batches": 100,
    },
    "paper": {
        "pixel_mm": None,
        "window": None,
        "padding": "valid",
        "input_size": 300,
        "width": 64,
        "depth": 4,
        "optimizer": "normalized_sgd",
        "learning_rate": 0.25,
        "schedule": "plateau",
        "iterations": 10_000,
        "batches_per_iteration": 10,
        "batch_norm_batches": 100,
    },
}
"""What a preset decides: the grid of the slices, the network's size and the optimiser.

Departure: the presets tiny and workshop use Adam with a cosine schedule and a padded U-Net on 5 or 2.5 mm pixels, so
that a run takes seconds or minutes on a CPU; the preset paper keeps the paper's.
"""


Supervision = Literal["standard", "mixed"]
Side = Annotated[int, Field(ge=1)]
Task = Literal["whole_tumor", "tumor_core", "enhancing_core", "multiclass"]

LOCATION = ("cohort", "out", "stores", "preset", "task", "n_fa", "n_wa", "fold", "supervision", "seed")
"""Settings that name a run folder by themselves; all others go into its hash."""

FOLDERS = ("cohort", "out", "stores", "split_lists")
"""Settings that name a folder."""

WITHOUT_EFFECT = ("device", "compile", "feed", "checkpoint_seconds", "progress")
"""Settings that do not belong to the experiment: two runs that differ only here share a folder."""


class RunConfig(BaseModel):
    """Settings of one run. Lengths are in mm, sizes in pixels, ids are 1-based where the paper counts from 1."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    cohort: Path = Field(description="folder of the cohort")
    out: Path = Field(Path("runs"), description="folder that receives the run folder")
    stores: Path = Field(Path("data/stores"), description="folder of the prepared slices")
    preset: Literal["tiny", "workshop", "paper"] = Field("tiny", description="scale of the experiment")

    task: Task = Field("whole_tumor", description="region to segment, or multiclass")
    supervision: Supervision = Field(
        "mixed", description="standard (U-Net, FA only) or mixed (with branch, FA + WA)"
    )
    n_fa: int = Field(5, ge=1, description="number of fully annotated patients")
    n_wa: int | None = Field(
        None, ge=0, description="number of weakly annotated patients; None: all that remain"
    )
    fold: int = Field(1, ge=1, description="test fold, counted from 1")
    n_folds: int = Field(paper.N_FOLDS, ge=2, description="number of folds")
    scenario_seed: int = Field(0, ge=0, description="seed of the permutation of the patients")
    permutation_of: int | None = Field(
        None,
        ge=1,
        description="number of annotated patients whose permutation is used, so that scenarios share their test "
        "folds; None: n_fa, so that every scenario has its own, as in the paper",
    )
    split_lists: Path | None = Field(
        None,
        description="folder with fully_annotated.txt, weak.txt and test.txt (one patient folder a line), which "
        "then decide instead of the permutation",
    )
    seed: int = Field(0, ge=0, description="seed of weights and batches")

    k: int = Field(4, ge=1, description="positive annotated images in a batch")
    m: int = Field(2, ge=0, description="negative images in a batch")
    n: int | None = Field(
        None, ge=0, description="positive weak images in a batch; None: 4 if mixed, 0 if standard"
    )
    flip_fraction: float = Field(
        paper.FLIP_FRACTION, ge=0, le=1, description="share of a batch mirrored left-right"
    )
    target_weights: tuple[Annotated[float, Field(ge=0)], ...] | None = Field(
        None, description="t_c, weight of class c; None: the paper's"
    )
    a: float | None = Field(
        None, ge=0, le=1, description="weight of the segmentation loss; None: the paper's"
    )
    negatives: Literal["annotated"] | None = Field(
        None, description="annotated: negative images from annotated patients only; None: from weak ones too"
    )
    weak_labels: Literal["shuffled"] | None = Field(
        None, description="shuffled: the weak slices' labels dealt out anew, a control; None: as given"
    )
    weak_label_noise: float | None = Field(
        None, gt=0, le=1, description="share of the weak slices' labels that is wrong; None: as given"
    )

    pixel_mm: float | None = Field(
        None, gt=0, description="in-plane pixel size of the slices; None: the cohort's own"
    )
    window: tuple[Side, Side] | None = Field(
        None, description="(H, W) cut out around the head; None: the whole slice"
    )
    padding: Literal["same", "valid"] | None = Field(
        None, description="same: padded; valid: the paper's unpadded"
    )
    input_size: Side | None = Field(
        None, description="side of the network's input; None: the size of the slices"
    )
    width: int | None = Field(None, ge=1, description="feature maps of the first level (paper: 64)")
    depth: int | None = Field(None, ge=1, le=6, description="number of poolings (paper: 4)")
    branch: Literal["deep_skip", "deep", "shallow", "shared_trunk"] = Field(
        "deep_skip", description="kind of the classification branch (paper: deep_skip)"
    )
    pooling: Literal["max", "lse"] | None = Field(
        None, description="at the branch's entry: max, or lse (log-sum-exp); None: the paper's mean"
    )

    optimizer: Literal["adam", "normalized_sgd"] | None = Field(None, description="paper: normalized_sgd")
    learning_rate: float | None = Field(None, gt=0, description="at the start")
    momentum: float = Field(0.9, ge=0, lt=1, description="of normalized_sgd")
    schedule: Literal["cosine", "plateau", "constant"] | None = Field(
        None, description="of the learning rate"
    )
    iterations: int | None = Field(None, ge=1, description="optimiser steps")
    batches_per_iteration: int | None = Field(
        None, ge=1, description="batches whose gradients are summed per step"
    )
    batch_norm_batches: int | None = Field(
        None, ge=1, description="training batches for the final statistics"
    )

    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto: bfloat16 where it pays"
    )
    threads: int = Field(1, ge=1, description="CPU threads of the run")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: a GPU if there is one")
    compile: bool = Field(
        False, description="compile the network (TorchInductor): faster on a GPU; where it fails, as it is"
    )
    feed: Literal["auto", "resident", "prefetch", "direct"] = Field(
        "auto",
        description="how slices reach the device: they stay there, are read ahead, or when needed; "
        "auto: on a GPU the first that fits, on a CPU the last",
    )
    checkpoint_seconds: float = Field(60.0, gt=0, description="time between checkpoints")
    progress: bool = Field(True, description="show a progress bar")

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        filled = dict(values)
        if empty := [
            name for name in FOLDERS if filled.get(name) == ""
        ]:  # Path would take it for the working folder
            raise ValueError(f"{empty[0]} is empty, expected a folder")
        choices = {name: value for name, value in filled.items() if isinstance(value, str)}
        preset = PRESETS.get(choices.get("preset", "tiny"), {})
        filled.update({name: value for name, value in preset.items() if filled.get(name) is None})
        kind = "multiclass" if filled.get("task") == "multiclass" else "binary"
        supervision = choices.get("supervision", "mixed")
        defaults = {
            "target_weights": paper.TARGET_WEIGHTS[kind],
            "a": paper.SEGMENTATION_SHARE[kind],
            "n": paper.BATCH.get(supervision, paper.BATCH["mixed"])[2],
        }
        filled.update({name: value for name, value in defaults.items() if filled.get(name) is None})
        return filled

    @model_validator(mode="after")
    def _check_together(self) -> RunConfig:
        if self.fold > self.n_folds:
            raise ValueError(
                f"fold is {self.fold}, but there are {self.n_folds} folds; choose 1..{self.n_folds}"
            )
        if len(self.target_weights) != self.n_maps:
            raise ValueError(f"target_weights needs {self.n_maps} values for task {self.task}")
        if self.supervision == "standard" and self.n:
            raise ValueError("standard supervision sees no weak images; set n to 0")
        for name in ("negatives", "weak_labels", "weak_label_noise"):
            if self.supervision == "standard" and (found := getattr(self, name)) is not None:
                raise ValueError(
                    f"{name} is {found}, but standard supervision sees no weak patients; leave it out or use "
                    "supervision=mixed"
                )
        if self.branch == "shared_trunk" and self.task != "multiclass":
            raise ValueError(
                f"branch shared_trunk shares layers between subclasses, but task {self.task} has one branch, "
                "which is deep_skip; use branch=deep_skip or task=multiclass"
            )
        if self.task == "multiclass" and self.k < len(paper.CLASSES):
            raise ValueError(
                f"multiclass needs k >= {len(paper.CLASSES)}: every subclass occurs in every batch"
            )
        return self

    @property
    def n_maps(self) -> int:
        """Number of segmentation maps K: 2 for a binary task, 4 for multiclass."""
        return len(paper.CLASSES) + 1 if self.task == "multiclass" else 2

    @property
    def n_branches(self) -> int:
        """Number of classification branches R: 0 for standard supervision, else one per tumour class."""
        return self.n_maps - 1 if self.supervision == "mixed" else 0

    @property
    def regions(self) -> tuple[str, ...]:
        """Regions whose Dice is reported."""
        return tuple(paper.REGIONS) if self.task == "multiclass" else (self.task,)

    @property
    def cohort_name(self) -> str:
        """Name of the cohort: that of its folder."""
        return self.cohort.resolve().name

    def settings(self) -> dict[str, Any]:
        """All settings as JSON-ready values."""
        return self.model_dump(mode="json")

    def settings_hash(self) -> str:
        """8 hexadecimal digits over the settings that do not already name the run folder."""
        named = {k: v for k, v in self.settings().items() if k not in LOCATION + WITHOUT_EFFECT}
        rest = {k: v for k, v in named.items() if v is not None}  # so that a new setting renames no older run
        return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()[:8]


def make_config(**settings: Any) -> RunConfig:
    """`RunConfig(**settings)`, its errors one sentence (`SettingError`) naming the setting and the nearest known."""
    unknown = [name for name in settings if name not in RunConfig.model_fields]
    if unknown:
        name = unknown[0]
        hint = nearest(name, RunConfig.model_fields) or " `python -m mixsup_lib run --settings` lists them."
        raise SettingError(f"Unknown setting {name!r}.{hint}")
    try:
        return RunConfig(**settings)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        if not name:
            raise SettingError(
                f"Settings do not fit together: {first['msg'].removeprefix('Value error, ')}."
            ) from None
        found = f"found {shown(first['input'])}, " if name in settings else ""
        raise SettingError(
            f"Setting {name!r}: {found}{first['msg'][0].lower() + first['msg'][1:]}."
        ) from None


def new_names(namespace: Mapping[str, Any], before: Collection[str]) -> list[str]:
    """Public names that appeared in a notebook since `before = set(globals())` was taken above its parameters."""
    return [
        name for name in namespace if name not in before and not name.startswith("_") and name != "before"
    ]


def refuse_unknown(namespace: Mapping[str, Any], before: Collection[str], known: Collection[str]) -> None:
    """Raise `SettingError` for the first new name of the notebook that is not `known`."""
    for name in new_names(namespace, before):
        if name not in known:
            raise SettingError(
                f"Unknown parameter {name!r}.{nearest(name, known)} `papermill --help-notebook` lists the parameters."
            )


def run_config(namespace: Mapping[str, Any], before: Collection[str]) -> RunConfig:
    """The run configuration from a notebook's parameters.

    Every setting of `RunConfig` can be a parameter; the parameter `settings` may hold further ones as a dictionary,
    which come before parameters of the same name.
    """
    refuse_unknown(namespace, before, [*RunConfig.model_fields, "settings"])
    chosen = {name: namespace[name] for name in new_names(namespace, before) if name != "settings"}
    return make_config(**{**chosen, **namespace.get("settings", {})})
