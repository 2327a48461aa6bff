"""Is this machine ready? Python, packages, hardware and the Jupyter kernel, each with what to do about a fault."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from mixsup_lib.files import usable_cores

DISTRIBUTION = "mixsup_lib"
MEMORY_GB = 4
"""Main memory below which the workshop preset is not expected to fit beside a desktop, in GB (10^9 bytes)."""
DISK_GB = 3
"""Free disk space for the phantom, its stores and runs, in GB."""


@dataclass(frozen=True)
class Check:
    """One line of the report. `ok` is False only for what keeps the project from working; `advice` may be empty."""

    name: str
    ok: bool
    found: str
    advice: str = ""


def main() -> int:
    """Print the report; 0 if nothing keeps the project from working, 1 otherwise."""
    checks = diagnose()
    print(as_text(checks))
    return 0 if all(check.ok for check in checks) else 1


def diagnose(folder: str | Path = ".") -> list[Check]:
    """All checks, in the order of the report. `folder` is where data and runs will be written."""
    return [
        check_python(),
        check_packages(),
        check_cores(),
        check_memory(),
        check_disk(folder),
        check_torch(),
        check_gpu(),
        check_kernel(),
    ]


def as_text(checks: Sequence[Check]) -> str:
    """The report: one line per check, what to do below it."""
    lines, margin = [], " " * 22
    for check in checks:
        mark = "ok" if check.ok else "FAULT"
        lines += textwrap.wrap(f"{mark:6}{check.name:16}{check.found}", 110, subsequent_indent=margin)
        if check.advice:
            lines += textwrap.wrap(f"{margin}-> {check.advice}", 110, subsequent_indent=f"{margin}   ")
    faults = sum(not check.ok for check in checks)
    end = f"{faults} of {len(checks)} checks found a fault." if faults else "Everything is there."
    return "\n".join([*lines, "", end])


def check_python() -> Check:
    """Is this Python one that the project supports?"""
    found = ".".join(map(str, sys.version_info[:3]))
    try:
        supported = metadata.metadata(DISTRIBUTION)["Requires-Python"]
    except metadata.PackageNotFoundError:
        return Check("Python", True, found)
    ok = SpecifierSet(supported).contains(found)
    advice = f"install Python {supported} and name it: make PYTHON=python3.12"
    return Check("Python", ok, found, "" if ok else advice)


def check_packages() -> Check:
    """Are the packages that the library needs installed, in versions it works with?"""
    advice = 'run any make target, or: python -m pip install --constraint constraints.txt --editable ".[test]"'
    try:
        requirements = [Requirement(text) for text in metadata.requires(DISTRIBUTION)]
    except metadata.PackageNotFoundError:
        return Check("packages", False, "mixsup_lib is not installed in this environment", advice)
    needed = [one for one in requirements if one.marker is None or one.marker.evaluate({"extra": ""})]
    wrong = []
    for requirement in needed:
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
        else:
            if not requirement.specifier.contains(version, prereleases=True):
                wrong.append(f"{requirement.name} is {version}, expected {requirement.specifier}")
    if wrong:
        return Check("packages", False, "; ".join(wrong), advice)
    return Check("packages", True, f"{len(needed)} that fit")


def check_cores() -> Check:
    """How many CPU cores may this process use?"""
    cores = usable_cores()
    advice = "the main job runs its experiments one after the other and takes twice as long"
    return Check("CPU cores", True, str(cores), advice if cores == 1 else "")


def check_memory() -> Check:
    """Is there enough main memory? Where the system does not tell, that is no fault."""
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    except (AttributeError, ValueError, OSError):
        return Check("memory", True, "unknown", f"{MEMORY_GB} GB are enough")
    ok = size >= MEMORY_GB
    advice = f"use the preset tiny, or a machine with {MEMORY_GB} GB or more"
    return Check("memory", ok, f"{size:.1f} GB", "" if ok else advice)


def check_disk(folder: str | Path) -> Check:
    """May data and runs be written into `folder`, and is there room for them?"""
    if not os.access(folder, os.W_OK):
        return Check("disk", False, f"{folder} cannot be written", "work in a folder of your own")
    free = shutil.disk_usage(folder).free / 1e9
    ok = free >= DISK_GB
    return Check("disk", ok, f"{free:.1f} GB free", "" if ok else f"free {DISK_GB} GB here")


def check_torch() -> Check:
    """Does PyTorch import, and which build is it?"""
    try:
        import torch
    except (ImportError, OSError) as error:
        fault = f"does not import: {str(error).splitlines()[0]}"
        return Check("PyTorch", False, fault, "remove .venv and run the make target again")
    return Check("PyTorch", True, torch.__version__)


def check_gpu() -> Check:
    """Is there a GPU that this PyTorch can use? None is needed."""
    try:
        import torch
    except (ImportError, OSError):
        return Check("GPU", True, "unknown", "mend PyTorch first")
    if torch.cuda.is_available():
        return Check("GPU", True, f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}")
    if shutil.which("nvidia-smi"):
        found = "there is one, but this PyTorch cannot use it"
        return Check("GPU", True, found, "install the CUDA build: make TORCH=cuda test")
    return Check("GPU", True, "none (optional)", "training uses the CPU")


def check_kernel() -> Check:
    """Does the Jupyter kernel python3 start this very interpreter?"""
    advice = "python -m ipykernel install --sys-prefix"
    try:
        from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
    except ImportError:
        return Check("Jupyter kernel", False, "Jupyter is not installed", "see the line about packages")
    try:
        starts = KernelSpecManager().get_kernel_spec("python3").argv[0]
    except NoSuchKernel:
        return Check("Jupyter kernel", False, "no kernel python3", advice)
    if not os.path.isabs(starts) or Path(starts).absolute() == Path(sys.executable).absolute():
        return Check("Jupyter kernel", True, "python3, in this environment")
    return Check("Jupyter kernel", False, f"python3 starts {starts}", advice)
