"""The training loop, written to be read from top to bottom: sections 3.1 and 3.2."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm.auto import tqdm

from mixsup_lib.compute import autocast, compiled
from mixsup_lib.config import RunConfig
from mixsup_lib.divergence import check_state, check_step
from mixsup_lib.errors import DataError
from mixsup_lib.files import write_bytes
from mixsup_lib.geometry import Frame
from mixsup_lib.interrupts import interrupts_noted
from mixsup_lib.losses import classification_loss, joint_loss, segmentation_loss
from mixsup_lib.model import MixedSupervisionUNet
from mixsup_lib.optim import CosineSchedule, NormalizedSGD, PlateauSchedule
from mixsup_lib.sampling import Batch, BatchSampler
from mixsup_lib.saved_state import read_checkpoint

HISTORY_COLUMNS = ("iteration", "loss", "segmentation_loss", "classification_loss", "learning_rate")


def build_optimizer(config: RunConfig, network: torch.nn.Module):
    """Optimiser and schedule of a run; the paper's are normalized_sgd and plateau."""
    if config.optimizer == "normalized_sgd":
        optimizer = NormalizedSGD(network.parameters(), lr=config.learning_rate, momentum=config.momentum)
    else:
        optimizer = torch.optim.Adam(network.parameters(), lr=config.learning_rate, fused=True)
    if config.schedule == "plateau":
        return optimizer, PlateauSchedule(optimizer)
    final_fraction = 1.0 if config.schedule == "constant" else 0.01
    return optimizer, CosineSchedule(optimizer, config.iterations, final_fraction=final_fraction)


@dataclass
class Trainer:
    """Everything a training step needs; `network` and `sampler` carry the state.

    Attributes:
        sampler: what batches are drawn from; `feed.feed_batches` makes one whose batches lie on the device.
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
        self.forward = compiled(self.network, self._try) if self.config.compile else self.network

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

    def _try(self, forward: Callable) -> None:
        """One forward and backward pass with `forward`; the batch will be drawn again."""
        state, self.forward = self.sampler.state_dict(), forward
        batch = self.sampler.draw()
        self.sampler.load_state_dict(state)
        self.losses(batch)[0].backward()

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
        self.schedule.step(loss)
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
        """(B, C, H, W) -> zero-padded to the network's input, channels last."""
        rows, columns = self.frames
        images = torch.as_tensor(batch.images).to(self.device, non_blocking=True)
        padding = (columns.pad_before, columns.pad_after, rows.pad_before, rows.pad_after)
        images = torch.nn.functional.pad(images, padding)  # (B, C, H + pads, W + pads)
        return images.contiguous(memory_format=torch.channels_last)

    def targets(self, batch: Batch) -> torch.Tensor:
        """(k + m, H, W) -> the part that the network's output covers, (k + m, H', W')."""
        (top, bottom), (left, right) = [(frame.first, frame.last) for frame in self.frames]
        labels = torch.as_tensor(batch.labels).to(self.device, non_blocking=True)
        height, width = labels.shape[1:]
        outside = (max(-left, 0), max(right - width, 0), max(-top, 0), max(bottom - height, 0))
        labels = labels[:, max(top, 0) : bottom, max(left, 0) : right]
        return torch.nn.functional.pad(labels, outside)  # beyond the slice there is no tumour

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
            raise DataError(
                f"{self.checkpoint}: belongs to other data or settings; delete it to start the run anew."
            )
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
