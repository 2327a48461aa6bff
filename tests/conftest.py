"""Set before any import: one thread, pictures without a screen. Then each test learns which claims it backs."""

import os

for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_variable] = "1"
os.environ.setdefault("MPLBACKEND", "agg")

import pytest  # noqa: E402
from fixtures import phantom, run_settings, split, store  # noqa: E402, F401
from ledger import read_ledger  # noqa: E402


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
