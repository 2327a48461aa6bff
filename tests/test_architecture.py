"""Imports run one way, nothing that is read can run code, importing the library is cheap."""

import ast
import re
import subprocess
import sys
from fnmatch import fnmatch
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "mixsup_lib"
FILES = sorted(PACKAGE.rglob("*.py"))

# Rooms in the order a reader meets them; a file may import only from its own room and from those before it.
ORDER = [
    ["__init__"],
    ["files"],
    ["paper"],
    ["cohort"],
    ["datasets", "datasets.*"],
    ["phantom", "phantom.*"],
    ["config"],
    ["slices"],
    ["protocol"],
    ["sampling"],
    ["unet"],
    ["model"],
    ["losses"],
    ["optim"],
    ["training"],
    ["evaluation"],
    ["check", "doctor"],
    ["experiments", "experiments.*"],
    ["teaching", "teaching.*"],
    ["__main__"],
]
JUPYTER = {"IPython", "ipywidgets", "papermill", "nbformat", "nbconvert", "jupyter_client"}
HEAVY = {"nilearn", "scipy", "matplotlib", "skimage", "sklearn", "PIL", *JUPYTER}


def module_of(file: Path, package: Path = PACKAGE) -> str:
    name = ".".join(file.relative_to(package).with_suffix("").parts)
    return name.removesuffix(".__init__") if name != "__init__" else name


def imports_of(source: str, module: str, known: set[str], is_package: bool = False) -> set[str]:
    """Modules of the library that `source` imports anywhere in it, inside functions too."""
    parents = module.split(".") if is_package else module.split(".")[:-1]
    found = set()
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = parents[: len(parents) - node.level + 1]
                base = ".".join(["mixsup_lib", *above, *([base] if base else [])])
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        for name in names:
            if is_package and name.startswith(f"mixsup_lib.{module}."):
                continue  # what a room's own __init__ shows of it
            if name.startswith("mixsup_lib.") and name.removeprefix("mixsup_lib.") in known:
                found.add(name.removeprefix("mixsup_lib."))
    return found - {module}


def import_graph(package: Path = PACKAGE) -> dict[str, set[str]]:
    files = sorted(package.rglob("*.py"))
    known = {module_of(file, package) for file in files}
    return {
        module_of(file, package): imports_of(
            file.read_text(encoding="utf-8"), module_of(file, package), known, file.name == "__init__.py"
        )
        for file in files
    }


def room(module: str) -> int:
    for number, patterns in enumerate(ORDER):
        if any(fnmatch(module, pattern) for pattern in patterns):
            return number
    raise AssertionError(
        f"mixsup_lib/{module}.py has no place in ORDER: after which module does one meet it?"
    )


LIGHT = "__init__"
"""Its names come from everywhere, but only when they are first used."""


def arrows_back(graph: dict[str, set[str]]) -> list[str]:
    return [
        f"{here} imports {there}"
        for here in graph
        if here != LIGHT
        for there in sorted(graph[here])
        if room(there) > room(here)
    ]


def test_imports_run_one_way():
    assert arrows_back(import_graph()) == []


def test_no_import_goes_round_in_a_circle():
    TopologicalSorter(import_graph()).prepare()


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("paper", "from .config import RunConfig"),
        ("paper", "def f():\n    from mixsup_lib import slices"),
        ("config", "import mixsup_lib.model as m"),
        ("datasets.brats", "from ..slices import prepare"),
        ("files", "from . import paper"),
    ],
)
def test_an_arrow_that_runs_back_is_seen(module, source):
    known = {"files", "paper", "config", "model", "slices", "cohort", "datasets.brats"}
    assert len(arrows_back({module: imports_of(source, module, known)})) == 1


def ruff(path: Path, *rules: str) -> str:
    command = [
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--isolated",
        "--output-format",
        "concise",
        *rules,
        path,
    ]
    return subprocess.run(command, capture_output=True, text=True).stdout


def test_heavy_packages_are_imported_where_they_are_used():
    banned = f"lint.flake8-tidy-imports.banned-module-level-imports={sorted(HEAVY)}"
    assert "All checks passed!" in ruff(PACKAGE, "--select", "TID253", "--config", banned)


def modules_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


def test_importing_the_library_loads_neither_torch_nor_nilearn_nor_matplotlib():
    assert modules_after("import mixsup_lib") & {"torch", "numpy", *HEAVY} == set()


def test_training_needs_neither_nilearn_nor_matplotlib_nor_jupyter():
    loaded = modules_after("import mixsup_lib.experiments.runs")
    assert "torch" in loaded and loaded & {"nilearn", "matplotlib", *JUPYTER} == set()


def test_no_file_that_is_read_can_run_code(tmp_path):
    """Ruff sees unpickling, eval, exec and YAML's unsafe readers; NumPy and PyTorch do not unpickle unless told to."""
    rules = ("--select", "S102,S301,S302,S307,S506")
    assert "All checks passed!" in ruff(PACKAGE, *rules)
    (tmp_path / "a.py").write_text(
        "import pandas, yaml\npandas.read_pickle(a)\nyaml.load(a, yaml.Loader)\neval(a)\n"
    )
    assert "Found 3 errors" in ruff(tmp_path, *rules)
    unsafe = r"allow_pickle\s*=\s*(?!False)|weights_only\s*=\s*(?!True)|import (pickle|dill|joblib|shelve)\b"
    for file in FILES:
        assert not re.search(unsafe, file.read_text(encoding="utf-8")), file
