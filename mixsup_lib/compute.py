"""Where and in which precision a run computes."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable

import torch

from mixsup_lib.config import RunConfig
from mixsup_lib.errors import SettingError
from mixsup_lib.memory import keep_freed_memory


def choose_device(name: str = "auto") -> torch.device:
    """The GPU if there is one and `name` allows it; `SettingError` if "cuda" is asked for and there is none."""
    if name == "cuda" and not torch.cuda.is_available():
        raise SettingError("Setting 'device': found 'cuda', but PyTorch sees no GPU; use 'auto' or 'cpu'.")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def bfloat16_pays(device: torch.device) -> bool:
    """Does bfloat16 autocast speed this device up? On a CPU only with matrix tiles (AMX).

    Measured for the workshop network: 3-4 times faster with AMX, no faster than float32 where the CPU has the
    bfloat16 vector instructions alone.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return bool(torch.cpu.get_capabilities().get("amx_bf16", False))


def choose_precision(name: str, device: torch.device) -> str:
    """ "float32" or "bfloat16"; "auto" takes bfloat16 where it pays."""
    if name == "auto":
        return "bfloat16" if bfloat16_pays(device) else "float32"
    return name


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager:
    """Context in which convolutions run in bfloat16, or one that does nothing for float32."""
    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def compiled(network: torch.nn.Module, trial: Callable[[Callable], None]) -> Callable:
    """The network's forward pass compiled (TorchInductor), or as it is where that fails, with a warning that says why.

    `trial(forward)` does a forward and a backward pass, so that both are compiled now. Its traces in the network are
    removed: buffers are put back, gradients dropped. Parameters and their names are those of the network either way.
    """
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    forward: Callable = network
    try:
        forward = torch.compile(network, dynamic=False)
        trial(forward)
    except (
        Exception
    ) as error:  # whatever this machine's compiler lacks; a fault of the network's own comes again
        reason = (str(error).strip().splitlines() or [""])[0].rstrip(".")[:200]
        warnings.warn(
            f"Setting 'compile': the network cannot be compiled here ({type(error).__name__}: {reason}); it runs as it "
            "is, with the same result.",
            stacklevel=2,
        )
        forward = network
    with torch.no_grad():
        for name, buffer in network.named_buffers():
            buffer.copy_(before[name])
    network.zero_grad(set_to_none=True)
    return forward


def set_up(config: RunConfig) -> tuple[torch.device, str]:
    """Set the number of threads; return device and precision of the run.

    float32 is meant strictly: on a GPU too, products are not rounded to TF32.
    """
    torch.set_num_threads(config.threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    keep_freed_memory()
    device = choose_device(config.device)
    return device, choose_precision(config.precision, device)
