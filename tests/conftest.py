"""Set before any import: one thread, pictures without a screen. Then each test learns which claims it backs."""

import os

for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_variable] = "1"
os.environ.setdefault("MPLBACKEND", "agg")

import pytest  # noqa: E402
from ledger import read_ledger  # noqa: E402

from mixsup_lib.phantom import make_phantom  # noqa: E402
from mixsup_lib.protocol import make_split  # noqa: E402
from mixsup_lib.slices import prepare  # noqa: E402

WINDOW = (48, 48)


@pytest.fixture(scope="session")
def phantom(tmp_path_factory):
    """Folder of ten phantom patients on a grid of 5 mm. Tests that change files work on a copy."""
    folder = tmp_path_factory.mktemp("cohort") / "phantom"
    make_phantom(folder, patients=10, voxel_mm=5.0, seed=3, workers=1, progress=False)
    return folder


@pytest.fixture(scope="session")
def store(phantom, tmp_path_factory):
    """The phantom's prepared slices."""
    return prepare(phantom, tmp_path_factory.mktemp("store"), pixel_mm=5.0, window=WINDOW, progress=False)


@pytest.fixture(scope="session")
def split(store):
    """Three fully annotated, five weak, two test patients."""
    return make_split([patient.id for patient in store.cohort.patients], n_fa=3, fold=1)


@pytest.fixture
def run_settings(phantom, tmp_path):
    """Settings of a run of a few seconds."""
    return {
        "cohort": phantom,
        "out": tmp_path / "runs",
        "stores": tmp_path / "stores",
        "preset": "tiny",
        "n_fa": 3,
        "iterations": 8,
        "batch_norm_batches": 3,
        "progress": False,
        "precision": "float32",
        "device": "cpu",
    }


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that REPRODUCTION.md names with the ids of its rows: `pytest -m claim`, `pytest -k C3.1-07`."""
    claims: dict[str, list[str]] = {}
    for row in read_ledger():
        for test in row.tests:
            claims.setdefault(test, []).append(row.id)
    for item in items:
        file, _, name = item.nodeid.partition("::")
        function = f"{file}::{name.split('[')[0].split('::')[-1]}"
        for claim in claims.get(function, []):
            item.add_marker(pytest.mark.claim(claim))
            item.extra_keyword_matches.add(claim)
            item.user_properties.append(("claim", claim))
