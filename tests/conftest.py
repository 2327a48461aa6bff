"""Set before any import: one thread, pictures without a screen."""

import os

for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_variable] = "1"
os.environ.setdefault("MPLBACKEND", "agg")

import pytest  # noqa: E402

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
