"""A scenario file: variants of a run, one line of settings each, trained on the same folds and seeds and compared.

name: ladder                 # names the tables and figures
compare: previous            # each variant with the one before it; or first: each with the first
settings: {preset: workshop} # shared by all variants
variants:
  standard: {supervision: standard}
  mixed: {supervision: mixed}
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mixsup_lib.config import RunConfig, make_config
from mixsup_lib.errors import DataError, SettingError

DECIDED_ELSEWHERE = ("cohort", "fold", "seed", "out", "stores")
"""Settings that tell the cells of one variant apart, or where they lie; a scenario file does not give them."""


class Scenario(BaseModel):
    """Contents of a scenario file. `variants`: name -> settings beside the shared ones, in the order of the tables."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[\w-]+$")
    compare: Literal["previous", "first"]
    settings: dict[str, Any] = {}
    variants: dict[str, dict[str, Any]] = Field(min_length=2)

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


def read_scenario(path: str | Path) -> Scenario:
    """The scenario file, checked down to every setting of every variant.

    Raises DataError where it is missing, no YAML or of another shape, SettingError for a setting that does not exist or
    fit, or that decides nothing here, and where two variants are the same run.
    """
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); give the path of a scenario file."
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = str(error).splitlines()[-1].strip()
        raise DataError(f"{path}: is not YAML ({where}); compare it with scenarios/ladder.yaml.") from None
    try:
        scenario = Scenario.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise DataError(
            f"{path}: {place}: {first['msg'][0].lower() + first['msg'][1:]}; compare it with scenarios/ladder.yaml."
        ) from None
    for name, own in scenario.variants.items():
        if given := sorted({*scenario.settings, *own} & {*DECIDED_ELSEWHERE}):
            raise SettingError(
                f"{path}, variant {name!r}: {given[0]} is given on the command line; leave it out here."
            )
        try:
            scenario.config(name, cohort="any")
        except SettingError as error:
            raise SettingError(f"{path}, variant {name!r}: {error}") from None
    runs = {name: config.settings() for name, config in scenario.configs().items()}
    if same := [name for name, run in runs.items() if [*runs.values()].count(run) > 1]:
        raise SettingError(
            f"{path}: {same[0]!r} and {same[1]!r} are the same run; change a setting or drop one."
        )
    return scenario
