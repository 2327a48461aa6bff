"""The jobs that `kill_trial.py` kills, and what their results are."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import torch
from forks import in_fork
from safetensors.torch import load_file

from mixsup_lib.config import make_config
from mixsup_lib.experiments.runs import run
from mixsup_lib.phantom import make_patient, make_phantom
from mixsup_lib.slices import prepare

ROOT = Path(__file__).resolve().parent.parent

TRAINING = {"iterations": 30, "batch_norm_batches": 3, "checkpoint_seconds": 1e-9}
"""A checkpoint after every iteration, so that many kills fall into its writing."""

DEPENDS_ON_TIME = {
    "provenance.json",
    "checkpoint.pt",
    "examples.npz",
    "config.json",
    "metrics.json",
}
"""Not compared as bytes: they hold times, dates inside an archive, or the folder of the job."""


@dataclass(frozen=True)
class Job:
    """`work(folder, number)` does the job in `folder` (or continues it); `number` counts the starts.

    `results(folder)`: what must not depend on kills, by name. `finished(folder)`: files that must stay as they are once
    they are there. `before(folder)`: puts there what the first start finds. `in_groups`: kill its processes too.
    """

    work: Callable[[Path, int], None]
    results: Callable[[Path], dict[str, bytes]]
    finished: Callable[[Path], list[Path]]
    before: Callable[[Path], None] = lambda folder: None
    in_groups: bool = False


def settings_of(cohort: Path, folder: Path) -> dict:
    """Settings of a tiny run in float32."""
    return {
        "cohort": cohort,
        "out": folder / "runs",
        "stores": folder / "stores",
        "n_fa": 3,
        "progress": False,
        "precision": "float32",
        "device": "cpu",
        **TRAINING,
    }


def make_job(name: str, cohort: Path, scratch: Path) -> Job:
    """The job of that name on a cohort of tiny phantoms. `scratch` keeps what its starts share."""
    if name == "prepare":

        def work(folder: Path, number: int) -> None:
            grid = {"pixel_mm": 5.0, "window": (48, 48)}
            prepare(cohort, folder / "store", **grid, workers=1 + number % 2, progress=False)

        return Job(work, lambda folder: contents(folder / "store"), lambda folder: [])
    if name == "phantom":
        make_patient(0, voxel_mm=6.0)  # the template is loaded once, before the forks

        def work(folder: Path, number: int) -> None:
            make_phantom(folder / "cohort", patients=6, voxel_mm=6.0, workers=1, progress=False)

        return Job(
            work, lambda folder: contents(folder / "cohort"), lambda f: sorted(f.glob("cohort/[HL]GG/*/*"))
        )
    if name == "grid":
        return _grid(cohort)

    def work(folder: Path, number: int) -> None:
        run(make_config(**settings_of(cohort, folder)))

    def before(folder: Path) -> None:
        if name == "evaluation":
            shutil.copytree(_trained(cohort, scratch), folder, dirs_exist_ok=True)

    return Job(work, lambda folder: contents(folder / "runs"), _finished_runs, before)


def _trained(cohort: Path, scratch: Path) -> Path:
    """A folder with a run that has its last checkpoint and nothing more."""
    folder = scratch / "trained"
    if not folder.exists():
        begun = scratch / "begun"
        in_fork(lambda: run(make_config(**settings_of(cohort, begun))))
        (finished,) = [path.parent for path in begun.rglob("metrics.json")]
        for file in finished.iterdir():
            if file.name not in ("config.json", "checkpoint.pt"):
                file.unlink()
        finished.rename(finished.with_name(f"{finished.name}.partial"))
        begun.rename(folder)
    return folder


def _grid(cohort: Path) -> Job:
    scenario = {"name": "small", "compare": "supervision", "folds": [1]}
    scenario["settings"] = {"preset": "tiny", "n_fa": 3, "precision": "float32", "device": "cpu", **TRAINING}
    scenario["axes"] = {"supervision": ["standard", "mixed"]}

    def work(folder: Path, number: int) -> None:
        (folder / "small.yaml").write_text(json.dumps(scenario))
        command = [sys.executable, ROOT / "workflow/run_grid.py", "small.yaml", "--cohort", cohort]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [*command, "--cores", "1"], cwd=folder, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr

    return Job(work, lambda folder: contents(folder / "runs"), _finished_runs, in_groups=True)


def _finished_runs(folder: Path) -> list[Path]:
    found = [path.parent for path in (folder / "runs").rglob("fold*/*/*/metrics.json")]
    found = [place for place in found if place.suffix != ".partial" and ".grid" not in place.parts]
    inside = [file for place in found for file in sorted(place.iterdir())]
    return [file for file in inside if file.name != "run.ipynb"]  # a grid copies it afterwards


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below `folder` that is no lock, log or notebook: by its name, its bytes or what they mean."""
    found = {}
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder).as_posix()
        if file.is_dir() or name.startswith(".grid/") or file.suffix in (".lock", ".log", ".ipynb"):
            continue
        found[name] = _meaning(file)
    return found


def _meaning(file: Path) -> bytes:
    if file.name not in DEPENDS_ON_TIME:
        return file.read_bytes()
    if file.name == "examples.npz":
        with np.load(file, allow_pickle=False) as archive:
            return b"".join(archive[name].tobytes() for name in sorted(archive.files))
    if file.name == "metrics.json":
        content = json.loads(file.read_text())
        return json.dumps({name: content[name] for name in content if name != "config"}).encode()
    return b""


def check_whole(folder: Path) -> None:
    """Read every file under its final name; raises where one is half written."""
    for file in sorted(folder.rglob("*")):
        if file.is_dir() or file.name.startswith("."):
            continue
        if any(part.startswith(".") for part in file.relative_to(folder).parts):
            continue
        if file.suffix == ".json":
            json.loads(file.read_text(encoding="utf-8"))
        elif file.suffix == ".npy":
            np.load(file, allow_pickle=False)
        elif file.suffix == ".npz":
            np.load(file, allow_pickle=False)["image"]
        elif file.suffix == ".pt":
            torch.load(file, weights_only=True)
        elif file.suffix == ".safetensors":
            load_file(file)
        elif file.suffix == ".csv":
            pd.read_csv(io.BytesIO(file.read_bytes()))
        elif file.name.endswith(".nii.gz"):
            np.asanyarray(nib.load(file).dataobj)


def digests(files: list[Path]) -> dict[Path, str]:
    return {file: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
