"""One thread and no screen, set before any import; then what all tests share, and the order in which they start."""

import os

for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_variable] = "1"
os.environ.setdefault("MPLBACKEND", "agg")

import shutil  # noqa: E402

import pytest  # noqa: E402
from filelock import FileLock  # noqa: E402

from mixsup_lib.config import make_config  # noqa: E402
from mixsup_lib.experiments.runs import run  # noqa: E402
from mixsup_lib.phantom import make_phantom  # noqa: E402
from mixsup_lib.protocol import make_split  # noqa: E402
from mixsup_lib.slices import prepare  # noqa: E402

WINDOW = (48, 48)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="session")
def shared(tmp_path_factory, worker_id):
    """Folder of all pytest-xdist workers. Who makes something in it holds its lock; the others find it made."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def phantom(shared):
    """Folder of ten phantom patients on a grid of 5 mm. Tests that change files work on a copy."""
    with FileLock(shared / "phantom.once"):
        make_phantom(shared / "phantom", patients=10, voxel_mm=5.0, seed=3, workers=1, progress=False)
    return shared / "phantom"


@pytest.fixture(scope="session")
def store(phantom, shared):
    """The phantom's prepared slices."""
    with FileLock(shared / "store.once"):
        return prepare(phantom, shared / "store", pixel_mm=5.0, window=WINDOW, progress=False)


@pytest.fixture(scope="session")
def split(store):
    """Three fully annotated, five weak, two test patients."""
    return make_split([patient.id for patient in store.cohort.patients], n_fa=3, fold=1)


@pytest.fixture(scope="session")
def finished(phantom, shared):
    """Folder of a run of six iterations. Tests that change it take `copy`."""
    where = {"cohort": phantom, "out": shared / "runs", "stores": shared / "stores"}
    settings = {"n_fa": 3, "iterations": 6, "batch_norm_batches": 2, "device": "cpu", "precision": "float32"}
    with FileLock(shared / "finished.once"):
        return run(make_config(**where, **settings, progress=False))


@pytest.fixture
def copy(finished, tmp_path):
    """A copy of the finished run."""
    return shutil.copytree(finished, tmp_path / finished.name)


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


@pytest.fixture(scope="module")
def browser():
    """One Chromium for the tests of a file. Playwright's event loop ends with them: other tests run their own."""
    if not CHROMIUM and not os.environ.get("CI"):
        pytest.skip("no Chromium on the PATH (Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long tests start first. Those that share a fixture of their file stay on one worker."""
    for item in items:
        fixtures = item._fixtureinfo.name2fixturedefs.values()
        if any(found[-1].scope == "module" for found in fixtures) and not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
    items.sort(key=_seconds, reverse=True)


def _seconds(item: pytest.Item) -> float:
    """What is known of a test's duration: a notebook was timed when it was executed, the browser takes longest."""
    if group := item.get_closest_marker("xdist_group"):
        return 1000 if group.args == ("browser",) else 0
    return getattr(getattr(item, "callspec", None), "params", {}).get("seconds", 0)
