"""pyproject.toml says which versions fit, constraints.txt which are tested; Makefile and environment.yml follow."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
RUNTIME = [Requirement(line) for line in PROJECT["dependencies"]]
EXTRAS = [Requirement(line) for lines in PROJECT["optional-dependencies"].values() for line in lines]
NEEDED = {canonicalize_name(requirement.name): requirement.specifier for requirement in RUNTIME + EXTRAS}
PINS = {
    canonicalize_name(name): version
    for name, version in re.findall(r"^([\w.-]+)==(.+)$", (ROOT / "constraints.txt").read_text(), re.M)
}
"""Package -> the version that is tested."""
SNAKEMAKE = next(line for line in PYPROJECT["dependency-groups"]["workflow"] if line.startswith("snakemake=="))
TOOLS = {"jupyterlab", "papermill", "nbconvert", "ipywidgets", "matplotlib"}
"""Dependencies that are run as programs or imported by notebooks, whether or not the library imports them too."""


def test_every_dependency_is_declared_once_and_tested_in_one_version_that_fits():
    assert len(NEEDED) == len(RUNTIME + EXTRAS)
    for name, specifier in NEEDED.items():
        assert specifier.contains(PINS[name]), name


def test_every_version_of_the_library_has_bounds_on_both_sides():
    for requirement in RUNTIME:
        operators = {one.operator for one in requirement.specifier}
        assert operators == {">=", "<"}, requirement


def test_make_conda_and_the_bundle_install_the_versions_that_are_tested():
    content = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (pip,) = [entry["pip"] for entry in content if isinstance(entry, dict)]
    assert pip == ["--constraint constraints.txt", "--editable .[test]"]
    (python,) = [entry for entry in content if isinstance(entry, str) and entry.startswith("python ")]
    assert SpecifierSet(python.removeprefix("python ")) == SpecifierSet(PROJECT["requires-python"])
    assert all(
        "--constraint constraints.txt" in line
        for line in make("--always-make", "site").splitlines()
        if "--editable" in line
    )
    assert f"torch=={PINS['torch']}+cpu" in make("--always-make", "test")


def third_party_imports() -> set[str]:
    names = set()
    for file in (ROOT / "mixsup_lib").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names) - {"mixsup_lib"}


def test_the_library_imports_what_it_declares_and_declares_what_it_imports():
    comes_with = {"jupyter_client": "jupyterlab", "nbformat": "nbconvert", "nbclient": "papermill"}
    comes_with["IPython"] = "jupyterlab"
    providers = metadata.packages_distributions()
    declared = {canonicalize_name(requirement.name) for requirement in RUNTIME}
    used = {n: {canonicalize_name(d) for d in providers.get(n, [])} for n in third_party_imports()}
    undeclared = {n for n in used if not used[n] & declared and comes_with.get(n) not in declared}
    assert undeclared == set() == declared - set().union(*used.values()) - TOOLS


SURROUNDING = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}
OWN_MAKE = {name: value for name, value in os.environ.items() if name not in SURROUNDING}
"""The environment without what a surrounding `make test` hands down."""


def make(*arguments: str) -> str:
    """What a make target would do, without doing it; as if everything were installed."""
    command = ["make", "--dry-run", "--silent", "VENV=.venv", "TORCH=cpu", *arguments]
    return subprocess.run(command, cwd=ROOT, env=OWN_MAKE, capture_output=True, text=True, check=True).stdout


def test_make_run_hands_a_folder_with_a_space_to_the_main_job():
    assert '-m mixsup_lib compare --data "my scans"' in make("run", "DATA=my scans")


def test_make_grid_hands_its_settings_on_and_installs_snakemake_for_a_cluster_alone():
    settings = ["SCENARIO=paper", "COHORT=my scans", "OPTIONS=--folds 1 2", "DRY=1"]
    here = make("--always-make", "grid", *settings)
    options = 'paper --data "my scans" --dry-run --folds 1 2'
    assert here.rstrip().splitlines()[-1] == f".venv/bin/python -m mixsup_lib compare {options}"
    assert "snakemake" not in here
    cluster = make("--always-make", "grid", *settings, "PROFILE=workflow/slurm")
    assert f'"{SNAKEMAKE}"' in cluster
    assert cluster.rstrip().splitlines()[-1] == f'.venv/bin/python workflow/grid.py "workflow/slurm" {options}'


def test_an_unsuitable_python_or_torch_choice_is_one_clear_sentence(tmp_path):
    old = tmp_path / "python3.9"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.1"\nexit 1\n')
    old.chmod(0o755)
    for setting, sentence in (
        (f"PYTHON={old}", "Python 3.11, 3.12 or 3.13 is needed"),
        ("TORCH=gpu", "choose TORCH=cpu or TORCH=cuda"),
    ):
        command = ["make", "test", f"VENV={tmp_path}/venv", setting]
        done = subprocess.run(command, cwd=ROOT, env=OWN_MAKE, capture_output=True, text=True)
        assert done.returncode == 2 and sentence in done.stdout
        assert not (tmp_path / "venv").exists()


def ignored(path: str) -> bool:
    return subprocess.run(["git", "check-ignore", "-q", path], cwd=ROOT).returncode == 0


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")
def test_git_ignores_patients_and_what_commands_write_but_keeps_recorded_results():
    patients = ["data/phantom/HGG/a/a_seg.nii.gz", "data/lgg/x.tif", "data/stores/x.npy"]
    kept = ["data/README.md", "data/results/lgg.csv", "mixsup_lib/slices.py", "notebooks/08_scenario_run.ipynb"]
    assert all(map(ignored, [*patients, "runs/x/y.csv", ".venv/x"])) and not any(map(ignored, kept))


@pytest.mark.parametrize("action", ["check", "format --check"])
def test_the_code_keeps_one_style(action):
    command = [sys.executable, "-m", "ruff", *action.split(), ".", "--quiet"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
