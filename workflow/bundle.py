"""Pack what a room without internet needs into one archive in dist/: repository, packages, phantoms, runs, site.

    python workflow/bundle.py [--cohorts phantom-seed1 phantom-tiny]

The packages fit machines with the operating system, processor and Python version of this one. Of data/ and runs/ only
phantoms go along. INSTALL.txt in the archive says how to install without a network.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOP = "mixsup-workshop"
"""The archive's one folder; the repository is the folder `mixsup` in it."""
COHORTS = ("phantom-seed1", "phantom-tiny")
"""Phantoms of `make run` and of the notebooks."""
UNFINISHED = shutil.ignore_patterns("*.partial", "*.lock", "*.log", ".ipynb_checkpoints", "checkpoint.pt")
"""Left out; nothing reads the checkpoint of a finished run."""


def add_repository(folder: Path, root: Path = ROOT) -> None:
    """The last commit, as folder/mixsup."""
    with tempfile.TemporaryFile() as content:
        subprocess.run(["git", "archive", "--prefix=mixsup/", "HEAD"], cwd=root, stdout=content, check=True)
        content.seek(0)
        with tarfile.open(fileobj=content) as committed:
            committed.extractall(folder, filter="data")


def add_data(folder: Path, cohorts: Sequence[str], root: Path = ROOT) -> list[str]:
    """Phantoms with their slices and finished runs, and the site; returns a line for each thing that is not here."""
    wanted, missing = [("build/site", "site")], []
    for name in cohorts:
        if (root / "data" / name / "phantom.json").exists():
            wanted += [(place, f"mixsup/{place}") for place in (f"data/{name}", f"data/stores/{name}", f"runs/{name}")]
        else:
            missing.append(f"data/{name} is no phantom that is here; scans of people are never packed")
    for source, target in wanted:
        if (root / source).is_dir():
            shutil.copytree(root / source, folder / target, ignore=UNFINISHED)
        else:
            missing.append(f"{source} (`make {'site' if source == 'build/site' else 'run'}` makes it)")
    return missing


def add_packages(folder: Path, root: Path = ROOT) -> None:
    """A wheel of every package of the library and its tests, and of what an editable installation needs."""
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet"]
    command = [*pip, "--constraint", "constraints.txt", "--wheel-dir", folder / "wheelhouse"]
    torch = f"torch=={version('torch')}"  # the CPU build, where that is installed here
    subprocess.run([*command, ".[test]", torch, "hatchling", "editables"], cwd=root, check=True)
    for own in folder.glob("wheelhouse/mixsup_lib-*"):
        own.unlink()


def add_texts(folder: Path, missing: Sequence[str], root: Path = ROOT) -> None:
    """INSTALL.txt and install.sh, with the names of this platform and commit filled in."""
    commit = ["git", "rev-parse", "--short", "HEAD"]
    words = {
        "@COMMIT@": subprocess.run(commit, cwd=root, capture_output=True, text=True, check=True).stdout.strip(),
        "@PYTHON@": f"{sys.version_info[0]}.{sys.version_info[1]}",
        "@SYSTEM@": platform.system(),
        "@MACHINE@": platform.machine(),
        "@MISSING@": "\n".join(f"  - {line}" for line in missing) or "  - nothing",
    }
    for name in ("INSTALL.txt", "install.sh"):
        text = (ROOT / "workflow" / "workshop" / name).read_text(encoding="utf-8")
        for word, value in words.items():
            text = text.replace(word, value)
        (folder / name).write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cohorts", nargs="*", default=COHORTS, help="phantoms, names of folders in data/")
    call = parser.parse_args()
    archive = ROOT / "dist" / f"{TOP}-{platform.system()}-{platform.machine()}-py3.{sys.version_info[1]}.tar.gz"
    archive.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=archive.parent) as work:
        folder = Path(work, TOP)
        add_repository(folder)
        missing = add_data(folder, call.cohorts)
        add_texts(folder, missing)
        print("".join(f"left out: {line}\n" for line in missing) + "packages (a few hundred MB)", flush=True)
        add_packages(folder)
        with tarfile.open(Path(work, "archive"), "w:gz", compresslevel=1) as out:
            out.add(folder, TOP)
        os.replace(Path(work, "archive"), archive)
    print(f"{archive.relative_to(ROOT)}: {archive.stat().st_size / 1e6:.0f} MB, the last commit")


if __name__ == "__main__":
    main()
