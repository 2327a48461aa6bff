"""Is this machine ready? Checks of Python, packages, hardware and Jupyter, each with what to do about it."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

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


def diagnose(folder: str | Path = ".") -> list[Check]:
    """All checks, in the order of the report. `folder` is where data and runs will be written."""
    return [
        check_python(sys.version_info[:3]),
        *check_packages(),
        check_cores(),
        check_memory(memory_bytes()),
        check_disk(folder),
        *check_torch(),
        check_kernel(),
        check_browser(),
    ]


def check_python(version: Sequence[int], supported: str | None = None) -> Check:
    """Is the interpreter among the supported ones? `supported` is a specifier; None: that of the installed project."""
    if supported is None:
        supported = _project_metadata("Requires-Python") or ">=3.11"
    found = ".".join(str(part) for part in version)
    ok = SpecifierSet(supported).contains(found)
    return Check(
        "Python", ok, found, "" if ok else f"install Python {supported} and name it: make PYTHON=python3.12"
    )


def check_packages(
    requirements: Sequence[str] | None = None, installed: Mapping[str, str] | None = None
) -> list[Check]:
    """Installed versions against the pins of pyproject.toml, for the library and for the tests.

    Args:
        requirements: as in package metadata ("numpy==2.4.6", 'pytest==9.2.0; extra == "test"'); None: the project's.
        installed: name -> version; None: asked of the environment.
    """
    if requirements is None:
        requirements = _requirements()
    if requirements is None:
        advice = 'run any make target, or: python -m pip install --editable ".[test]"'
        return [Check("packages", False, "mixsup_lib is not installed in this environment", advice)]
    groups: dict[str, list[Requirement]] = {"packages": [], "test packages": []}
    for requirement in map(Requirement, requirements):
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            groups["packages"].append(requirement)
        elif requirement.marker.evaluate({"extra": "test"}):
            groups["test packages"].append(requirement)
    return [_compare(name, group, installed) for name, group in groups.items() if group]


def check_cores() -> Check:
    """CPU cores this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    advice = (
        "" if cores > 1 else "the main job runs its experiments one after the other and takes twice as long"
    )
    return Check("CPU cores", True, str(cores), advice)


def memory_bytes() -> int | None:
    """Physical memory, None where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def check_memory(size: int | None) -> Check:
    """Is there enough main memory? An unknown size is no fault."""
    if size is None:
        return Check("memory", True, "unknown", f"{MEMORY_GB} GB are enough")
    ok = size >= MEMORY_GB * 1e9
    advice = "" if ok else f"use the preset tiny, or a machine with {MEMORY_GB} GB or more"
    return Check("memory", ok, f"{size / 1e9:.1f} GB", advice)


def check_disk(folder: str | Path) -> Check:
    """Free space and permission to write where data and runs go."""
    if not os.access(folder, os.W_OK):
        return Check("disk", False, f"{folder} cannot be written", "work in a folder of your own")
    free = shutil.disk_usage(folder).free
    ok = free >= DISK_GB * 1e9
    return Check("disk", ok, f"{free / 1e9:.1f} GB free", "" if ok else f"free {DISK_GB} GB here")


def check_torch() -> list[Check]:
    """Does PyTorch import, does bfloat16 pay on this CPU, is there a GPU it can use?"""
    try:
        import torch

        from mixsup_lib.training import bfloat16_pays
    except (ImportError, OSError) as error:
        fault = f"does not import: {str(error).splitlines()[0]}"
        return [Check("PyTorch", False, fault, "remove .venv and run the make target again")]
    pays = bfloat16_pays(torch.device("cpu"))
    amx = "AMX: bfloat16 is used" if pays else "no AMX: float32 is used, bfloat16 would be no faster"
    checks = [
        Check("PyTorch", True, torch.__version__),
        Check("CPU precision", True, f"{platform.machine()}, {amx}"),
    ]
    if torch.cuda.is_available():
        return [*checks, Check("GPU", True, f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}")]
    if shutil.which("nvidia-smi"):
        found = "there is one, but this PyTorch cannot use it"
        return [*checks, Check("GPU", True, found, "install the CUDA build: make TORCH=cuda test")]
    return [*checks, Check("GPU", True, "none (optional)", "training uses the CPU")]


def check_kernel() -> Check:
    """Does the Jupyter kernel python3 start this very interpreter?"""
    try:
        from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
    except ImportError:
        return Check("Jupyter kernel", False, "Jupyter is not installed", "see the line about packages")
    try:
        starts = KernelSpecManager().get_kernel_spec("python3").argv[0]
    except NoSuchKernel:
        return Check("Jupyter kernel", False, "no kernel python3", "python -m ipykernel install --sys-prefix")
    if not os.path.isabs(starts) or Path(starts).absolute() == Path(sys.executable).absolute():
        return Check("Jupyter kernel", True, "python3, in this environment")
    found = f"python3 starts {starts}"
    return Check("Jupyter kernel", False, found, "python -m ipykernel install --sys-prefix")


def check_browser() -> Check:
    """Is a Chromium there for the browser tests? Nothing else needs one."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next((name for name in names if shutil.which(name)), None)
    return Check(
        "Chromium", True, found or "none (optional)", "" if found else "only browser tests would use it"
    )


def as_text(checks: Sequence[Check]) -> str:
    """The report: one line per check, what to do below it."""
    lines = []
    for check in checks:
        mark = "ok" if check.ok else "FAULT"
        lines += textwrap.wrap(f"{mark:6}{check.name:16}{check.found}", 110, subsequent_indent=" " * 22)
        if check.advice:
            lines += textwrap.wrap(
                f"-> {check.advice}", 110, initial_indent=" " * 22, subsequent_indent=" " * 25
            )
    faults = sum(not check.ok for check in checks)
    lines += [
        "",
        "Everything is there." if not faults else f"{faults} of {len(checks)} checks found a fault.",
    ]
    return "\n".join(lines)


def main() -> int:
    """Print the report; 0 if nothing keeps the project from working, 1 otherwise."""
    checks = diagnose()
    print(as_text(checks))
    return 0 if all(check.ok for check in checks) else 1


def _compare(name: str, group: Sequence[Requirement], installed: Mapping[str, str] | None) -> Check:
    """One check for a group of pinned packages. Only the library's own are needed; those of the tests are optional."""
    wrong = []
    for requirement in group:
        version = _version(requirement.name) if installed is None else installed.get(requirement.name)
        if version is None:
            wrong.append(f"{requirement.name} is missing")
        elif not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} is {version}, expected {requirement.specifier}")
    if not wrong:
        return Check(name, True, f"{len(group)} as pinned")
    return Check(name, name != "packages", "; ".join(wrong), 'python -m pip install --editable ".[test]"')


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _requirements() -> list[str] | None:
    try:
        return metadata.requires(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return None


def _project_metadata(field: str) -> str | None:
    try:
        return metadata.metadata(DISTRIBUTION)[field]
    except metadata.PackageNotFoundError:
        return None
