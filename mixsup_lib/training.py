"""The training loop of sections 3.1 and 3.2, written to be read from top to bottom.

`Trainer` comes first. Below it stand what it is made of: the network and the optimiser of a run, device and precision,
the check for numbers that are not finite, Ctrl-C between two iterations, and the checkpoint.
"""

from __future__ import annotations

import contextlib
import io
import math
import signal
import threading
import time
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from mixsup_lib.config import RunConfig
from mixsup_lib.files import DataError, SettingError, usable_cores, write_bytes
from mixsup_lib.losses import classification_loss, joint_loss, segmentation_loss
from mixsup_lib.model import MixedSupervisionUNet
from mixsup_lib.optim import DivergedError, NormalizedSGD, PlateauSchedule, cosine_schedule
from mixsup_lib.sampling import Batch, BatchSampler
from mixsup_lib.unet import Frame, Geometry, padded

HISTORY_COLUMNS = ("iteration", "loss", "segmentation_loss", "classification_loss", "learning_rate")


@dataclass
class Trainer:
    """The training of one network: `run` is the loop, `step` one iteration, `losses` what is minimised.

    What goes beyond the paper has two places: `inputs` sees every image before the network does, `losses` adds up the
    terms of the loss. A subclass that changes one of them changes nothing else.

    Attributes:
        sampler: what batches are drawn from; `sampling.feed_batches` makes one whose batches lie on the device.
        frames: how slices are padded into the network's input, (rows, columns).
        checkpoint: file the state is kept in; None keeps nothing.
        identity: what the checkpoint belongs to; a checkpoint of something else is refused.
        report: called after every iteration with (iteration, loss).
    """

    network: MixedSupervisionUNet
    sampler: BatchSampler
    config: RunConfig
    frames: tuple[Frame, Frame]
    device: torch.device
    precision: str
    checkpoint: Path | None = None
    identity: str = ""
    report: Callable[[int, float], None] | None = None

    def __post_init__(self) -> None:
        self.network.to(self.device)
        self.optimizer, self.schedule = build_optimizer(self.config, self.network)
        self.history: list[list[float]] = []
        self.target_weights = torch.tensor(self.config.target_weights, device=self.device)  # (K,)
        self.forward: Callable = self.network
        if self.config.compile:
            self._compile()

    @property
    def iteration(self) -> int:
        """Iterations done so far."""
        return len(self.history)

    def run(self) -> list[list[float]]:
        """Train to the last iteration, then estimate the batch-norm statistics; returns the history.

        The history has one row per iteration, columns `HISTORY_COLUMNS`; losses are means over the batches of the
        iteration. Continues from the checkpoint if there is one. Ctrl-C ends the iteration and leaves a checkpoint.
        Raises TrainingDivergedError before a step with numbers that are not finite.
        """
        self.load()
        bar = tqdm(
            total=self.config.iterations,
            initial=self.iteration,
            desc=f"{self.config.supervision}, fold {self.config.fold}",
            disable=not self.config.progress,
            mininterval=1.0,
        )
        saved_at = time.monotonic()
        self.network.train()
        with interrupts_noted() as interrupted:
            while self.iteration < self.config.iterations:
                row = self.step()
                bar.update()
                bar.set_postfix(loss=f"{row[1]:.3f}", refresh=False)
                try:
                    if self.report:
                        self.report(self.iteration, row[1])
                except KeyboardInterrupt:  # whoever follows the run may end it, too
                    self.save()
                    raise
                if interrupted() or time.monotonic() - saved_at > self.config.checkpoint_seconds:
                    self.save()
                    saved_at = time.monotonic()
                if interrupted():
                    raise KeyboardInterrupt
        bar.close()
        self.save()
        self.estimate_batch_norm()
        check_state(self.iteration, self.network.state_dict().values())
        return self.history

    def step(self) -> list[float]:
        """One iteration: gradients of several batches are summed, then one step of the optimiser is taken."""
        self.optimizer.zero_grad(set_to_none=True)
        totals = torch.zeros(3, device=self.device)
        batches, of_batch = [], []
        for _ in range(self.config.batches_per_iteration):
            batches.append(self.sampler.draw())
            losses = self.losses(batches[-1])
            losses[0].backward()
            of_batch.append(torch.stack(losses).detach())  # (3,)
            totals += of_batch[-1]
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        means = totals / self.config.batches_per_iteration
        loss, loss_s, loss_c, norm = torch.cat([means, norm.reshape(1)]).tolist()
        check_step(self.iteration + 1, loss, norm, batches, of_batch)
        rate = self.optimizer.param_groups[0]["lr"]
        self.optimizer.step()
        if isinstance(self.schedule, PlateauSchedule):
            self.schedule.step(loss)
        else:
            self.schedule.step()
        row = [self.iteration + 1, loss, loss_s, loss_c, rate]
        self.history.append(row)
        return row

    def losses(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Joint, segmentation and classification loss of a batch (scalars)."""
        annotated = len(batch.labels)
        with autocast(self.precision, self.device):
            pixel_scores, image_scores = self.forward(self.inputs(batch), n_annotated=annotated)
        loss_s = segmentation_loss(pixel_scores, self.targets(batch), self.target_weights)
        if image_scores is None:
            return loss_s, loss_s, torch.zeros_like(loss_s)
        loss_c = classification_loss(image_scores, torch.as_tensor(batch.presence).to(self.device))
        return joint_loss(loss_s, loss_c, self.config.a), loss_s, loss_c

    def inputs(self, batch: Batch) -> torch.Tensor:
        """The images (B, C, H, W) of a batch as the network takes them: zero-padded, channels last."""
        images = torch.as_tensor(batch.images).to(self.device, non_blocking=True)
        return padded(images, self.frames)  # (B, C, H + pads, W + pads)

    def targets(self, batch: Batch) -> torch.Tensor:
        """The part of the labels (k + m, H, W) that the network's output covers, (k + m, H', W')."""
        (top, bottom), (left, right) = [(frame.first, frame.last) for frame in self.frames]
        labels = torch.as_tensor(batch.labels).to(self.device, non_blocking=True)
        height, width = labels.shape[1:]
        outside = (max(-left, 0), max(right - width, 0), max(-top, 0), max(bottom - height, 0))
        labels = labels[:, max(top, 0) : bottom, max(left, 0) : right]  # (k + m, at most H', at most W')
        # Beyond the slice there is no tumour.
        return torch.nn.functional.pad(labels, outside)  # (k + m, H', W')

    @torch.no_grad()
    def estimate_batch_norm(self) -> None:
        """Replace the running batch-norm statistics by their mean over N training batches, N equal in both arms.

        Departure: the authors' test-time statistics are fixed numbers whose origin is not published; these are
        averages over `batch_norm_batches` batches drawn after training.
        """
        layers = [layer for layer in self.network.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
        momenta = [layer.momentum for layer in layers]
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # cumulative average
        self.network.train()
        for _ in range(self.config.batch_norm_batches):
            with autocast(self.precision, self.device):
                self.network(self.inputs(self.sampler.draw()))
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum

    def save(self) -> None:
        """Write the checkpoint, atomically. A state that is not finite is refused (TrainingDivergedError)."""
        if self.checkpoint is None:
            return
        states = [value for state in self.optimizer.state.values() for value in state.values()]
        check_state(self.iteration, [*self.network.state_dict().values(), *states])
        state = {
            "identity": self.identity,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "sampler": self.sampler.state_dict(),
            "history": torch.tensor(self.history, dtype=torch.float64).reshape(-1, len(HISTORY_COLUMNS)),
        }
        content = io.BytesIO()
        torch.save(state, content)
        write_bytes(self.checkpoint, content.getbuffer())

    def load(self) -> None:
        """Continue from the checkpoint, if there is one."""
        if self.checkpoint is None or not self.checkpoint.exists():
            return
        state = read_checkpoint(self.checkpoint, self.device)
        if state.get("identity") != self.identity:
            raise DataError(f"{self.checkpoint}: belongs to other data or settings; delete it to start the run anew.")
        try:
            if len(state["history"]) > self.config.iterations:
                raise ValueError("more iterations than the run has")
            self.network.load_state_dict(state["network"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.schedule.load_state_dict(state["schedule"])
            self.sampler.load_state_dict(state["sampler"])
            self.history = [[int(row[0]), *row[1:]] for row in state["history"].tolist()]
        except Exception as error:
            raise DataError(
                f"{self.checkpoint}: does not fit the run ({type(error).__name__}); delete it to start anew."
            ) from None

    def _compile(self) -> None:
        """Compile the network's forward pass (TorchInductor); where that fails it runs as it is, with a warning.

        One batch is tried forward and backward and will be drawn again. Its traces in the network are removed.
        """
        before = {name: buffer.clone() for name, buffer in self.network.named_buffers()}
        state = self.sampler.state_dict()
        try:
            self.forward = torch.compile(self.network, dynamic=False)
            self.losses(self.sampler.draw())[0].backward()
        except Exception as error:  # whatever this machine's compiler lacks
            reason = (str(error).strip().splitlines() or [""])[0].rstrip(".")[:200]
            warnings.warn(
                f"Setting 'compile': the network cannot be compiled here ({type(error).__name__}: {reason}); it runs "
                "as it is, with the same result.",
                stacklevel=2,
            )
            self.forward = self.network
        self.sampler.load_state_dict(state)
        with torch.no_grad():
            for name, buffer in self.network.named_buffers():
                buffer.copy_(before[name])
        self.network.zero_grad(set_to_none=True)


def build_network(config: RunConfig, in_channels: int, slice_shape: tuple[int, int]) -> MixedSupervisionUNet:
    """The network of a run with its initial weights, which depend on the seed alone.

    Standard and mixed supervision with one seed start from the same U-Net. `slice_shape` is (H, W) of the slices.
    """
    torch.manual_seed(config.seed)
    input_shape, _ = network_input(config, slice_shape)
    network = MixedSupervisionUNet(
        in_channels=in_channels,
        n_maps=config.n_maps,
        n_branches=config.n_branches,
        width=config.width,
        depth=config.depth,
        padding=config.padding,
        input_shape=input_shape,
        branch=config.branch,
        pooling=config.pooling,
    )
    return network.to(memory_format=torch.channels_last)


def network_input(config: RunConfig, slice_shape: tuple[int, int]) -> tuple[tuple[int, int], tuple[Frame, Frame]]:
    """Training input size (H, W) of the network and the frames (rows, columns) that fit slices into it."""
    geometry = Geometry(config.depth, config.padding)
    step = 2**config.depth
    sizes = [config.input_size or math.ceil(size / step) * step for size in slice_shape]
    frames = [geometry.training_frame(size, whole) for size, whole in zip(slice_shape, sizes, strict=True)]
    return tuple(sizes), tuple(frames)


def build_optimizer(config: RunConfig, network: torch.nn.Module):
    """Optimiser and schedule of a run; the paper's are normalized_sgd and plateau."""
    if config.optimizer == "normalized_sgd":
        optimizer = NormalizedSGD(network.parameters(), lr=config.learning_rate, momentum=config.momentum)
    else:
        optimizer = torch.optim.Adam(network.parameters(), lr=config.learning_rate, fused=True)
    if config.schedule == "plateau":
        return optimizer, PlateauSchedule(optimizer)
    final_fraction = 1.0 if config.schedule == "constant" else 0.01
    return optimizer, cosine_schedule(optimizer, config.iterations, final_fraction=final_fraction)


def set_up(config: RunConfig) -> tuple[torch.device, str]:
    """Set the number of threads; return device and precision ("float32" or "bfloat16") of the run.

    "auto" takes the GPU where there is one, and bfloat16 where it pays. float32 is meant strictly: on a GPU too,
    products are not rounded to TF32. Raises SettingError if "cuda" is asked for and there is no GPU, and for more
    threads than there are cores.
    """
    if config.threads > (cores := usable_cores()):
        raise SettingError(f"Setting 'threads': found {config.threads}, expected at most {cores}, the cores to be had.")
    torch.set_num_threads(config.threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    name = config.device
    if name == "cuda" and not torch.cuda.is_available():
        raise SettingError("Setting 'device': found 'cuda', but PyTorch sees no GPU; use 'auto' or 'cpu'.")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if config.precision != "auto":
        return device, config.precision
    return device, "bfloat16" if bfloat16_pays(device) else "float32"


def bfloat16_pays(device: torch.device) -> bool:
    """Does bfloat16 autocast speed this device up? On a CPU only with matrix tiles (AMX).

    Measured for the workshop network: 3-4 times faster with AMX, no faster than float32 where the CPU has the
    bfloat16 vector instructions alone.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return bool(torch.cpu.get_capabilities().get("amx_bf16", False))


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager:
    """Context in which convolutions run in bfloat16, or one that does nothing for float32."""
    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


class TrainingDivergedError(DivergedError):
    """A loss, a gradient or a weight is not finite; the step was not taken. `rows`: the images at fault, (N,)."""

    def __init__(self, found: str, rows: Sequence[int] = ()) -> None:
        super().__init__(
            f"{found}; expected finite numbers: lower the learning rate, or use precision float32. The last "
            "checkpoint is kept."
        )
        self.rows = np.asarray(rows, int)


def check_step(
    iteration: int, loss: float, norm: float, batches: Sequence[Batch], losses: Sequence[torch.Tensor]
) -> None:
    """Raise TrainingDivergedError unless the mean loss and the norm of the gradient are finite numbers.

    `losses` holds (3,) for each batch. Where the loss of a batch is not finite only its images are named, else all.
    """
    if math.isfinite(loss) and math.isfinite(norm):
        return
    name, found = ("loss", loss) if not math.isfinite(loss) else ("norm of the gradient", norm)
    bad = [batch.rows for batch, of in zip(batches, losses, strict=True) if not bool(of.isfinite().all())]
    rows = np.concatenate(bad or [batch.rows for batch in batches])
    raise TrainingDivergedError(f"The {name} became {found} at iteration {iteration}", rows)


def check_state(iteration: int, tensors: Iterable[torch.Tensor]) -> None:
    """Raise TrainingDivergedError where a number of the network or of its optimiser is not finite."""
    if not all(bool(tensor.isfinite().all()) for tensor in tensors):
        raise TrainingDivergedError(f"The network holds NaN or infinity after iteration {iteration}")


@contextlib.contextmanager
def interrupts_noted() -> Iterator[Callable[[], bool]]:
    """Within it Ctrl-C is noted, not raised; yields a function that tells whether one came.

    A second Ctrl-C is raised at once, as KeyboardInterrupt. Where SIGINT is ignored, or outside the main thread, which
    gets no signals, nothing changes.
    """
    before = signal.getsignal(signal.SIGINT)
    if before in (signal.SIG_IGN, None) or threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    noted = threading.Event()

    def note(number: int, frame: object) -> None:
        if noted.is_set():
            raise KeyboardInterrupt
        noted.set()

    signal.signal(signal.SIGINT, note)
    try:
        yield noted.is_set
    finally:
        signal.signal(signal.SIGINT, before)


def read_checkpoint(path: Path, device: torch.device) -> dict:
    """What `Trainer.save` wrote. torch does not compare the archive's checksums, so that is done here.

    Raises DataError for a file that is damaged or holds anything but tensors and plain values.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():
                raise ValueError(damaged)
        return dict(torch.load(path, map_location=device, weights_only=True))
    except Exception as error:  # torch raises many kinds for a damaged file
        raise DataError(
            f"{path}: not a readable checkpoint ({type(error).__name__}); delete it to start anew."
        ) from None
