"""The workshop bundle: what goes in, what stays out, what it says; and stores that still fit after they were copied.

Downloading packages is left out here: `python workflow/try_workshop_bundle.py ARCHIVE` installs from a real bundle.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from mixsup_lib.config import make_config
from mixsup_lib.datasets import find_cohort
from mixsup_lib.experiments.runs import open_store

ROOT = Path(__file__).resolve().parent.parent

import workshop_bundle as bundle  # noqa: E402


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
    write(root / "runs/report-phantom-seed1.html")
    write(root / "runs/patients/workshop/fold1/mixed/seed0-1/metrics.json")
    return root


def test_what_is_missing_is_said_and_the_rest_is_packed(checkout):
    found, missing = bundle.find_data(checkout, ["phantom-seed1", "phantom-tiny"])
    assert [str(path.relative_to(checkout)) for path in found] == [
        "data/phantom-seed1",
        "data/stores/phantom-seed1",
        "runs/phantom-seed1/workshop/fold1/mixed/seed0-1234",
        "runs/report-phantom-seed1.html",
    ]
    (line,) = missing
    assert "data/phantom-tiny is missing" in line
    shutil.rmtree(checkout / "runs")
    shutil.rmtree(checkout / "data/stores")
    found, missing = bundle.find_data(checkout, ["phantom-seed1"])
    assert len(found) == 1 and ["no prepared slices" in missing[0], "no finished run" in missing[1]] == [
        True,
        True,
    ]


def test_scans_of_people_are_never_packed(checkout):
    found, (line,) = bundle.find_data(checkout, ["patients"])
    assert found == [] and "never scans of people" in line


def test_the_archive_holds_the_commit_the_phantom_and_the_texts_and_nothing_unfinished(checkout, tmp_path):
    wheels = write(tmp_path / "wheels/numpy-1-py3-none-any.whl").parent
    found, missing = bundle.find_data(checkout, ["phantom-seed1", "phantom-tiny"])
    archive = tmp_path / "bundle.tar.gz"
    bundle.pack(archive, wheels, found, missing, checkout)
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path / "out", filter="data")
    top = tmp_path / "out" / bundle.TOP
    files = {str(path.relative_to(top)) for path in top.rglob("*") if path.is_file()}
    assert files == {
        "INSTALL.txt",
        "install.sh",
        "wheelhouse/numpy-1-py3-none-any.whl",
        "mixsup/README.md",
        "mixsup/.gitignore",
        "mixsup/data/phantom-seed1/phantom.json",
        "mixsup/data/stores/phantom-seed1/2mm/a.npy",
        "mixsup/runs/phantom-seed1/workshop/fold1/mixed/seed0-1234/metrics.json",
        "mixsup/runs/phantom-seed1/workshop/fold1/mixed/seed0-1234/weights.safetensors",
        "mixsup/runs/report-phantom-seed1.html",
    }
    assert (top / "mixsup/README.md").read_text() == "committed"
    assert (top / "install.sh").stat().st_mode & 0o111
    assert "phantom-tiny" in (top / "INSTALL.txt").read_text()
    assert not archive.with_name("bundle.tar.gz.partial").exists()


def test_the_texts_are_complete_and_the_script_is_a_shell_script(tmp_path):
    filled = bundle.texts(3, [])
    assert all("@" not in text for text in filled.values())
    assert f"Python {sys.version_info[0]}.{sys.version_info[1]}" in filled["INSTALL.txt"]
    script = write(tmp_path / "install.sh", filled["install.sh"])
    subprocess.run(["sh", "-n", script], check=True)
    assert (ROOT / "workflow/try_workshop_bundle.py").exists()


def test_another_python_is_refused_in_one_sentence_before_anything_is_made(tmp_path):
    text = bundle.texts(3, [])["install.sh"]
    script = write(
        tmp_path / "install.sh", text.replace(f"{sys.version_info[0]}.{sys.version_info[1]}", "3.99")
    )
    done = subprocess.run(["sh", script], capture_output=True, text=True)
    assert done.returncode == 2 and "with Python 3.99" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["install.sh"]


def test_the_wheelhouse_has_every_pin_and_what_an_editable_installation_needs():
    wanted = bundle.requirements()
    assert {"hatchling", "editables"} <= set(wanted)
    assert [line for line in wanted if line.startswith(("torch==", "nbval=="))] == [
        line for line in wanted if line.partition("==")[0] in ("torch", "nbval")
    ]
    assert not [line for line in wanted if line.startswith("sphinx")]


def test_the_make_targets_run_these_scripts():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "workshop-bundle: $(STAMP)\n\t@$(BIN)/python workflow/workshop_bundle.py" in text
    assert "site: $(SITE_STAMP)\n\t@$(BIN)/python workflow/make_site.py" in text
    assert '--editable ".[site]"' in text


@pytest.mark.parametrize("unpacked_by", ["python", "tar"])
def test_an_unpacked_store_is_used_as_it_is(phantom, run_settings, tmp_path, unpacked_by):
    """The folder changes, and the times of files are kept as an archive keeps them; nothing is prepared again."""
    old, new = tmp_path / "old", tmp_path / "new"
    shutil.copytree(phantom, old / "data/cohort")
    settings = {**run_settings, "cohort": old / "data/cohort", "stores": old / "data/stores"}
    before = open_store(make_config(**settings), find_cohort(settings["cohort"]))
    with tarfile.open(tmp_path / "bundle.tar.gz", "w:gz", compresslevel=1) as out:
        out.add(old / "data", "data")
    shutil.rmtree(old)
    new.mkdir()
    if unpacked_by == "tar":
        subprocess.run(["tar", "-xzf", tmp_path / "bundle.tar.gz", "-C", new], check=True)
    else:
        with tarfile.open(tmp_path / "bundle.tar.gz") as packed:
            packed.extractall(new, filter="data")
    written = {file: file.stat().st_mtime_ns for file in new.glob("data/stores/*/*/*.npy")}
    settings |= {"cohort": new / "data/cohort", "stores": new / "data/stores"}
    after = open_store(make_config(**settings), find_cohort(settings["cohort"]))
    assert len(written) == 10 and written == {file: file.stat().st_mtime_ns for file in written}
    assert after.fingerprint() == before.fingerprint()
