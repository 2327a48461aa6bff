"""Hostile files and names: nothing of them is executed, no path leaves the cohort, nothing goes to the network.

Every hostile input here would leave a file behind if any of it ran; none may appear.
"""

from __future__ import annotations

import ast
import base64
import os
import pickle
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from cohorts import write_cohort
from no_network import guarded
from safetensors.torch import save_file

from mixsup_lib.__main__ import parse_settings, read_settings
from mixsup_lib.config import make_config
from mixsup_lib.datasets import find_cohort
from mixsup_lib.experiments import compare
from mixsup_lib.experiments.experiment import read_experiment
from mixsup_lib.experiments.runs import load_network, read_examples, run
from mixsup_lib.experiments.tables import format_table
from mixsup_lib.files import DataError, MixsupError
from mixsup_lib.protocol import read_split
from mixsup_lib.slices import prepare

ROOT = Path(__file__).resolve().parent.parent


class Evil:
    """Unpickled, it makes the file `marker`."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.fixture
def marker(tmp_path):
    """What must not appear. That the hostile object works at all is shown first."""
    pickle.loads(pickle.dumps(Evil(tmp_path / "executed")))
    (tmp_path / "executed").rmdir()
    yield tmp_path / "executed"
    assert not (tmp_path / "executed").exists()


# Files


def test_a_hostile_checkpoint_is_refused(run_settings, marker):
    config = make_config(**{**run_settings, "iterations": 2})
    folder = run(config)
    partial = folder.with_name(folder.name + ".partial")
    folder.rename(partial)
    state = torch.load(partial / "checkpoint.pt", weights_only=True)
    for hostile in (Evil(marker), {**state, "identity": Evil(marker)}, {**state, "network": Evil(marker)}):
        torch.save(hostile, partial / "checkpoint.pt")
        with pytest.raises(DataError, match=r"checkpoint.pt: not a readable checkpoint \(UnpicklingError\)"):
            run(config)
    (partial / "checkpoint.pt").write_bytes(pickle.dumps(Evil(marker)))
    with pytest.raises(DataError, match="checkpoint.pt: not a readable checkpoint"):
        run(config)


def test_object_arrays_in_a_store_and_in_example_slices_are_refused(copy, tmp_path, marker):
    evil = np.array([Evil(marker)] * 12, dtype=object)
    write_cohort(tmp_path / "cohort", "brats2021", patients=2)
    store = prepare(tmp_path / "cohort", tmp_path / "store", progress=False)
    before = store[:]
    np.save(tmp_path / "store" / f"{store.cohort.patients[0].id}.npy", evil, allow_pickle=True)
    np.testing.assert_array_equal(prepare(tmp_path / "cohort", tmp_path / "store", progress=False)[:], before)
    sound = read_examples(copy)
    for name in sound:
        np.savez(copy / "examples.npz", **{**sound, name: evil[: len(sound[name])]})
        with pytest.raises(DataError, match="examples.npz: cannot be read as example slices"):
            read_examples(copy)


def test_weights_are_never_unpickled(copy, marker):
    for write in (
        lambda path: torch.save(Evil(marker), path),
        lambda path: path.write_bytes(pickle.dumps(Evil(marker))),
    ):
        write(copy / "weights.safetensors")
        with pytest.raises(DataError, match="weights.safetensors: cannot be read as weights"):
            load_network(copy, 4, (48, 48))
    save_file({"unet.encoder.0.0.0.weight": torch.zeros(1)}, copy / "weights.safetensors")
    with pytest.raises(DataError, match="weights.safetensors: holds other layers"):
        load_network(copy, 4, (48, 48))


@pytest.mark.parametrize(
    "tag", ["object/apply:os.mkdir [{}]", "object/new:os.mkdir [{}]", "name:os.mkdir", "module:os"]
)
def test_yaml_tags_of_python_are_refused_everywhere(tmp_path, marker, tag):
    text = f"!!python/{tag.format(marker)}"
    path = tmp_path / "s.yaml"
    for content in (text, f"cohort: {text}", f"name: s\ncompare: first\nvariants: {text}"):
        path.write_text(content)
        for read in (read_experiment, read_settings):
            with pytest.raises(MixsupError, match="s.yaml"):
                read(path)
    with pytest.raises(MixsupError, match="window"):
        parse_settings([f"window={text}"])


# Paths


def test_links_that_dataset_json_names_may_not_lead_out_of_the_cohort(tmp_path):
    (name,) = write_cohort(tmp_path / "cohort", "decathlon", patients=1)
    inside = tmp_path / "cohort" / "imagesTr" / f"{name}.nii.gz"
    inside.rename(tmp_path / "outside.nii.gz")
    inside.symlink_to(tmp_path / "outside.nii.gz")
    with pytest.raises(DataError, match=f"dataset.json: names 'imagesTr/{name}.nii.gz', which lies outside"):
        find_cohort(tmp_path / "cohort")


def test_lists_open_no_path_at_all(tmp_path, monkeypatch):
    """What they hold is compared with the names of the cohort's patients; paths come from its folder alone."""
    texts = {"fully_annotated": "/x/A", "weak": "../../B", "test": f"{tmp_path}/C\n..\n/etc/passwd"}
    for name, text in texts.items():
        (tmp_path / f"{name}.txt").write_text(text)
    opened, real = [], Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda self, **k: opened.append(self.name) or real(self, **k))
    with pytest.raises(DataError, match=r"2 of 3 entries match no patient of the cohort, the first is '\.\.'"):
        read_split(tmp_path, ["A", "B", "C"], n_fa=1)
    assert opened == ["fully_annotated.txt", "weak.txt", "test.txt"]


# Names that a shell, papermill or a browser could take for code; `test_grid.py` has Snakemake

HOSTILE = "a b'\"`touch executed`$(touch executed);touch executed;&|<>*?#~!\\n"


@pytest.mark.parametrize("value", [HOSTILE, "x\nimport os; os.mkdir('executed')", '"""', '\\"', "{x}", "None"])
def test_parameters_of_a_notebook_stay_values(tmp_path, value):
    """What papermill writes into the notebook is nothing but assignments of literals, equal to what was given."""
    from papermill.translators import PythonTranslator

    settings = {"split_lists": value, value: [value, {value: value}]}
    given = {"cohort": str(tmp_path / value), "settings": settings}
    command = compare.papermill(tmp_path / "a.ipynb", tmp_path / "b.ipynb", given)
    parameters = yaml.safe_load(base64.b64decode(command[command.index("-b") + 1]))
    source = PythonTranslator.codify(parameters)
    found = {}
    for statement in ast.parse(source).body:
        assert isinstance(statement, ast.Assign) and len(statement.targets) == 1
        found[statement.targets[0].id] = ast.literal_eval(statement.value)
    assert found == given


def test_names_in_a_table_are_no_html():
    text = format_table(pd.DataFrame({"folder": ["<script>x</script>|y"], "n": [1]}), "markdown")
    assert "<script>" not in text and "&lt;script&gt;" in text and r"\|y" in text


# The network


def test_nothing_listens_but_jupyterlab_which_keeps_its_token():
    """Neither library nor notebook speaks to a network; `make lab` starts JupyterLab with its own safe defaults."""
    network = r"socket|socketserver|urllib|http|requests|httpx|aiohttp|ftplib|smtplib|flask|uvicorn|fastapi"
    for path in [*ROOT.glob("mixsup_lib/**/*.py"), *ROOT.glob("notebooks/**/*.ipynb")]:
        text = path.read_text(encoding="utf-8")
        assert not re.search(rf"\b(import|from) ({network})\b", text), path
    starts = [ROOT / "Makefile", *ROOT.glob("workflow/**/*.sh"), *ROOT.glob("docs/*.md"), ROOT / "README.md"]
    text = "\n".join(path.read_text(encoding="utf-8") for path in starts)
    assert "jupyter lab notebooks" in text
    unsafe = r"(token|password)\s*=\s*['\"]{2}|--ip\b|0\.0\.0\.0|disable_check_xsrf|allow_origin|--allow-root"
    assert not re.search(unsafe, text)


def test_the_guard_of_the_main_jobs_test_sees_a_connection(tmp_path):
    """test_compare.py runs the main job under this guard; here it meets what it must stop and let pass."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = f"""import socket
socket.create_connection({server.getsockname()}).close()
try: socket.create_connection(('192.0.2.1', 80), 1)
except OSError as error: print(error)"""
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=guarded(tmp_path), capture_output=True, text=True, check=True)
    (attempt,) = (tmp_path / "attempts.txt").read_text().splitlines()
    assert "no network" in done.stdout and "192.0.2.1" in attempt
