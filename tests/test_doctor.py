"""The doctor names what is missing on a machine, what to do about it, and ends with the exit code that says so."""

from __future__ import annotations

import os
import sys
from importlib import metadata

import pytest

from mixsup_lib import doctor
from mixsup_lib.doctor import Check, as_text


@pytest.mark.parametrize(
    ("version", "ok"), [((3, 10, 14), False), ((3, 11, 0), True), ((3, 13, 9), True), ((3, 14, 0), False)]
)
def test_python_3_11_to_3_13_is_supported(monkeypatch, version, ok):
    monkeypatch.setattr(sys, "version_info", version)
    check = doctor.check_python()
    assert check.ok is ok
    assert ("PYTHON=" in check.advice) is not ok


@pytest.mark.parametrize(
    ("installed", "fault"),
    [
        ({"numpy": "2.4.6", "torch": "2.13.0+cpu"}, None),
        ({"numpy": "2.3.0", "torch": "2.13.0"}, "numpy is 2.3.0, expected ==2.4.6"),
        ({"numpy": "2.4.6"}, "torch is missing"),
    ],
)
def test_packages_are_compared_with_what_fits_and_a_cpu_build_counts_as_its_version(monkeypatch, installed, fault):
    def version(name):
        if name not in installed:
            raise metadata.PackageNotFoundError(name)
        return installed[name]

    pins = ["numpy==2.4.6", "torch==2.13.0", 'pytest==9.2.0; extra == "test"', 'x==1; sys_platform == "nowhere"']
    monkeypatch.setattr(metadata, "requires", lambda name: pins)
    monkeypatch.setattr(metadata, "version", version)
    check = doctor.check_packages()
    assert check.ok is (fault is None) and check.found == (fault or "2 that fit")
    assert check.ok or "pip install" in check.advice


def test_little_memory_a_full_disk_and_a_folder_that_cannot_be_written_are_faults(tmp_path, monkeypatch):
    assert doctor.check_disk(tmp_path).ok
    monkeypatch.setattr(doctor, "DISK_GB", 1e9)
    assert not doctor.check_disk(tmp_path).ok
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "cannot be written" in doctor.check_disk(tmp_path).found
    monkeypatch.setattr(doctor, "MEMORY_GB", 1e9)
    assert not doctor.check_memory().ok and "preset tiny" in doctor.check_memory().advice


def test_a_broken_torch_and_a_gpu_that_a_cpu_build_cannot_use_come_with_advice(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert "make TORCH=cuda" in doctor.check_gpu().advice
    monkeypatch.setitem(sys.modules, "torch", None)
    check = doctor.check_torch()
    assert not check.ok and "\n" not in check.found and doctor.check_gpu().ok


def test_a_kernel_of_another_environment_is_a_fault(tmp_path, monkeypatch):
    kernel = tmp_path / "kernels" / "python3"
    kernel.mkdir(parents=True)
    command = '["/elsewhere/bin/python", "-m", "ipykernel_launcher"]'
    (kernel / "kernel.json").write_text(f'{{"argv": {command}, "display_name": "x", "language": "python"}}')
    assert doctor.check_kernel().ok
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    check = doctor.check_kernel()
    assert not check.ok and "/elsewhere/bin/python" in check.found and "ipykernel install" in check.advice


@pytest.mark.parametrize(("ok", "code"), [(True, 0), (False, 1)])
def test_the_report_shows_advice_and_the_exit_code_says_whether_there_is_a_fault(ok, code, monkeypatch, capsys):
    checks = [Check("one", True, "fine"), Check("two", ok, "found", "mend it")]
    monkeypatch.setattr(doctor, "diagnose", lambda: checks)
    assert doctor.main() == code
    printed = capsys.readouterr().out
    assert "-> mend it" in printed
    assert ("FAULT two" in printed and "1 of 2 checks found a fault" in printed) is not ok


def test_the_environment_of_this_test_run_is_sound():
    checks = {check.name: check for check in doctor.diagnose()}
    assert checks["Python"].ok and checks["packages"].ok and checks["PyTorch"].ok, as_text(checks.values())
