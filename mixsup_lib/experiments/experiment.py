"""A scenario on a cohort -> its cells: one run each, where it lies, whether it has finished, how long it may take."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mixsup_lib.config import RunConfig, make_config
from mixsup_lib.datasets import find_cohort
from mixsup_lib.experiments.runs import run_folder, split_of
from mixsup_lib.files import DataError, SettingError, nearest, read_yaml

DECIDED_ELSEWHERE = ("cohort", "fold", "seed", "out", "stores")
"""Settings that tell the cells of one variant apart, or where they lie; a variant does not give them."""


MOST_VARIANTS = 10_000
"""A file of a few lines must not ask for millions of runs."""


class Scenario(BaseModel):
    """Contents of a scenario file. `variants`: name -> settings beside the shared ones, in the order of the tables.

    The combinations of `axes` come first among the variants; `axes` itself is not written back.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[\w-]+$")
    compare: Literal["previous", "first", "supervision"]
    settings: dict[str, Any] = {}
    axes: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field({}, exclude=True)
    variants: dict[str, dict[str, Any]]
    folds: list[Annotated[int, Field(ge=1)]] = Field([1, 2, 3], min_length=1)
    seeds: list[Annotated[int, Field(ge=0)]] = Field([0], min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _combine_axes(cls, content: Any) -> Any:
        axes = content.get("axes") if isinstance(content, dict) else None
        own = content.get("variants", {}) if axes else None
        if not isinstance(axes, dict) or not isinstance(own, dict):
            return content
        if not all(isinstance(values, list) for values in axes.values()):
            return content
        if (cells := math.prod(map(len, axes.values()))) > MOST_VARIANTS:
            raise ValueError(f"axes have {cells} combinations, at most {MOST_VARIANTS} are possible")
        combinations = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
        return {**content, "variants": {**{_name(chosen): chosen for chosen in combinations}, **own}}

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
        self,
        settings: Mapping[str, Any],
        folds: Sequence[int] | None = None,
        seeds: Sequence[int] | None = None,
    ) -> Scenario:
        """With other shared settings, folds or seeds, checked like a file.

        Raises SettingError for a setting that a variant gives itself, and as `read_scenario` does.
        """
        for name in settings:
            if givers := [variant for variant, own in self.variants.items() if name in own]:
                raise SettingError(
                    f"Setting {name!r}: variant {givers[0]!r} of {self.name} gives it itself; change it in the file, "
                    "or choose among the variants (ONLY)."
                )
        cells = {"folds": list(folds or self.folds), "seeds": list(seeds or self.seeds)}
        scenario = self.model_copy(update={"settings": {**self.settings, **settings}, **cells})
        _check_variants(scenario, f"scenario {self.name}")
        return scenario

    def only(self, wanted: Mapping[str, Any]) -> Scenario:
        """Those variants whose settings have the wanted value, or one of a list of values."""
        kept = self.configs()
        known = [name for name in RunConfig.model_fields if name not in DECIDED_ELSEWHERE]
        for name, value in wanted.items():
            if name not in known:
                raise SettingError(f"{name!r} does not tell variants apart.{nearest(name, known)}")
            values = value if isinstance(value, list) else [value]
            kept = {key: config for key, config in kept.items() if config.settings()[name] in values}
        if not kept:
            raise SettingError(f"no variant of scenario {self.name} has {dict(wanted)}; loosen the choice.")
        return self.model_copy(update={"variants": {name: self.variants[name] for name in kept}})


def _name(chosen: Mapping[str, Any]) -> str:
    """What a combination is called: "n_fa 5, whole_tumor, mixed"."""
    return ", ".join(value if isinstance(value, str) else f"{name} {value}" for name, value in chosen.items())


def read_scenario(path: str | Path) -> Scenario:
    """The scenario file, checked down to every setting of every variant.

    Raises DataError where it is missing, no YAML or of another shape, SettingError for a setting that does not exist or
    fit, or that decides nothing here, and where two variants are the same run.
    """
    path = Path(path)
    try:
        content = read_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); give the path of a scenario file."
        ) from None
    except ValueError as error:
        raise DataError(f"{path}: is not YAML ({error}); compare it with scenarios/ladder.yaml.") from None
    try:
        scenario = Scenario.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise DataError(
            f"{path}: {place}: {first['msg'][0].lower() + first['msg'][1:]}; compare it with scenarios/ladder.yaml."
        ) from None
    _check_variants(scenario, str(path))
    return scenario


def _check_variants(scenario: Scenario, where: str) -> None:
    """SettingError, naming `where` and the variant, for one that is no run, or the same run as another."""
    if len(scenario.variants) < 2:
        raise SettingError(
            f"{where}: has {len(scenario.variants)} variants, but comparing needs two; add some."
        )
    for name, own in scenario.variants.items():
        if given := sorted({*scenario.settings, *own} & {*DECIDED_ELSEWHERE}):
            raise SettingError(
                f"{where}, variant {name!r}: {given[0]} is given on the command line; leave it out here."
            )
        try:
            for fold in scenario.folds:
                scenario.config(name, cohort="any", fold=fold)
        except SettingError as error:
            raise SettingError(f"{where}, variant {name!r}: {error}") from None
    seen: dict[str, str] = {}
    for name, config in scenario.configs().items():
        if (other := seen.setdefault(config.model_dump_json(), name)) != name:
            raise SettingError(
                f"{where}: {other!r} and {name!r} are the same run; change a setting or drop one."
            )


Kind = tuple[str, ...]
"""Cohort, preset, task, supervision and hash of the settings: runs of one kind take about the same time."""


@dataclass(frozen=True)
class Cell:
    """One run of a grid. `given`: the settings that were asked for; `folder`: where the finished run lies."""

    variant: str
    given: Mapping[str, Any]
    config: RunConfig
    folder: Path

    @property
    def name(self) -> str:
        """For people: "mixed, fold 1, seed 0"."""
        return f"{self.variant}, fold {self.config.fold}, seed {self.config.seed}"

    @property
    def key(self) -> str:
        """The run folder below `config.out`; no two cells of a grid share it."""
        return self.folder.relative_to(self.config.out).as_posix()

    @property
    def kind(self) -> Kind:
        """Runs of the same kind take about the same time."""
        return _kind(self.folder)

    def finished(self) -> bool:
        """A run folder gets its name when everything is in it."""
        return (self.folder / "metrics.json").is_file()


def cells_of(
    scenario: Scenario, cohort: str | Path, out: str | Path, stores: str | Path
) -> tuple[list[Cell], dict[str, str]]:
    """Every variant on every fold and seed of the scenario, and what does not fit.

    The second value names the variants that this cohort cannot have (too few patients, or no such labels) and why;
    their cells are left out. Raises SettingError where nothing is left, and as `find_cohort` does.
    """
    found = find_cohort(cohort)
    cells, left_out = [], {}
    where = {"cohort": str(cohort), "out": str(out), "stores": str(stores)}
    for seed in scenario.seeds:
        for fold in scenario.folds:
            for variant, own in scenario.variants.items():
                given = {**scenario.settings, **own, **where, "fold": fold, "seed": seed}
                config = make_config(**given)
                try:
                    folder = run_folder(config, split_of(config, found))
                except SettingError as error:
                    left_out[variant] = str(error)
                    continue
                cells.append(Cell(variant, given, config, folder))
    cells = [cell for cell in cells if cell.variant not in left_out]
    if not cells:
        raise SettingError(f"scenario {scenario.name} does not fit {cohort}: {min(left_out.values())}")
    return cells, left_out


def part_of(cells: Sequence[Cell], number: int, parts: int) -> list[Cell]:
    """Part `number` (from 1) of `parts`, for several machines. Each gets its share of every kind, the slow ones too."""
    if not 1 <= number <= parts:
        raise SettingError(
            f"part {number} of {parts}: expected a number from 1 to {parts}, such as 1/{parts}."
        )
    return sorted(cells, key=lambda cell: (cell.kind, cell.key))[number - 1 :: parts]


def seconds_by_kind(root: str | Path) -> dict[Kind, float]:
    """Mean time of the finished runs below `root`, by kind. A run that was interrupted does not know its time."""
    times: dict[Kind, list[float]] = {}
    for file in Path(root).resolve().rglob("fold*/*/seed*/provenance.json"):
        if not file.parent.name.endswith(".partial") and (seconds := own_seconds(file.parent)) is not None:
            times.setdefault(_kind(file.parent), []).append(seconds)
    return {kind: sum(found) / len(found) for kind, found in times.items()}


def expected_seconds(cells: Iterable[Cell], known: Mapping[Kind, float], at_a_time: int) -> float | None:
    """Time that these cells will take, `at_a_time` at once; None where no run of some kind has finished yet."""
    times = [known.get(cell.kind, math.nan) for cell in cells]
    total = max(sum(times) / at_a_time, max(times, default=0.0))
    return None if math.isnan(total) else total


def _kind(folder: Path) -> Kind:
    cohort, preset, task, _, _, supervision, name = folder.parts[-7:]
    return cohort, preset, task, supervision, name.split("-")[-1]


@cache
def own_seconds(folder: Path) -> float | None:
    """Time of a finished run, training and evaluation; None where it was interrupted and does not know."""
    try:
        record = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
        return None if record["resumed"] else float(record["wall_seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
