"""Pack everything a room without internet needs into one archive in dist/: repository, packages, phantom, runs, site.

    python workflow/workshop_bundle.py [--cohorts phantom-seed1 phantom-tiny]

The packages fit machines with the same operating system, processor and Python version as this one. Of the folders data/
and runs/ only phantoms go along. `python workflow/try_workshop_bundle.py ARCHIVE` installs from it without a network.
"""

from __future__ import annotations

import argparse
import io
import platform
import shutil
import subprocess
import sys
import tarfile
import time
import tomllib
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORKSHOP = ROOT / "workflow" / "workshop"
TOP = "mixsup-workshop"
"""The archive's one folder; the repository is the folder `mixsup` in it."""
COHORTS = ("phantom-seed1", "phantom-tiny")
"""Phantoms of `make run` and of the notebooks."""
LEFT_OUT = (".partial", ".lock", ".log", ".ipynb_checkpoints", "checkpoint.pt")
"""Ends of names that belong to unfinished work; nothing reads the checkpoint of a finished run."""


def this_platform() -> str:
    """System, processor and Python that the packages fit, as part of a file name."""
    return f"{platform.system().lower()}-{platform.machine()}-py{sys.version_info[0]}.{sys.version_info[1]}"


def requirements(root: Path = ROOT) -> list[str]:
    """What an installation without a network needs: the pins of the library and of the tests, and the build tool."""
    content = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    project = content["project"]
    pins = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    return [
        *pins,
        *content["build-system"]["requires"],
        "editables",
    ]  # editables: hatchling asks for it while installing


def collect_wheels(folder: Path, root: Path = ROOT) -> None:
    """Download (or build) a wheel of every requirement and of what it needs; torch is the CPU build (see Makefile)."""
    pip = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--disable-pip-version-check",
        "--wheel-dir",
        str(folder),
    ]
    wanted = requirements(root)
    torch = next(line for line in wanted if line.startswith("torch=="))
    others = [line for line in wanted if line != torch]
    if sys.platform != "darwin":
        cpu = subprocess.run([*pip, f"{torch}+cpu", *others], stderr=subprocess.DEVNULL)
        if cpu.returncode == 0:
            return
        print(
            "     pip does not find the CPU build of torch, so its default build is packed (several GB). To have the "
            "small one, set PIP_EXTRA_INDEX_URL to PyTorch's index of CPU builds (its installation page names it).",
            flush=True,
        )
    subprocess.run([*pip, torch, *others], check=True)


def finished_runs(root: Path, cohort: str) -> list[Path]:
    """Run folders of a cohort that are finished, and the cohort's reports."""
    runs = [path.parent for path in sorted((root / "runs" / cohort).rglob("metrics.json"))]
    runs = [path for path in runs if not any(part.endswith(".partial") for part in path.parts)]
    return [*runs, *sorted((root / "runs").glob(f"report-{cohort}.*"))]


def find_data(root: Path, cohorts: Iterable[str]) -> tuple[list[Path], list[str]]:
    """Folders and files of `cohorts` to pack, and a sentence for each thing that this machine does not have."""
    found, missing = [], []
    for name in cohorts:
        cohort, store = root / "data" / name, root / "data" / "stores" / name
        if not cohort.is_dir():
            missing.append(
                f"{name}: data/{name} is missing, so nothing of it is packed (`make run` makes phantom-seed1)"
            )
        elif not (cohort / "phantom.json").exists():
            missing.append(
                f"{name}: data/{name} holds no phantom.json; only phantoms are packed, never scans of people"
            )
        else:
            runs = finished_runs(root, name)
            found += [cohort, *([store] if store.is_dir() else []), *runs]
            missing += [] if store.is_dir() else [f"{name}: no prepared slices (data/stores/{name})"]
            missing += [] if runs else [f"{name}: no finished run (runs/{name})"]
    return found, missing


def _unfinished(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    name = Path(entry.name).name
    return None if name.endswith(LEFT_OUT) else entry


def texts(packages: int, missing: list[str], root: Path = ROOT) -> dict[str, str]:
    """INSTALL.txt and install.sh, with this platform's names filled in."""
    describe = ["git", "log", "-1", "--format=%h of %cs"]
    commit = subprocess.run(describe, cwd=root, capture_output=True, text=True).stdout.strip() or "unknown"
    words = {
        "PYTHON": f"{sys.version_info[0]}.{sys.version_info[1]}",
        "SYSTEM": platform.system(),
        "MACHINE": platform.machine(),
        "COMMIT": commit,
        "PACKAGES": str(packages),
        "MISSING": "\n".join(f"  - {line}" for line in missing) or "  - nothing",
    }
    filled = {}
    for name in ("INSTALL.txt", "install.sh"):
        text = (WORKSHOP / name).read_text(encoding="utf-8")
        for word, value in words.items():
            text = text.replace(f"@{word}@", value)
        filled[name] = text
    return filled


def pack(archive: Path, wheels: Path, data: list[Path], missing: list[str], root: Path = ROOT) -> None:
    """Write the archive; under a temporary name until it is complete."""
    repository = subprocess.run(
        ["git", "archive", "--format=tar", f"--prefix={TOP}/mixsup/", "HEAD"],
        cwd=root,
        capture_output=True,
        check=True,
    ).stdout
    unfinished = archive.with_name(archive.name + ".partial")
    with tarfile.open(unfinished, "w:gz", compresslevel=1) as out:  # nearly all of it is compressed already
        with tarfile.open(fileobj=io.BytesIO(repository)) as committed:
            for entry in committed:
                out.addfile(entry, committed.extractfile(entry) if entry.isfile() else None)
        for name, text in texts(len(list(wheels.glob("*.whl"))), missing, root).items():
            entry = tarfile.TarInfo(f"{TOP}/{name}")
            content = text.encode()
            entry.size, entry.mtime, entry.mode = (
                len(content),
                int(time.time()),
                0o755 if name.endswith(".sh") else 0o644,
            )
            out.addfile(entry, io.BytesIO(content))
        out.add(wheels, f"{TOP}/wheelhouse")
        for path in data:
            out.add(path, f"{TOP}/mixsup/{path.relative_to(root)}", filter=_unfinished)
        if (root / "build" / "site" / "index.html").exists():
            out.add(root / "build" / "site", f"{TOP}/site")
    unfinished.replace(archive)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--cohorts", nargs="*", default=COHORTS, help="phantoms to pack, names of folders in data/"
    )
    call = parser.parse_args()
    print("1/3  What is here", flush=True)
    data, missing = find_data(ROOT, call.cohorts)
    if not (ROOT / "build" / "site" / "index.html").exists():
        missing.append("the site (`make site` builds it)")
    print("".join(f"     packs {path.relative_to(ROOT)}\n" for path in data), end="")
    print("".join(f"     missing, and left out: {line}\n" for line in missing), end="")
    changes = subprocess.run(
        ["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True
    ).stdout
    if changes:
        print(f"     {len(changes.splitlines())} changes are not committed; the bundle holds the last commit")
    print(f"2/3  Packages for {this_platform()} (a few hundred MB)", flush=True)
    wheels = ROOT / "build" / "wheelhouse"
    shutil.rmtree(wheels, ignore_errors=True)
    wheels.mkdir(parents=True)
    collect_wheels(wheels)
    print("3/3  Archive", flush=True)
    archive = ROOT / "dist" / f"{TOP}-{this_platform()}.tar.gz"
    archive.parent.mkdir(exist_ok=True)
    pack(archive, wheels, data, missing)
    shutil.rmtree(wheels)
    print(f"{archive.relative_to(ROOT)}: {archive.stat().st_size / 1e6:.0f} MB")
    print(f"Try it without a network: python workflow/try_workshop_bundle.py {archive.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
