"""A full disk: one clear sentence, nothing damaged, and the same command continues once there is room."""

from __future__ import annotations

import errno
import gc
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soak

from mixsup_lib import slices
from mixsup_lib.__main__ import main
from mixsup_lib.config import make_config
from mixsup_lib.experiments.runs import run
from mixsup_lib.files import DiskFullError, atomic_path, disk_full, is_leftover, write_text
from mixsup_lib.slices import prepare

WINDOW = (32, 32)


@pytest.fixture
def disk(tmp_path):
    """A disk of 8 MB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here (that takes root): {mounted.stderr.strip()}")
    yield folder
    gc.collect()  # memory maps
    subprocess.run(["umount", "--lazy", folder], check=True)


def leave(disk: Path, kilobytes: int) -> None:
    """Fill the disk so that this much room is left."""
    filler = disk / "filler"
    filler.unlink(missing_ok=True)
    free = subprocess.run(["df", "--output=avail", "-k", disk], capture_output=True, text=True, check=True)
    with open(filler, "wb") as file:
        file.write(b"\0" * 1024 * max(int(free.stdout.split()[1]) - kilobytes, 0))


def assert_one_sentence(capfd, disk: Path) -> str:
    """The command said one sentence: a file on the disk, the room, what to do; nothing half done is left."""
    error = [line for line in capfd.readouterr().err.splitlines() if line and "|" not in line]  # without bars
    assert len(error) == 1, error
    assert error[0].startswith(f"DiskFullError: {disk}") and "its disk is full: there is room for" in error[0]
    assert "Make room and start the same command again" in error[0]
    soak.check_whole(disk)
    assert not [file for file in disk.rglob(".*") if is_leftover(file)]
    return error[0]


def test_prepare(disk, phantom, tmp_path, capfd, monkeypatch):
    """The slices of all patients take 2.5 MB. What fits is kept."""
    call = ["prepare", str(phantom), str(disk / "s"), "--window", *map(str, WINDOW), "--workers"]
    for room, workers in ((0, "1"), (500, "2"), (1000, "1")):
        leave(disk, room)
        assert main([*call, workers]) == 1
        said = assert_one_sentence(capfd, disk)
    assert ".npy: cannot" in said and "it needs 0.25 MB" in said
    (disk / "filler").unlink()
    prepared, real = [], slices.patient_slices
    monkeypatch.setattr(
        slices, "patient_slices", lambda case, *rest: prepared.append(case.patient) or real(case, *rest)
    )
    assert main([*call, "1"]) == 0 and 0 < len(prepared) < 8
    whole = prepare(phantom, tmp_path / "s", window=WINDOW, progress=False)
    for patient in whole.cohort.patients:
        stored = np.load(disk / "s" / f"{patient.id}.npy", allow_pickle=False)
        assert np.array_equal(stored, whole.slices(patient.id))


def test_run(disk, run_settings, tmp_path, capfd):
    """Room for less and less short of everything: the first record, the checkpoint, the weights, the tables."""
    settings = {**run_settings, "iterations": 3, "checkpoint_seconds": 1e-9}
    whole = run(make_config(**settings))
    pairs = [f"{name}={value}" for name, value in {**settings, "out": disk / "runs"}.items()]
    size = sum(file.stat().st_size for file in whole.iterdir())
    checkpoint = (whole / "checkpoint.pt").stat().st_size
    full = []
    for room in (0, checkpoint // 2, checkpoint + 200_000, size - 8_000):
        leave(disk, room // 1024)
        if main(["run", "--set", *pairs]) == 0:
            break
        full.append(assert_one_sentence(capfd, disk).split(": ")[1].split("/")[-1])
        assert not list((disk / "runs").rglob("metrics.json"))
    assert {"config.json", "checkpoint.pt"} <= set(full) and len(full) >= 3
    (disk / "filler").unlink()
    assert main(["run", "--set", *pairs]) == 0
    assert soak.results(disk / "runs") == soak.results(tmp_path / "runs")


def test_a_file_keeps_what_it_held_and_the_sentence_tells_the_room(disk):
    write_text(disk / "a.txt", "before")
    leave(disk, 8)
    with pytest.raises(DiskFullError, match=r"a\.txt: .* there is room for 0\.01 MB, and it needs 1\.00 MB\."):
        write_text(disk / "a.txt", "x" * 1_000_000)
    assert (disk / "a.txt").read_text() == "before"
    with pytest.raises(DiskFullError, match="it needs more"), atomic_path(disk / "b.txt") as temporary:
        temporary.write_bytes(b"x" * 1_000_000)
    assert [file.name for file in disk.iterdir() if file.name != "filler"] == ["a.txt"]


def test_a_quota_is_named_and_other_faults_are_left_alone(tmp_path):
    assert "quota" in str(disk_full(OSError(errno.EDQUOT, ""), tmp_path / "a"))
    assert disk_full(OSError(errno.EACCES, ""), tmp_path / "a") is None
    with pytest.raises(IsADirectoryError):
        write_text(tmp_path, "x")
