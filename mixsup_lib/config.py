"""The settings of a run: what each means, what a preset decides, the hash in a run's name, a notebook's parameters."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from mixsup_lib import paper
from mixsup_lib.files import SettingError, nearest, read_yaml, shown

Side = Annotated[int, Field(ge=1)]
FOLDERS = ("cohort", "out", "stores", "split_lists", "initial_weights")
"""Settings that name a folder: their text is taken as it stands."""


class RunConfig(BaseModel):
    """The settings of one run. Lengths are in mm, sizes in pixels; folds are counted from 1, as the paper does.

    A setting that is None takes the preset's value, or else what its description says. The descriptions are what
    `python -m mixsup_lib run --settings` prints. Make one with `make_config`, whose errors are one sentence.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    # Where
    cohort: Path
    """The folder of the cohort."""
    out: Path = Path("runs")
    """The folder that receives the run's own folder."""
    stores: Path = Path("data/stores")
    """The folder in which the prepared slices are kept."""
    preset: Literal["tiny", "workshop", "paper"] = "tiny"
    """The scale of the run: it decides the slices' grid, the network's size and the optimiser."""

    # What is learned from whom
    task: Literal["whole_tumor", "tumor_core", "enhancing_core", "multiclass"] = "whole_tumor"
    """The region to segment; multiclass segments all three subclasses at once."""
    supervision: Literal["standard", "mixed"] = "mixed"
    """standard trains on the fully annotated patients alone; mixed adds the weak ones and the branch."""
    n_fa: int = Field(5, ge=1)
    """How many patients are fully annotated."""
    n_wa: int | None = Field(None, ge=0)
    """How many patients are weakly annotated; None takes all that remain."""
    test: Literal["none"] | None = None
    """none tests nobody: all masks may annotate and the run has no Dice; None tests the patients of the fold."""
    fold: int = Field(1, ge=1)
    """The fold whose patients are tested, counted from 1."""
    n_folds: int = Field(paper.N_FOLDS, ge=2)
    """Into how many folds the patients are divided."""
    scenario_seed: int = Field(0, ge=0)
    """The seed that orders the patients before they are divided into folds."""
    permutation_of: int | None = Field(None, ge=1)
    """Use the order of the scenario with this n_fa, so that both test the same patients; None: of its own n_fa."""
    split_lists: Path | None = None
    """A folder with fully_annotated.txt, weak.txt and test.txt, one patient a line, which replace the folds."""
    seed: int = Field(0, ge=0)
    """The seed of the first weights and of the batches."""

    initial_weights: Path | None = None
    """The folder of a finished run whose weights the network starts from; None: random ones. Branches that it lacks
    start as usual."""

    # Batches and loss
    k: int = Field(4, ge=1)
    """How many images of a batch are annotated and show tumour."""
    m: int = Field(2, ge=0)
    """How many images of a batch show no tumour."""
    n: int | None = Field(None, ge=0)
    """How many images of a batch are weak and show tumour; None: 4 if mixed, 0 if standard."""
    flip_fraction: float = Field(paper.FLIP_FRACTION, ge=0, le=1)
    """The share of a batch that is mirrored left-right."""
    target_weights: tuple[Annotated[float, Field(ge=0)], ...] | None = None
    """The weight t_c of each class in the segmentation loss; None: the paper's."""
    a: float | None = Field(None, ge=0, le=1)
    """The weight of the segmentation loss against the classification loss; None: the paper's."""
    negatives: Literal["annotated"] | None = None
    """annotated takes images without tumour from annotated patients only; None takes them from weak ones too."""
    weak_labels: Literal["shuffled"] | None = None
    """shuffled deals the labels of the weak slices out anew, as a control; None leaves them as they are."""
    weak_label_noise: float | None = Field(None, gt=0, le=1)
    """The share of the weak slices' labels that is made wrong; None leaves them as they are."""

    # Slices and network
    pixel_mm: float | None = Field(None, gt=0)
    """The pixel size of the slices; None: the cohort's own."""
    window: tuple[Side, Side] | None = None
    """The (H, W) that is cut out around the head; None: the whole slice."""
    padding: Literal["same", "valid"] | None = None
    """same pads each convolution, valid does not, as in the paper."""
    input_size: Side | None = None
    """The side of the network's square input; None: the size of the slices."""
    width: int | None = Field(None, ge=1)
    """The number of feature maps at the first level (64 in the paper)."""
    depth: int | None = Field(None, ge=1, le=6)
    """The number of poolings (4 in the paper)."""
    branch: Literal["deep_skip", "deep", "shallow", "shared_trunk"] = "deep_skip"
    """The kind of classification branch (deep_skip in the paper)."""
    pooling: Literal["max", "lse"] | None = None
    """How the branch pools at its entry: max, or lse (log-sum-exp); None: the paper's mean."""

    # Optimisation
    optimizer: Literal["adam", "normalized_sgd"] | None = None
    """The optimiser (normalized_sgd in the paper)."""
    learning_rate: float | None = Field(None, gt=0)
    """The learning rate at the start."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """The momentum of normalized_sgd."""
    schedule: Literal["cosine", "plateau", "constant"] | None = None
    """How the learning rate falls (plateau in the paper)."""
    iterations: int | None = Field(None, ge=1)
    """How many steps the optimiser takes."""
    batches_per_iteration: int | None = Field(None, ge=1)
    """How many batches are summed up in the gradient of one step."""
    batch_norm_batches: int | None = Field(None, ge=1)
    """Over how many training batches the final batch-norm statistics are taken."""

    # Machine
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """The kind of numbers the network computes in; auto takes bfloat16 where it pays."""
    threads: int = Field(1, ge=1)
    """How many CPU threads the run uses."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the network computes; auto takes a GPU if there is one."""
    compile: bool = False
    """Compile the network (TorchInductor), which is faster on a GPU; where that fails, it runs as it is."""
    feed: Literal["auto", "resident", "prefetch", "direct"] = "auto"
    """How slices get to the device: kept there (resident), read ahead (prefetch), or read when needed (direct)."""
    checkpoint_seconds: float = Field(60.0, gt=0)
    """The time between two checkpoints, in seconds."""
    progress: bool = True
    """Show a progress bar."""

    @field_validator(*FOLDERS, mode="before")
    @classmethod
    def _folders_are_text(cls, value: Any) -> Any:
        if value is None or isinstance(value, str | Path):
            return value
        raise ValueError("expected a folder as text; quote it in YAML, and use papermill's -r instead of -p")

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: dict[str, Any]) -> dict[str, Any]:
        """The given settings, then those of the preset, then those of the paper."""
        given = {name: value for name, value in values.items() if value is not None}
        for name in FOLDERS:
            if given.get(name) == "":  # Path would take it for the working folder
                raise ValueError(f"{name} is empty, expected a folder")
        texts = {name: value for name, value in given.items() if isinstance(value, str)}
        kind = "multiclass" if texts.get("task") == "multiclass" else "binary"
        of_paper = {
            "target_weights": paper.TARGET_WEIGHTS[kind],
            "a": paper.SEGMENTATION_SHARE[kind],
            "n": paper.BATCH.get(texts.get("supervision"), paper.BATCH["mixed"])[2],
        }
        return {**values, **of_paper, **PRESETS.get(texts.get("preset", "tiny"), {}), **given}

    @model_validator(mode="after")
    def _check_together(self) -> RunConfig:
        if self.fold > self.n_folds:
            raise ValueError(f"fold is {self.fold}, but there are {self.n_folds} folds; choose 1..{self.n_folds}")
        if len(self.target_weights) != self.n_maps:
            raise ValueError(f"target_weights needs {self.n_maps} values for task {self.task}")
        if self.supervision == "standard" and self.n:
            raise ValueError("standard supervision sees no weak images; set n to 0")
        if self.test and self.fold > 1:
            raise ValueError("test=none has no folds; leave fold out")
        if self.test and self.split_lists:
            raise ValueError("split_lists says who is tested; leave test out, or leave out split_lists")
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
            raise ValueError(f"multiclass needs k >= {len(paper.CLASSES)}: every subclass occurs in every batch")
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
        """8 hexadecimal digits over the settings that do not already name the run folder.

        A setting that is None is left out, so that a new one, which is None by default, renames no older run.
        """
        left_out = NAMED_BY_FOLDER + WITHOUT_EFFECT
        rest = {k: v for k, v in self.settings().items() if k not in left_out and v is not None}
        if self.initial_weights:
            rest["initial_weights"] = run_name(self.initial_weights)
        return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()[:8]


def run_name(folder: str | Path) -> str:
    """A run's folder from its cohort down, which names it wherever it lies."""
    return "/".join(Path(folder).resolve().parts[-7:])


# fmt: off
PRESETS: dict[str, dict[str, Any]] = {
    "tiny": dict(
        pixel_mm=5.0, window=(48, 48), padding="same", input_size=None, width=4, depth=2,
        optimizer="adam", learning_rate=3e-3, schedule="cosine",
        iterations=40, batches_per_iteration=1, batch_norm_batches=10,
    ),
    "workshop": dict(
        pixel_mm=2.5, window=(80, 64), padding="same", input_size=None, width=16, depth=3,
        optimizer="adam", learning_rate=1e-3, schedule="cosine",
        iterations=1500, batches_per_iteration=1, batch_norm_batches=100,
    ),
    "paper": dict(
        pixel_mm=None, window=None, padding="valid", input_size=300, width=64, depth=4,
        optimizer="normalized_sgd", learning_rate=0.25, schedule="plateau",
        iterations=10_000, batches_per_iteration=10, batch_norm_batches=100,
    ),
}
# fmt: on
"""What a preset decides: the grid of the slices, the network's size and the optimiser.

Departure: the presets tiny and workshop use Adam with a cosine schedule and a padded U-Net on 5 or 2.5 mm pixels, so
that a run takes seconds or minutes on a CPU; the preset paper keeps the paper's.
"""

NAMED_BY_FOLDER = (
    "cohort", "out", "stores", "preset", "task", "n_fa", "n_wa", "fold", "supervision", "seed"
)  # fmt: skip
"""Settings that name a run folder by themselves; they are not in its hash."""

WITHOUT_EFFECT = ("device", "compile", "feed", "checkpoint_seconds", "progress")
"""Settings that do not belong to the experiment: two runs that differ only here share a folder."""


def from_text(name: str, text: str) -> Any:
    """The value of a setting that was given as text: a folder as it stands, everything else as YAML.

    Raises SettingError for a text that is no YAML.
    """
    if name in FOLDERS:
        return text or None
    try:
        return read_yaml(text)
    except ValueError:
        raise SettingError(f"Setting {name!r}: {text!r} is not a value; write a number, text or [list].") from None


def setting_lines() -> list[str]:
    """A line for every setting: its name, its meaning, its default, and its choices or limits."""
    lines, schema = [], RunConfig.model_json_schema()["properties"]
    for name, field in RunConfig.model_fields.items():
        kinds = schema[name].get("anyOf", [schema[name]])
        choices = [
            str(value) for kind in kinds for value in kind.get("enum", [kind["const"]] if "const" in kind else [])
        ]
        signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
        limits = [f"{sign} {kind[key]:g}" for kind in kinds for key, sign in signs.items() if key in kind]
        of_preset = [f"{preset} {values[name]}" for preset, values in PRESETS.items() if name in values]
        default = ", ".join(of_preset) or ("must be given" if field.is_required() else str(field.default))
        said = [f"default: {default}"]
        said += [f"one of {', '.join(choices)}"] if choices else [" and ".join(limits)] if limits else []
        lines.append(f"{name:22s}{' '.join(field.description.split())} ({'; '.join(said)})")
    return lines


def make_config(**settings: Any) -> RunConfig:
    """`RunConfig(**settings)`, its errors one sentence (`SettingError`) naming the setting and the nearest known."""
    for name in settings:
        if name not in RunConfig.model_fields:
            hint = nearest(name, RunConfig.model_fields)
            raise SettingError(
                f"Unknown setting {name!r}.{hint or ' `python -m mixsup_lib run --settings` lists them.'}"
            )
    try:
        return RunConfig(**settings)
    except ValidationError as error:
        first = error.errors()[0]
        name, text = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
        if not name:
            raise SettingError(f"Settings do not fit together: {text}.") from None
        found = f"found {shown(first['input'])}, " if name in settings else ""
        raise SettingError(f"Setting {name!r}: {found}{text[0].lower()}{text[1:]}.") from None


def run_config(namespace: Mapping[str, Any], before: Collection[str]) -> RunConfig:
    """The run configuration from a notebook's parameters. `before = set(globals())` was taken above them.

    Every setting of `RunConfig` can be a parameter; the parameter `settings` may hold further ones as a dictionary,
    which come before parameters of the same name.
    """
    refuse_unknown(namespace, before, [*RunConfig.model_fields, "settings"])
    chosen = {name: _value(name, namespace[name]) for name in _parameters(namespace, before)}
    further = chosen.pop("settings", {})
    if not isinstance(further, dict):
        raise SettingError(f"Parameter 'settings': found {shown(further)}, expected a dictionary of settings.")
    chosen |= further
    for name in FOLDERS:
        if str(chosen.get(name, "")).startswith("..") and not Path("08_scenario_run.ipynb").exists():
            raise SettingError(
                f"Parameter {name!r}: {str(chosen[name])!r} starts from the folder notebooks, but the notebook runs in "
                f"{Path.cwd()}; call papermill with --cwd and that folder, or give absolute folders."
            )
    return make_config(**chosen)


def _value(name: str, value: Any) -> Any:
    """A parameter of a notebook; `papermill -p` passes lists and dictionaries as text."""
    return from_text(name, value) if isinstance(value, str) else value


def refuse_unknown(namespace: Mapping[str, Any], before: Collection[str], known: Collection[str]) -> None:
    """Raise `SettingError` for the first parameter of a notebook that is not `known`.

    papermill only warns of an unknown parameter and runs the defaults; this makes the notebook stop.
    """
    for name in _parameters(namespace, before):
        if name not in known:
            raise SettingError(
                f"Unknown parameter {name!r}.{nearest(name, known)} `papermill --help-notebook` lists the parameters."
            )


def _parameters(namespace: Mapping[str, Any], before: Collection[str]) -> list[str]:
    """Public names of a notebook that appeared since `before` was taken."""
    return [name for name in namespace if name not in before and not name.startswith("_") and name != "before"]
