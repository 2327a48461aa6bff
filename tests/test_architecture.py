"""Imports run one way, nothing that is read can run code, importing the library is cheap."""

import json
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "mixsup_lib"
ORDER = "files paper cohort datasets phantom config slices protocol sampling unet model losses optim training"
ORDER = f"{ORDER} evaluation check doctor experiments teaching __main__".split()
"""Rooms as a reader meets them; a file may import only from its own room and from those before it."""
JUPYTER = {"IPython", "ipywidgets", "papermill", "nbformat", "nbconvert", "jupyter_client"}
HEAVY = {"nilearn", "scipy", "matplotlib", "skimage", "sklearn", "PIL", *JUPYTER}


def ruff(command: str, path: Path, *options: str) -> str:
    call = [sys.executable, "-m", "ruff", *command.split(), "--isolated", *options, path.name]
    return subprocess.run(call, cwd=path.parent, capture_output=True, text=True).stdout


def import_graph(package: Path) -> dict[Path, set[Path]]:
    """Who imports whom, in functions too. `__init__.py` is left out: it shows names that are loaded when used."""
    found = json.loads(ruff("analyze graph", package))
    graph = {}
    for here, imported in found.items():
        path = Path(here).relative_to(package.name)
        if path.name != "__init__.py":
            names = {Path(there).relative_to(package.name) for there in imported}
            graph[path] = {name for name in names if name.name != "__init__.py"}
    return graph


def arrows_back(package: Path) -> list[str]:
    def room(path: Path) -> int:
        return ORDER.index(path.parts[0].removesuffix(".py"))

    graph = import_graph(package)
    return [f"{here} imports {there}" for here in graph for there in graph[here] if room(there) > room(here)]


def test_imports_run_one_way_and_never_in_a_circle():
    assert arrows_back(PACKAGE) == []
    TopologicalSorter(import_graph(PACKAGE)).prepare()


def test_an_arrow_that_runs_back_is_seen(tmp_path):
    package = tmp_path / "mixsup_lib"
    package.mkdir()
    for name in ("__init__", "config", "model", "slices"):
        (package / f"{name}.py").touch()
    (package / "files.py").write_text("from . import config\ndef f():\n    from mixsup_lib import slices\n")
    (package / "paper.py").write_text("import mixsup_lib.model as m\nfrom .files import DataError\n")
    assert len(arrows_back(package)) == 3


def test_heavy_packages_are_imported_where_they_are_used():
    banned = f"lint.flake8-tidy-imports.banned-module-level-imports={sorted(HEAVY)}"
    assert "All checks passed!" in ruff("check", PACKAGE, "--select", "TID253", "--config", banned)


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
    rules = ("--output-format", "concise", "--select", "S102,S301,S302,S307,S506")
    assert "All checks passed!" in ruff("check", PACKAGE, *rules)
    unsafe = "import pandas, yaml\npandas.read_pickle(a)\nyaml.load(a, yaml.Loader)\neval(a)\n"
    (tmp_path / "a.py").write_text(unsafe)
    assert "Found 3 errors" in ruff("check", tmp_path, *rules)
    told = r"allow_pickle\s*=\s*(?!False)|weights_only\s*=\s*(?!True)|(import|from) (pickle|dill|joblib|shelve)\b"
    for file in PACKAGE.rglob("*.py"):
        assert not re.search(told, file.read_text(encoding="utf-8")), file
