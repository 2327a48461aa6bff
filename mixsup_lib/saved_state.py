"""What training leaves on disk, read back: the weights of a finished run and the checkpoint of an unfinished one.

Nothing here can run code: safetensors holds numbers alone, and torch reads tensors and plain values only.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from mixsup_lib.errors import DataError
from mixsup_lib.files import check_sums

WEIGHTS = "weights.safetensors"


def load_weights(folder: str | Path) -> dict[str, torch.Tensor]:
    """weights.safetensors of a finished run; raises `DataError` if it is damaged or missing."""
    path = Path(folder) / WEIGHTS
    check_sums(folder, path.name)
    try:
        return load_file(path)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path}: cannot be read as weights ({reason}); run it again.") from None


def check_shapes(
    folder: str | Path, weights: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]
) -> None:
    """Raise `DataError` unless the weights of a run have the names, shapes and types of its network's."""
    found, wanted = (
        {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
        for tensors in (weights, expected)
    )
    if found != wanted:
        raise DataError(
            f"{Path(folder) / WEIGHTS}: holds other layers than the network that metrics.json describes; run it again."
        )


def read_checkpoint(path: Path, device: torch.device) -> dict:
    """What `Trainer.save` wrote. torch does not compare the archive's checksums, so that is done here.

    Raises DataError for a file that is damaged, holds anything but tensors and plain values, or is no dictionary.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise ValueError("packed")  # torch packs nothing, and what is packed can be huge
            if archive.testzip():
                raise ValueError("checksum")
        state = torch.load(path, map_location=device, weights_only=True)
        if not isinstance(state, dict):
            raise TypeError(type(state).__name__)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise DataError(
            f"{path}: not a readable checkpoint ({type(error).__name__}); delete it to start anew."
        ) from None
    return state
