"""The workshop bundle: what goes in, what stays out; and stores that still fit after they were copied."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from pathlib import Path

import bundle
import pytest

from mixsup_lib.config import make_config
from mixsup_lib.datasets import find_cohort
from mixsup_lib.experiments.runs import open_store


def write(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def checkout(tmp_path):
    """A small repository with a phantom, its store, a finished and an unfinished run, and scans of people."""
    root = tmp_path / "checkout"
    write(root / ".gitignore", "/data/*\n/runs/\n/build/\n")
    write(root / "README.md", "committed")
    git = ["git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "first"]):
        subprocess.run([*git, *command], check=True)
    write(root / "README.md", "changed since")
    write(root / "data/phantom-seed1/phantom.json", "{}")
    write(root / "data/stores/phantom-seed1/2mm/a.npy")
    write(root / "data/stores/phantom-seed1/.lock", "")
    write(root / "data/patients/HGG/a/a_flair.nii.gz")
    run = root / "runs/phantom-seed1/workshop/fold1/mixed"
    for name in ("metrics.json", "weights.safetensors", "checkpoint.pt"):
        write(run / "seed0-1234" / name)
    write(run / "seed1-1234.partial/metrics.json")
    write(run / "seed0-1234.lock", "")
    write(root / "runs/patients/workshop/fold1/mixed/seed0-1/metrics.json")
    return root


def test_the_bundle_holds_the_commit_the_phantom_and_its_finished_runs_and_no_scans_of_people(checkout, tmp_path):
    top = tmp_path / "top"
    bundle.add_repository(top, checkout)
    missing = bundle.add_data(top, ["phantom-seed1", "patients"], checkout)
    bundle.add_texts(top, missing, checkout)
    assert {path.relative_to(top).as_posix() for path in top.rglob("*") if path.is_file()} == {
        "INSTALL.txt",
        "install.sh",
        "mixsup/README.md",
        "mixsup/.gitignore",
        "mixsup/data/phantom-seed1/phantom.json",
        "mixsup/data/stores/phantom-seed1/2mm/a.npy",
        "mixsup/runs/phantom-seed1/workshop/fold1/mixed/seed0-1234/metrics.json",
        "mixsup/runs/phantom-seed1/workshop/fold1/mixed/seed0-1234/weights.safetensors",
    }
    assert (top / "mixsup/README.md").read_text() == "committed"
    text = (top / "INSTALL.txt").read_text()
    assert "data/patients is no phantom" in text and "@" not in text
    assert "build/site (`make site` makes it)" in text


def test_an_unpacked_store_is_used_as_it_is(phantom, run_settings, tmp_path):
    """The folder changes, and the times of files are kept as an archive keeps them; nothing is prepared again."""
    old, new = tmp_path / "old", tmp_path / "new"
    shutil.copytree(phantom, old / "data/cohort")
    settings = {**run_settings, "cohort": old / "data/cohort", "stores": old / "data/stores"}
    before = open_store(make_config(**settings), find_cohort(settings["cohort"]))
    with tarfile.open(tmp_path / "bundle.tar.gz", "w:gz", compresslevel=1) as out:
        out.add(old / "data", "data")
    shutil.rmtree(old)
    with tarfile.open(tmp_path / "bundle.tar.gz") as packed:
        packed.extractall(new, filter="data")
    written = {file: file.stat().st_mtime_ns for file in new.glob("data/stores/*/*/*.npy")}
    settings |= {"cohort": new / "data/cohort", "stores": new / "data/stores"}
    after = open_store(make_config(**settings), find_cohort(settings["cohort"]))
    assert len(written) == 10 and written == {file: file.stat().st_mtime_ns for file in written}
    assert after.fingerprint() == before.fingerprint()
