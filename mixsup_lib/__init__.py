"""Mixed supervision for brain tumour segmentation: the method of Mlynarski, Delingette, Criminisi and Ayache.

The files follow the paper: `cohort` and `slices` hold the data, `protocol` and `sampling` decide who is annotated and
what goes into a batch, `unet`, `model`, `losses` and `optim` are the method, `training` is the visible loop, and
`evaluation` scores it. `experiments` keeps and compares runs. The names below are imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module

__version__ = "0.1.0"
TYPE_CHECKING = False  # True for type checkers; importing `typing` would take longer than all the rest

if TYPE_CHECKING:
    from mixsup_lib.config import make_config, refuse_unknown, run_config
    from mixsup_lib.datasets import find_cohort
    from mixsup_lib.evaluation import dice, evaluate, segment
    from mixsup_lib.experiments.runs import collect, load_run, run
    from mixsup_lib.experiments.tables import comparison_table
    from mixsup_lib.files import DataError, SettingError
    from mixsup_lib.losses import class_weights, classification_loss, joint_loss, segmentation_loss
    from mixsup_lib.model import DeepSkipBranch, MixedSupervisionUNet
    from mixsup_lib.optim import NormalizedSGD, PlateauSchedule
    from mixsup_lib.phantom import make_patient, make_phantom
    from mixsup_lib.protocol import Split, make_split, permutation
    from mixsup_lib.sampling import BatchSampler, Pool, TrainingSlices, select_training_slices
    from mixsup_lib.slices import prepare
    from mixsup_lib.training import Trainer
    from mixsup_lib.unet import Geometry, UNet

_PLACES = {
    "config": ("make_config", "run_config", "refuse_unknown"),
    "datasets": ("find_cohort",),
    "evaluation": ("dice", "evaluate", "segment"),
    "experiments.runs": ("collect", "load_run", "run"),
    "experiments.tables": ("comparison_table",),
    "files": ("DataError", "SettingError"),
    "losses": ("class_weights", "classification_loss", "joint_loss", "segmentation_loss"),
    "model": ("DeepSkipBranch", "MixedSupervisionUNet"),
    "optim": ("NormalizedSGD", "PlateauSchedule"),
    "phantom": ("make_patient", "make_phantom"),
    "protocol": ("Split", "make_split", "permutation"),
    "sampling": ("BatchSampler", "Pool", "TrainingSlices", "select_training_slices"),
    "slices": ("prepare",),
    "training": ("Trainer",),
    "unet": ("Geometry", "UNet"),
}
_MODULE_OF = {name: module for module, names in _PLACES.items() for name in names}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'mixsup_lib' has no attribute {name!r}")
    value = getattr(import_module(f"mixsup_lib.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
