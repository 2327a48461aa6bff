"""Killed, interrupted, doubled: the next start continues, nothing half written counts, two processes do not collide."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import soak
from filelock import FileLock

from mixsup_lib import slices
from mixsup_lib.config import make_config
from mixsup_lib.experiments.runs import run
from mixsup_lib.files import DataError, worker_pool
from mixsup_lib.slices import prepare

GRID = {"pixel_mm": 5.0, "window": (48, 48), "progress": False}


@pytest.mark.parametrize("name", ["prepare", "training"])
def test_killed_at_random_moments_a_job_ends_on_the_same_bytes(name, phantom, tmp_path, monkeypatch):
    """`make soak` does the same many times, with a grid of runs too."""
    monkeypatch.setitem(soak.TRAINING, "iterations", 10)
    ends, _ = soak.soak(soak.JOBS[name], phantom, 3, np.random.default_rng(1), tmp_path)
    assert ends > 0


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_of_a_killed_process_end_and_free_its_locks(method, tmp_path):
    """Without this, the workers wait for ever, with the lock that they inherited: the next start would never begin."""

    def work() -> None:
        with FileLock(tmp_path / "lock"), worker_pool(2, tmp_path, method) as each:
            list(each(exec, [_touch_and_sleep(tmp_path / name, 600) for name in ("one", "two")]))

    child = _fork(work)
    _wait_for((tmp_path / "one").exists)  # killed before it begins, a worker ends by itself
    _wait_for((tmp_path / "two").exists)
    workers = psutil.Process(child).children(recursive=True)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with FileLock(tmp_path / "lock", timeout=60):
        pass
    assert psutil.wait_procs(workers, timeout=60)[1] == []


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_after_an_error_no_worker_writes_on(method, tmp_path):
    """Whoever gets the folder's lock next would remove the file under its hands, or find it half written."""
    with pytest.raises(ZeroDivisionError), worker_pool(2, tmp_path, method) as each:
        ended = f"; open({str(tmp_path / 'ended')!r}, 'x').close()"
        each(exec, [_touch_and_sleep(tmp_path / "begun", 0.2) + ended])
        _wait_for((tmp_path / "begun").exists)
        raise ZeroDivisionError
    assert sorted(file.name for file in tmp_path.iterdir()) == ["begun", "ended"]


def _touch_and_sleep(file: Path, seconds: float) -> str:
    """A program, as text: a worker need not import this file to run it."""
    return f"import time; open({str(file)!r}, 'x').close(); time.sleep({seconds})"


def _fork(work) -> int:
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return child


def _wait_for(happened, seconds: float = 300) -> None:
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_worker_of_prepare_that_is_killed_is_one_sentence(phantom, tmp_path, monkeypatch):
    monkeypatch.setattr(slices, "_prepare_patient", _no_work)
    with pytest.raises(DataError, match=r"store: a process that writes it ended early: too little memory"):
        prepare(phantom, tmp_path / "store", workers=2, **GRID)
    monkeypatch.undo()
    assert len(prepare(phantom, tmp_path / "store", workers=2, **GRID))


def _no_work(patient, **options) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("harm", ["cut", "record", "missing"])
def test_what_a_killed_prepare_left_damaged_is_prepared_again(harm, phantom, store, tmp_path, monkeypatch):
    prepare(phantom, tmp_path / "store", **GRID)
    ids = [patient.id for patient in store.cohort.patients]
    (tmp_path / "store" / f".0123abcd.{ids[0]}.npy").write_bytes(b"half")
    file = tmp_path / "store" / f"{ids[3]}{'.json' if harm == 'record' else '.npy'}"
    if harm == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-100])
    calls, real = [], slices.patient_slices
    monkeypatch.setattr(slices, "patient_slices", lambda case, *rest: calls.append(case.patient) or real(case, *rest))
    assert np.array_equal(prepare(phantom, tmp_path / "store", **GRID)[:], store[:]) and calls == [ids[3]]
    files = {f"{name}{suffix}" for name in ids for suffix in (".npy", ".json")}
    assert {f.name for f in (tmp_path / "store").iterdir()} - {".lock"} == files | {"slice_labels.csv"}


def test_temporary_files_of_a_killed_run_do_not_get_into_the_finished_folder(run_settings):
    config = make_config(**{**run_settings, "iterations": 2})
    folder = run(config)
    partial = folder.with_name(f"{folder.name}.partial")
    folder.rename(partial)
    (partial / ".0123abcd.checkpoint.pt").write_bytes(b"half")
    assert run(config) == folder and not partial.exists() and not list(folder.glob(".*"))
    assert json.loads((folder / "provenance.json").read_text())["resumed"]


def test_a_second_prepare_says_that_it_waits_and_ends_on_the_same_store(phantom, store, tmp_path, monkeypatch, capfd):
    real = slices.patient_slices
    monkeypatch.setattr(slices, "patient_slices", lambda *args: time.sleep(0.1) or real(*args))
    child = _fork(lambda: prepare(phantom, tmp_path / "store", **GRID))
    _wait_for(lambda: list((tmp_path / "store").glob("*.npy")))
    second = prepare(phantom, tmp_path / "store", **GRID)
    assert os.waitpid(child, 0)[1] == 0
    assert f"{tmp_path / 'store'}: another process works on it; this one waits for it." in capfd.readouterr().err
    assert np.array_equal(second[:], store[:])


def test_a_second_process_on_a_run_is_refused_while_the_first_goes_on(run_settings):
    config = make_config(**{**run_settings, "iterations": 60, "checkpoint_seconds": 1e-9})
    child = _fork(lambda: run(config))
    _wait_for(lambda: list(config.out.rglob("checkpoint.pt")))
    with pytest.raises(DataError, match=r"partial: another process works on this run; wait for it"):
        run(config)
    assert os.waitpid(child, 0)[1] == 0
    (finished,) = [path.parent for path in config.out.rglob("metrics.json")]
    assert run(config) == finished and not list(config.out.rglob("*.partial"))
