"""Every row of `make bench` at tiny size: the ways that are compared do the same, and the table holds what it says."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent

import run_bench  # noqa: E402
from bench import batches, growing, preparing, scans, segmenting, starting, table, training_step  # noqa: E402
from bench.sizes import FULL, TINY  # noqa: E402
from bench.turns import Way, take_turns  # noqa: E402
from record import record  # noqa: E402

from mixsup_lib.config import make_config  # noqa: E402
from mixsup_lib.datasets import find_cohort  # noqa: E402
from mixsup_lib.files import MixsupError  # noqa: E402
from mixsup_lib.slices import prepare  # noqa: E402


def config(**changes):
    settings = {"cohort": "none", "preset": "workshop", "device": "cpu", "precision": "float32", "n_fa": 3}
    return make_config(**{**settings, "progress": False, **TINY.preset, **changes})


def counting():
    """A way whose turns return 1, 2, 3, ..."""
    turns = []
    return lambda: turns.append(1) or len(turns)


def failing():
    raise ValueError("this way is broken")


@pytest.fixture(autouse=True)
def one_thread():
    yield
    torch.set_num_threads(1)


def test_ways_take_turns_in_processes_of_their_own():
    measured = take_turns([Way("a", counting), Way("b", counting, items=2)], 2)
    assert measured.wall.shape == measured.cpu.shape == (2, 2) and (measured.wall > 0).all(axis=None)
    assert measured.first == {"a": 1, "b": 1}
    if sys.platform == "linux":
        assert 0 < measured.memory["a"]["own"] <= measured.memory["a"]["peak"]


def test_a_way_that_fails_says_why():
    with pytest.raises(MixsupError, match="broken: failed.(.|\n)*this way is broken"):
        take_turns([Way("broken", failing)], 1)


def test_all_networks_of_the_step_train_and_ours_is_the_plain_one():
    made = [make(config()) for make in (training_step.ours, training_step.plain, training_step.basic_unet)]
    fast, plain, monai = ([step() for _ in range(8)] for step in made)
    assert fast[0] == pytest.approx(plain[0], rel=1e-5)
    assert fast[1] == pytest.approx(
        plain[1], rel=1e-3
    )  # Adam divides by the gradient and magnifies its rounding
    assert monai[-1] < monai[0] and fast[-1] < fast[0]


def test_monais_network_has_equal_widths():
    kernels = [p for p in training_step.monai_network(config()).parameters() if p.ndim == 4]
    assert [len(kernel) for kernel in kernels[:6:2]] == [4, 8, 16]


@pytest.mark.parametrize("mirrored", [0.0, 1.0])
def test_batches_of_all_three_ways_are_equal(phantom, store, mirrored):
    settings = {
        "config": config(cohort=phantom, flip_fraction=mirrored),
        "store_folder": store.folder,
        "batches": 2,
    }
    last = batches.ours(**settings)()
    monai = batches.cached(**settings, workers=0)()
    assert np.array_equal(monai["image"], last.images) and monai["image"].dtype == np.float32
    assert np.array_equal(monai["label"][: len(last.labels), 0], last.labels) and last.labels.any()
    assert np.array_equal(monai["presence"], last.presence)
    read = batches.from_nifti(**settings)().images
    expected = last.images[..., ::-1] if mirrored else last.images
    assert np.array_equal(read.astype(np.float16), expected)


def test_waiting_is_a_share_of_training(phantom, store, tmp_path):
    settings = {"config": config(cohort=phantom), "store_folder": store.folder}
    figure = batches._share(TINY, settings, tmp_path / "waiting.json", apart=False)
    assert 0 < figure.figure < 100 and figure.reached in ("yes", "no")


def test_preparing_does_what_prepare_does_and_reading_reads_everything(phantom, store, tmp_path):
    cohort = scans.copies(find_cohort(phantom), tmp_path / "copies", 12)
    assert len(cohort.patients) == 12 and cohort.patients[10].image_files[0].stat().st_nlink > 2
    once = preparing.preparing(cohort.folder, tmp_path / "store", pixel_mm=5.0, window=(48, 48))
    assert once() == once() == 12 * store.rows(store.cohort.patients[0].id).stop
    made = prepare(cohort.folder, tmp_path / "store", pixel_mm=5.0, window=(48, 48), progress=False)
    assert np.array_equal(made.slices(cohort.patients[1].id), store.slices("Brats18_PHANTOM_002_1"))
    patient = find_cohort(phantom).patients[0]
    files = [*patient.image_files, *patient.mask_files]
    assert preparing.reading(files)() == 5 * patient.read_labels().size


def test_monais_windows_give_the_same_labels(phantom):
    labels, others = segmenting.ours(phantom)(), segmenting.monai_windows(phantom)()
    assert (
        labels.dtype == others.dtype == np.uint8
        and labels.shape == find_cohort(phantom).patients[0].read_labels().shape
    )
    assert labels.any() and np.array_equal(labels, others)
    figure = segmenting._agreement("a", labels, "b", others, 100.0)
    assert (figure.figure, figure.reached) == (100, "yes")
    others = others.copy()
    others.flat[0] += 1
    assert segmenting._agreement("a", labels, "b", others, 100.0).reached == "no"


def test_the_papers_network_gives_the_same_probabilities_in_tiles():
    one, other = segmenting.one_pass(2, 300, 80)(), segmenting.tiles(2, 300, 80)()
    assert one.shape == other.shape == (1, 2, 80, 80)
    inner = np.s_[:, :, segmenting.RIM : -segmenting.RIM, segmenting.RIM : -segmenting.RIM]
    assert np.allclose(one[inner], other[inner], atol=1e-5) and one[inner].std() > 1e-2
    width, tile, size = FULL.paper
    network, slices = segmenting.paper_network(width, tile, size)
    assert network.geometry.smallest_input(size) == 444 and network.geometry.output_size(tile) == 101
    assert slices.shape == (1, 4, 240, 240)


def test_importing_and_opening_are_measured(tmp_path):
    figures = list(starting.measure(TINY, tmp_path, apart=False))
    assert [figure.measure for figure in figures] == [table.TIME] * 2
    assert figures[0].note == "torch is not loaded" and all(figure.figure > 0 for figure in figures)
    assert starting.notebook(ROOT / "notebooks/00_setup.ipynb")


def test_made_up_stores_differ_in_the_number_of_patients_alone(tmp_path):
    few, many = (growing.write_store(tmp_path / str(n), n, TINY) for n in (6, 8))
    sizes = [growing.drawing(config(), folder, 2)() for folder in (few, many)]
    assert sizes == [6 * TINY.grown_slices, 8 * TINY.grown_slices]
    data = growing.training_slices(growing.opened(many))
    assert min(map(len, (data.positive[0], data.negative, data.weak))) > 0
    assert set(data.positive[0]).isdisjoint(data.weak) and data.presence[data.weak].all()
    losses = [growing.stepping(config(), folder)() for folder in (few, many)]
    assert np.isfinite(losses).all()


def one_figure(**changes) -> table.Figure:
    return table.Figure(**{"row": "a row", "ours": "ours", "figure": 2.0, "measure": table.FASTER, **changes})


def test_more_is_better_for_speed_and_less_for_cost():
    judged = (
        (table.FASTER, 1.31, "yes"), (table.FASTER, 1.29, "no"), (table.COST, 1.29, "yes"), (table.COST, 1.31, "no"),
        (table.TIME, 2.0, "no"), (table.SHARE, 1.0, "yes"), (table.EQUAL, 99.0, "yes"),
        (table.FASTER, float("nan"), "no"),
    )  # fmt: skip
    for measure, figure, reached in judged:
        assert one_figure(measure=measure, figure=figure, reach=1.3).reached == reached
    assert one_figure().reached == ""


def test_a_figure_is_the_quotient_of_the_medians():
    wall = pd.DataFrame({"ours": [1.0, 2.0, 3.0], "other": [4.0, 8.0, 30.0]})
    turns = run_bench.training_step.take_turns([], 0)
    turns = replace(turns, wall=wall, cpu=2 * wall)
    faster = table.compare(turns, "row", "ours", "other")
    assert (faster.figure, faster.by_cpu, faster.ours_value, faster.against_value) == (4, 4, 2000, 8000)
    assert faster.low == 4 and faster.high == 7
    assert table.compare(turns, "row", "ours", "other", table.COST).figure == 0.25


def test_the_table_keeps_its_columns_and_is_read_as_it_was_written(tmp_path):
    where = table.provenance()
    assert {"commit", "torch", "monai", "python", "cpu", "cores", "date"} <= set(where)
    frame = table.to_frame([one_figure(reach=1.3, note="a, b"), one_figure(against="x", reach=3.0)], where)
    path = tmp_path / table.file_name("Intel(R) Xeon(R) @ 2.5GHz")
    assert path.name == "bench-intel-r-xeon-r-2-5ghz.csv"
    frame.to_csv(path, index=False)
    (tmp_path / "bench-gpu-h200.csv").write_text("another,table\n")
    (read,) = table.recorded(tmp_path)
    assert read.columns.tolist() == frame.columns.tolist() and read["reached"].tolist() == ["yes", "no"]
    assert read["against"].tolist() == ["", "x"] and read["figure"].tolist() == [2, 2]
    text = " ".join(table.to_text(read).split())
    assert "| a row | ours | x | 2 times faster | at least 3: no |" in text and where["cpu"] in text
    short = table.in_short([read, read.assign(cpu="another", figure=5.0)])
    assert "| a row: ours | 2 times faster | 5 times faster |" in short and "another" in short.splitlines()[0]


@pytest.mark.parametrize(
    "path", sorted((ROOT / "data/results").glob("bench-*.csv")), ids=lambda path: path.stem
)
def test_a_recorded_table_of_a_cpu_has_every_row(path):
    if path.name.startswith("bench-gpu-"):
        pytest.skip("a table of a GPU")
    frame = next(read for read in table.recorded() if table.file_name(read["cpu"][0]) == path.name)
    assert frame["figure"].notna().all() and frame["commit"].str.fullmatch(r"[0-9a-f]{7,40}(-dirty)?").all()
    rows = {name.split(",")[0] for name in frame["row"]}
    modules = (training_step, batches, preparing, segmenting, starting, growing)
    assert rows == {module.ROW for module in modules} | {segmenting.PAPER_ROW.split(",")[0]}


@pytest.mark.parametrize("name", ["README.md", "docs/performance.md"])
def test_the_documents_show_the_recorded_tables(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    shown = text.partition("<!-- results:speed -->")[2].partition("<!-- /results:speed -->")[0].strip()
    tables = table.recorded()
    expected = run_bench.texts(tables)[Path(name)] if tables else "(not recorded yet)"
    assert shown == expected.strip(), "run: make bench RECORD=1"


def test_a_table_is_put_between_its_markers(tmp_path):
    document = tmp_path / "document.md"
    document.write_text("before\n<!-- results:speed -->\nold\n<!-- /results:speed -->\nafter\n")
    record("speed", "new", document)
    assert document.read_text().split() == [
        "before",
        *"<!-- results:speed --> new <!-- /results:speed --> after".split(),
    ]


def test_the_call_explains_itself_and_a_mistyped_row_is_refused():
    command = [sys.executable, ROOT / "workflow/run_bench.py"]
    told = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True).stdout
    assert all(row in told for row in run_bench.ROWS) and "--record" in told
    refused = subprocess.run([*command, "--rows", "speed"], capture_output=True, text=True)
    assert refused.returncode == 2 and "training-step" in refused.stderr


def test_make_bench_hands_rows_on_and_is_explained():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "#   make bench " in makefile and "\nbench: $(STAMP)\n" in makefile
    command = ["make", "--dry-run", "--silent", "VENV=.venv", "TORCH=cpu", "bench", "ROWS=batches growing"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("workflow/run_bench.py --rows batches growing")


def test_full_rows_are_of_the_sizes_the_table_speaks_of():
    assert FULL.fine_mm == 1.0 and FULL.grown_patients == (10, 100, 285) and FULL.memory_patients == (10, 40)
    workshop = config(**{name: None for name in TINY.preset})
    assert (workshop.width, workshop.depth, workshop.window) == (16, 3, (80, 64)) and not FULL.preset
