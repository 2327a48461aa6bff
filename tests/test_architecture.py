"""Imports run one way, nothing that is read can run code, importing the library is cheap."""

import ast
import subprocess
import sys
from collections.abc import Iterator
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


def top_level_imports(source: str) -> set[str]:
    """First names of what is imported as soon as the module is."""
    found, todo = set(), list(ast.parse(source).body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module.split(".")[0])
        elif (
            isinstance(node, ast.If | ast.Try | ast.With)
            and "TYPE_CHECKING" not in ast.unparse(node).split(":")[0]
        ):
            todo += [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]
    return found


def test_heavy_packages_are_imported_where_they_are_used():
    found = {module_of(file): top_level_imports(file.read_text(encoding="utf-8")) & HEAVY for file in FILES}
    assert {module: names for module, names in found.items() if names} == {}
    source = (
        "if True:\n    import scipy.ndimage\nif TYPE_CHECKING:\n    import PIL\ndef f():\n    import nilearn"
    )
    assert top_level_imports(source) == {"scipy"}


def modules_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


def test_importing_the_library_loads_neither_torch_nor_nilearn_nor_matplotlib():
    assert modules_after("import mixsup_lib") & {"torch", "numpy", *HEAVY} == set()


def test_training_needs_neither_nilearn_nor_matplotlib_nor_jupyter():
    loaded = modules_after("import mixsup_lib.experiments.runs")
    assert "torch" in loaded and loaded & {"nilearn", "matplotlib", *JUPYTER} == set()


def dotted_calls(source: str) -> Iterator[tuple[str, ast.Call]]:
    """Every call with its full name, `import numpy as np` and `from torch import load` undone."""
    tree = ast.parse(source)
    alias = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            alias.update({name.asname: name.name for name in node.names if name.asname})
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            alias.update({name.asname or name.name: f"{node.module}.{name.name}" for name in node.names})
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            first, *rest = ast.unparse(node.func).split(".")
            yield ".".join([alias.get(first, first), *rest]), node


def unsafe_reads(source: str) -> list[str]:
    """Places where `source` could run code out of a file it reads."""
    found = []
    pickles = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    for node in ast.walk(ast.parse(source)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        found += [f"line {node.lineno}: import {name}" for name in names if name.split(".")[0] in pickles]
    needed = {"numpy.load": "allow_pickle=False", "torch.load": "weights_only=True"}
    never = {
        "yaml.load",
        "yaml.load_all",
        "yaml.unsafe_load",
        "yaml.full_load",
        "pandas.read_pickle",
        "eval",
        "exec",
    }
    for name, call in dotted_calls(source):
        options = {ast.unparse(keyword) for keyword in call.keywords}
        if name in never or (name in needed and needed[name] not in options):
            found.append(f"line {call.lineno}: {name}")
    return found


def test_no_file_that_is_read_can_run_code():
    found = {module_of(file): unsafe_reads(file.read_text(encoding="utf-8")) for file in FILES}
    assert {module: lines for module, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "import numpy as np\nnp.load(file)",
        "import numpy\nnumpy.load(file, allow_pickle=True)",
        "from numpy import load\nload(file)",
        "import torch\ntorch.load(file)",
        "import torch as t\nt.load(file, weights_only=False)",
        "import yaml\nyaml.load(text, Loader=yaml.Loader)",
        "import pandas as pd\npd.read_pickle(file)",
    ],
)
def test_an_unsafe_read_is_seen(source):
    assert len(unsafe_reads(source)) == 1


def test_a_safe_read_is_let_through():
    reads = ["np.load(f, allow_pickle=False)", "torch.load(f, weights_only=True)", "yaml.safe_load(t)"]
    assert unsafe_reads("\n".join(["import numpy as np, torch, yaml", *reads])) == []
