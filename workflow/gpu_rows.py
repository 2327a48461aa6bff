"""What `gpu_bench.py` measures: training steps, memory, slices on the GPU, segmentation. Each row is a dictionary."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from gpu_measure import MonaiStep, Sizes, median_seconds, row, unmeasured, wait
from made_up_slices import ANNOTATED, trainer_on, volume, write_slices
from tiles import in_tiles

from mixsup_lib.evaluation import score_slices
from mixsup_lib.teaching import speed
from mixsup_lib.training import Trainer

OURS = "bfloat16, channels_last, compiled"
STRICT = speed.GPU_WAYS[0].name


def ceiling(sizes: Sizes) -> Iterator[dict]:
    """How fast this GPU multiplies and copies, and the most images a second that the arithmetic alone would allow."""
    a, b = (torch.randn(sizes.matrix, sizes.matrix, device=sizes.device).bfloat16() for _ in range(2))
    tflops = 2e-12 * sizes.matrix**3 / median_seconds(lambda: a @ b, sizes.device, 10)
    yield row(
        "ceiling", "bfloat16 matrix product", tflops, "TFLOP/s", note=f"of {sizes.matrix} rows and columns"
    )
    target = torch.empty_like(a)
    copied = 2e-12 * a.nbytes / median_seconds(lambda: target.copy_(a), sizes.device, 10)
    yield row("ceiling", "copy, bytes read and written", copied, "TB/s")
    _, gflop = speed.training_gflop(sizes.network)
    note = f"{gflop:.0f} GFLOP an image at the product's rate"
    yield row("ceiling", "arithmetic floor of a training step", 1000 * tflops / gflop, "images/s", note=note)


def steps(sizes: Sizes) -> Iterator[dict]:
    """Training steps of several batches by turns, against strict float32; MONAI's BasicUNet in two of the ways."""
    name, ways = "training step", sizes.ways()
    fast = next(way for way in ways if way.name == OURS)
    makers = {way.name: _maker(way, sizes, sizes.batch) for way in ways}
    for way in (ways[0], fast):
        makers[f"MONAI BasicUNet, {way.name}"] = lambda way=way: MonaiStep(way, sizes)
    working, peaks, failed = {}, {}, {}
    for way, make in makers.items():
        try:
            peaks[way] = speed.peak_mb(sizes.device, make, calls=1)
            working[way] = make()
            working[way]()
        except Exception as error:  # a missing compiler, MONAI or memory costs a row, not the table
            failed[way] = error
    seconds, losses = speed.take_turns(list(working.values()), sizes.rounds)
    times = dict(zip(working, seconds, strict=True))
    images = sizes.batches * sum(sizes.batch)
    for way in makers:
        if way in failed:
            yield unmeasured(name, way, "images/s", failed[way])
            yield unmeasured("peak memory", way, "MB", failed[way])
            continue
        ratio = times[STRICT] / times[way] if STRICT in times else math.nan
        note = f"{1000 * times[way]:.4g} ms a step of {sizes.batches} batches of {sum(sizes.batch)}"
        yield row(name, way, images / times[way], "images/s", against=STRICT, ratio=ratio, note=note)
        ratio = peaks[STRICT] / peaks[way] if STRICT in peaks else math.nan
        yield row("peak memory", way, peaks[way], "MB", against=STRICT, ratio=ratio)


def _maker(way: speed.Way, sizes: Sizes, batch: tuple[int, int, int], batches: int | None = None) -> Callable:
    return lambda: speed.Step(way, sizes.network, batch=batch, batches=batches or sizes.batches)


def memory(sizes: Sizes) -> Iterator[dict]:
    """Peak memory of a large batch, and of one and of several batches per optimiser step."""
    name, images = "large batch", f"{sum(sizes.large_batch)} images"
    for way in sizes.ways():
        try:
            peak = speed.peak_mb(sizes.device, _maker(way, sizes, sizes.large_batch, 1))
        except Exception as error:  # out of memory, or no compiler
            yield unmeasured(name, way.name, "MB", error)
            continue
        fits = "" if math.isnan(peak) else f"; {'fits' if peak < 40_000 else 'does not fit'} in 40 GB"
        yield row(name, way.name, peak, "MB", note=images + fits)
    ours = next(way for way in sizes.ways() if way.name == "bfloat16, channels_last")
    first = math.nan
    for batches in (1, sizes.batches):
        peak = speed.peak_mb(sizes.device, _maker(ours, sizes, sizes.batch, batches))
        first = peak if batches == 1 else first
        way, note = "one batch a step" if batches == 1 else "all batches of a step", f"{batches} batches"
        yield row("many batches", way, peak, "MB", against="one batch a step", ratio=first / peak, note=note)


def resident(sizes: Sizes) -> Iterator[dict]:
    """Training with slices on the GPU, read ahead, and read when needed, against the same batch again and again."""
    name, precision = "slices to the GPU", "bfloat16"
    settings = {"width": sizes.width, "input_size": sizes.input_size, "batches_per_iteration": sizes.batches}
    with tempfile.TemporaryDirectory(dir=sizes.scratch) as folder:
        data = write_slices(
            Path(folder) / "images.npy", sizes.patients, slices=sizes.training_slices, shape=sizes.slice_shape
        )
        trainers = {}
        for feed in ("resident", "prefetch", "direct"):
            started = time.perf_counter()
            try:
                trainers[feed] = trainer_on(data, sizes.device, precision, feed=feed, **settings)
            except Exception as error:
                yield unmeasured(name, feed, "ms a batch", error)
                continue
            wait(sizes.device)
            if feed == "resident":
                note = f"{data.images.nbytes / 1e9:.3g} GB of {sizes.patients} patients"
                yield row(name, "loading", time.perf_counter() - started, "s", note=note)
        _refuse_difference(trainers)
        same = trainer_on(data, sizes.device, precision, feed="direct", **settings)
        same.sampler = _Again(next(iter(trainers.values())).sampler.draw())
        everything = {"the same batch": same} | trainers
        seconds, _ = speed.take_turns([_iteration(trainer) for trainer in everything.values()], sizes.rounds)
        times = dict(zip(everything, seconds, strict=True))
        for way, trainer in everything.items():
            ms, waits = 1000 * times[way] / sizes.batches, 100 * (1 - times["the same batch"] / times[way])
            copies = _copies(trainer) / sizes.batches
            note = f"{waits:.1f} % of the time waiting for data; {copies:g} copies a batch to the device"
            ratio = times["prefetch"] / times[way] if "prefetch" in times else math.nan
            yield row(name, way, ms, "ms a batch", against="prefetch", ratio=ratio, note=note)
        for trainer in trainers.values():
            trainer.sampler = None  # nothing may keep the file open


class _Again:
    """A sampler that always hands out one batch, which lies on the device already."""

    def __init__(self, batch) -> None:
        self.batch = batch

    def draw(self):
        return self.batch


def _iteration(trainer: Trainer) -> Callable[[], float]:
    return lambda: trainer.step()[1]


def _refuse_difference(trainers: dict[str, Trainer], batches: int = 20) -> None:
    """Every feed must hand out the same batches; rows beyond 2**31 numbers of the array are the ones to fear."""
    for _ in range(batches):
        drawn = [trainer.sampler.draw() for trainer in trainers.values()]
        for batch in drawn[1:]:
            for field in ("images", "labels", "presence"):
                one, other = (torch.as_tensor(getattr(part, field)).cpu() for part in (drawn[0], batch))
                if not torch.equal(one, other):
                    raise SystemExit(
                        f"Batches of {' and '.join(trainers)} differ in their {field}: a fault in feed.py."
                    )


def _copies(trainer: Trainer) -> float:
    """Copies from host to device in one iteration; NaN where the profiler sees no GPU."""
    from torch.profiler import ProfilerActivity, profile

    if trainer.device.type != "cuda":
        return math.nan
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        trainer.step()
        torch.cuda.synchronize()
    events = profiler.key_averages()
    return sum(event.count for event in events if event.key.startswith("Memcpy HtoD")) if events else math.nan


def segmentation(sizes: Sizes) -> Iterator[dict]:
    """One volume with whole slices in one pass, against tiles; labels in bfloat16 against float32."""
    name = "segmentation of one volume"
    with tempfile.TemporaryDirectory(dir=sizes.scratch) as folder:
        data = write_slices(
            Path(folder) / "images.npy", ANNOTATED + 1, slices=sizes.training_slices, shape=sizes.slice_shape
        )
        trainer = trainer_on(
            data,
            sizes.device,
            "bfloat16" if sizes.device == "cuda" else "float32",
            supervision="standard",
            width=sizes.width,
            input_size=sizes.input_size,
            optimizer="adam",
            learning_rate=1e-3,
            schedule="cosine",
            iterations=sizes.learning_steps,
            batches_per_iteration=1,
            batch_norm_batches=min(sizes.learning_steps, 50),
        )
        trainer.run()
        network, device = trainer.network, trainer.device
        trainer.sampler = None
        del data
    slices, truth = volume(
        sizes.slices, sizes.slice_shape, np.random.default_rng(1)
    )  # (Z, 4, H, W), (Z, H, W)
    size = network.geometry.smallest_input(sizes.slice_shape[0])
    whole, tiled = "whole slices", "tiles"
    labels, times = {}, {}
    for precision in ("float32", "bfloat16"):
        for way, score in ((whole, _whole_slices), (tiled, in_tiles)):
            key = f"{way}, {precision}"

            def work(score=score, precision=precision):
                return score(network, slices, sizes.tile, device, precision)

            labels[key] = work().argmax(axis=1)  # (Z, H, W)
            times[key] = median_seconds(work, sizes.device, 3)
    for way, seconds in times.items():
        against = way.replace(whole, tiled)
        ratio = times[against] / seconds
        side = size if way.startswith(whole) else sizes.tile
        note = f"{sizes.slices} slices, passes of {side}x{side} pixels"
        yield row(name, way, seconds, "s", against=against, ratio=ratio, note=note)
    best = f"{whole}, float32"
    note = f"Dice of float32 with the made-up truth {100 * _dice(labels[best], truth):.1f}"
    for way in (f"{whole}, bfloat16", f"{tiled}, float32"):
        same = 100 * float((labels[way] == labels[best]).mean())
        yield row("equal labels", way, same, "%", against=best, note=note)


def _whole_slices(network, slices, tile: int, device: torch.device, precision: str) -> np.ndarray:
    return score_slices(network, slices, device=device, precision=precision)[0]


def _dice(labels: np.ndarray, truth: np.ndarray) -> float:
    return 2 * float((labels & truth).sum()) / max(float(labels.sum() + truth.sum()), 1)


PARTS = {
    "ceiling": ceiling,
    "steps": steps,
    "memory": memory,
    "resident": resident,
    "segmentation": segmentation,
}
