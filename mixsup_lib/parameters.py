"""A notebook's papermill parameters -> settings, refusing every name that is not one.

papermill only warns of an unknown parameter and runs the defaults; these functions make the notebook stop.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from mixsup_lib.config import RunConfig, make_config
from mixsup_lib.errors import SettingError, nearest


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
