"""An experiment file and its cells: the variants to compare, one run of each on every fold and seed."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from mixsup_lib.cohort import Cohort
from mixsup_lib.config import RunConfig, make_config
from mixsup_lib.experiments.runs import run_folder, split_of
from mixsup_lib.files import DataError, SettingError, nearest, read_yaml

SHIPPED = Path(__file__).resolve().parents[2] / "scenarios"
"""The folder of the experiment files that come with the repository."""

DECIDED_ELSEWHERE = ("cohort", "fold", "seed", "out", "stores")
"""Settings that tell the cells of one variant apart, or where they lie; a variant does not give them."""


class Experiment(BaseModel):
    """Contents of an experiment file. `variants`: name -> settings beside the shared ones, in the order of the tables.

    Every combination of the `axes` is a variant as well; these come first. `compare` says what stands beside a variant:
    the previous one, the first one, or the run of the other supervision.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[\w-]+$")
    compare: Literal["previous", "first", "supervision"]
    settings: dict[str, Any] = {}
    axes: dict[str, Annotated[list[Any], Field(min_length=1)]] = {}
    variants: dict[str, dict[str, Any]] = Field({}, validate_default=True)
    folds: list[Annotated[int, Field(ge=1)]] = Field([1, 2, 3], min_length=1)
    seeds: list[Annotated[int, Field(ge=0)]] = Field([0], min_length=1)

    @field_validator("variants")
    @classmethod
    def _with_axes(cls, own: dict[str, dict], info: ValidationInfo) -> dict[str, dict]:
        """Named like "n_fa 5, whole_tumor, mixed"."""
        if not (axes := info.data.get("axes")):
            return own
        combined = {}
        for values in itertools.product(*axes.values()):
            chosen = dict(zip(axes, values, strict=True))
            words = [value if isinstance(value, str) else f"{name} {value}" for name, value in chosen.items()]
            combined[", ".join(words)] = chosen
        return {**combined, **own}

    def config(self, variant: str, **cell: Any) -> RunConfig:
        """The run of one variant; `cell` gives what `DECIDED_ELSEWHERE` names."""
        return make_config(**{**self.settings, **self.variants[variant], **cell})

    def configs(self) -> dict[str, RunConfig]:
        """Variant -> its run on fold 1 of an unnamed cohort."""
        return {name: self.config(name, cohort="any") for name in self.variants}

    def against(self) -> dict[str, str]:
        """Variant -> the variant it is compared with; the first has none."""
        names = list(self.variants)
        before = names[:-1] if self.compare == "previous" else [names[0]] * (len(names) - 1)
        return dict(zip(names[1:], before, strict=True))

    def changed(
        self, settings: Mapping[str, Any], folds: Sequence[int] | None = None, seeds: Sequence[int] | None = None
    ) -> Experiment:
        """The experiment with other shared settings, folds or seeds, checked like a file.

        Raises SettingError for a setting that a variant gives itself, and as `read_experiment` does.
        """
        for name in settings:
            if givers := [variant for variant, own in self.variants.items() if name in own]:
                raise SettingError(
                    f"Setting {name!r}: variant {givers[0]!r} of experiment {self.name} gives it itself; leave it "
                    "out, or write an experiment file of your own."
                )
        cells = {"folds": list(folds or self.folds), "seeds": list(seeds or self.seeds)}
        experiment = self.model_copy(update={"settings": {**self.settings, **settings}, **cells})
        _check_variants(experiment, f"experiment {self.name}")
        return experiment


def read_experiment(file: str | Path) -> Experiment:
    """The experiment of a YAML file, or by its name one that ships in scenarios/, checked down to every setting.

    Raises DataError for a file that is missing, no YAML or of another shape. Raises SettingError for a name that does
    not ship, a setting that does not exist or fit or decides nothing here, and two variants that are the same run.
    """
    path = Path(file)
    if path.suffix not in (".yaml", ".yml"):
        known = {shipped.stem: shipped for shipped in sorted(SHIPPED.glob("*.yaml"))}
        if str(file) not in known:
            raise SettingError(
                f"no experiment {str(file)!r}.{nearest(str(file), known)} Give the path of a YAML file, or one of "
                f"{', '.join(known)}."
            )
        path = known[str(file)]
    try:
        content = read_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); give the path of an experiment file.") from None
    except ValueError as error:
        raise DataError(f"{path}: is not YAML ({error}); compare it with scenarios/ladder.yaml.") from None
    try:
        experiment = Experiment.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise DataError(
            f"{path}: {place}: {first['msg'][0].lower() + first['msg'][1:]}; compare it with scenarios/ladder.yaml."
        ) from None
    _check_variants(experiment, str(path))
    return experiment


def _check_variants(experiment: Experiment, where: str) -> None:
    """SettingError, naming `where` and the variant, for one that is no run, or the same run as another."""
    if len(experiment.variants) < 2:
        raise SettingError(f"{where}: has {len(experiment.variants)} variants, but comparing needs two; add some.")
    for name, own in experiment.variants.items():
        if given := sorted({*experiment.settings, *own} & {*DECIDED_ELSEWHERE}):
            raise SettingError(
                f"{where}, variant {name!r}: {given[0]} is given on the command line; leave it out here."
            )
        try:
            for fold in experiment.folds:
                experiment.config(name, cohort="any", fold=fold)
        except SettingError as error:
            raise SettingError(f"{where}, variant {name!r}: {error}") from None
    seen: dict[str, str] = {}
    for name, config in experiment.configs().items():
        if (other := seen.setdefault(config.model_dump_json(), name)) != name:
            raise SettingError(f"{where}: {other!r} and {name!r} are the same run; change a setting or drop one.")


@dataclass(frozen=True, eq=False)
class Cell:
    """One run of an experiment. `given`: the settings that were asked for; `folder`: where the finished run lies."""

    variant: str
    given: Mapping[str, Any]
    config: RunConfig
    folder: Path

    @property
    def name(self) -> str:
        """For people: "mixed, fold 1, seed 0"."""
        return f"{self.variant}, fold {self.config.fold}, seed {self.config.seed}"

    @property
    def notebook(self) -> Path:
        """The executed notebook, until the run has finished: then it moves into the folder as run.ipynb."""
        return self.folder.with_name(f"{self.folder.name}.ipynb")

    @property
    def log(self) -> Path:
        """What papermill printed, until the run has finished."""
        return self.notebook.with_suffix(".log")

    def printed(self) -> str:
        """The content of the log, if there is one."""
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""

    def finished(self) -> bool:
        """A run folder gets its name when everything is in it."""
        return (self.folder / "metrics.json").is_file()


def cells_of(
    experiment: Experiment, cohort: Cohort, out: str | Path, stores: str | Path
) -> tuple[list[Cell], dict[str, str]]:
    """Every variant on every fold and seed of the experiment, and what does not fit.

    The second value names the variants that this cohort cannot have (too few patients, or no such labels) and why;
    their cells are left out. Raises SettingError where nothing is left.
    """
    cells, left_out = [], {}
    where = {"cohort": cohort.folder, "out": out, "stores": stores}
    for seed, fold, variant in itertools.product(experiment.seeds, experiment.folds, experiment.variants):
        given = {**experiment.settings, **experiment.variants[variant], **where, "fold": fold, "seed": seed}
        folders = [name for name in ("cohort", "out", "stores", "split_lists") if given.get(name)]
        given |= {name: str(Path(given[name]).resolve()) for name in folders}
        config = make_config(**given)
        try:
            cells.append(Cell(variant, given, config, run_folder(config, split_of(config, cohort))))
        except SettingError as error:
            left_out[variant] = str(error)
    cells = [cell for cell in cells if cell.variant not in left_out]
    if not cells:
        raise SettingError(f"experiment {experiment.name} does not fit {cohort.folder}: {min(left_out.values())}")
    return cells, left_out
