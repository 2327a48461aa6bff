import os
import sys

import pytest

from mixsup_lib import doctor, training
from mixsup_lib.doctor import Check, as_text, check_disk, check_memory, check_packages, check_python

PINS = [
    "numpy==2.4.6",
    "torch==2.13.0",
    'pytest==9.2.0; extra == "test"',
    'winonly==1.0; sys_platform == "nowhere"',
]


@pytest.mark.parametrize(
    ("version", "ok"), [((3, 10, 14), False), ((3, 11, 0), True), ((3, 13, 9), True), ((3, 14, 0), False)]
)
def test_python_3_11_to_3_13_is_supported(version, ok):
    check = check_python(version, ">=3.11,<3.14")
    assert check.ok is ok
    assert ("PYTHON=" in check.advice) is not ok


def test_packages_as_pinned_are_fine_and_a_cpu_build_counts_as_its_version():
    installed = {"numpy": "2.4.6", "torch": "2.13.0+cpu", "pytest": "9.2.0"}
    assert [(check.name, check.ok) for check in check_packages(PINS, installed)] == [
        ("packages", True),
        ("test packages", True),
    ]


def test_another_version_is_a_fault_that_names_both():
    fault = check_packages(PINS, {"numpy": "2.3.0", "torch": "2.13.0"})[0]
    assert not fault.ok
    assert "numpy is 2.3.0, expected ==2.4.6" in fault.found
    assert "pip install" in fault.advice


def test_a_missing_package_is_a_fault_but_a_missing_test_package_only_a_remark():
    packages, test_packages = check_packages(PINS, {"numpy": "2.4.6"})
    assert not packages.ok and "torch is missing" in packages.found
    assert test_packages.ok and "pytest is missing" in test_packages.found


def test_a_project_that_is_not_installed_is_one_clear_fault(monkeypatch):
    monkeypatch.setattr(doctor, "DISTRIBUTION", "a_distribution_that_is_not_there")
    (check,) = check_packages()
    assert not check.ok and "not installed" in check.found and check.advice


def test_little_memory_is_a_fault_and_unknown_memory_is_not():
    assert not check_memory(2_000_000_000).ok
    assert check_memory(8_000_000_000).ok
    assert check_memory(None).ok


def test_a_full_disk_and_a_folder_that_cannot_be_written_are_faults(tmp_path, monkeypatch):
    assert check_disk(tmp_path).ok
    monkeypatch.setattr(doctor, "DISK_GB", 1e9)
    assert not check_disk(tmp_path).ok
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "cannot be written" in check_disk(tmp_path).found


def test_amx_decides_about_bfloat16(monkeypatch):

    found = {}
    for amx in (True, False):
        monkeypatch.setattr(training, "bfloat16_pays", lambda device, amx=amx: amx)
        found[amx] = next(check for check in doctor.check_torch() if check.name == "CPU precision").found
    assert "bfloat16 is used" in found[True] and "float32 is used" in found[False]


def test_a_gpu_that_a_cpu_build_cannot_use_comes_with_advice(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(
        doctor.shutil, "which", lambda name: "/usr/bin/nvidia-smi" if name == "nvidia-smi" else None
    )
    gpu = next(check for check in doctor.check_torch() if check.name == "GPU")
    assert "make TORCH=cuda" in gpu.advice


def test_a_broken_torch_is_a_fault_in_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (check,) = doctor.check_torch()
    assert not check.ok and "\n" not in check.found


def test_a_kernel_of_another_environment_is_a_fault(tmp_path, monkeypatch):
    kernel = tmp_path / "kernels" / "python3"
    kernel.mkdir(parents=True)
    (kernel / "kernel.json").write_text(
        '{"argv": ["/elsewhere/bin/python", "-m", "ipykernel_launcher"], "display_name": "x", "language": "python"}'
    )
    assert doctor.check_kernel().ok
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    check = doctor.check_kernel()
    assert not check.ok and "/elsewhere/bin/python" in check.found and "ipykernel install" in check.advice


def test_the_report_shows_advice_and_counts_faults():
    text = as_text([Check("one", True, "fine"), Check("two", False, "broken", "mend it")])
    assert "FAULT two" in text and "-> mend it" in text and "1 of 2 checks found a fault" in text


@pytest.mark.parametrize(("ok", "code"), [(True, 0), (False, 1)])
def test_the_exit_code_says_whether_there_is_a_fault(ok, code, monkeypatch, capsys):
    monkeypatch.setattr(doctor, "diagnose", lambda: [Check("one", ok, "found")])
    assert doctor.main() == code
    assert "one" in capsys.readouterr().out


def test_the_environment_of_this_test_run_is_sound():
    names = {"Python", "packages", "test packages", "CPU cores", "memory", "disk", "PyTorch", "CPU precision"}
    checks = {check.name: check for check in doctor.diagnose()}
    assert names | {"GPU", "Jupyter kernel", "Chromium"} == set(checks)
    assert checks["Python"].ok and checks["packages"].ok and checks["PyTorch"].ok
