"""The smoke grid on a real two-node Slurm, one node taken away in the middle, against the same grid run here.

    python workflow/try_slurm.py

Needs root and Debian's slurm-wlm and munge. Exits with 0 where all runs finished and tables and weights are equal, byte
for byte.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from slurm_cluster import two_nodes

from mixsup_lib.files import MixsupError

ROOT = Path(__file__).resolve().parent.parent
GRID = [sys.executable, ROOT / "workflow/run_grid.py", ROOT / "scenarios/smoke.yaml"]
COMPARED = ("*/**/weights.safetensors", "table.csv", "tables/*.csv")


def on_slurm(folder: Path) -> bool:
    """The grid on two nodes; the second is taken away once both are running a job. Was it?"""
    with two_nodes(folder / "cluster") as cluster:
        grid = subprocess.Popen([*GRID, "--profile", ROOT / "workflow/slurm"], cwd=folder)
        taken = False
        while grid.poll() is None:
            if not taken and cluster.running() == {"n1", "n2"}:
                time.sleep(2)  # into the middle of its run
                cluster.take_away("n2")
                taken = True
                print("node n2 taken away", flush=True)
            time.sleep(0.5)
    if grid.returncode:
        sys.exit(f"the grid on Slurm ended with status {grid.returncode}")
    return taken


def results_of(folder: Path) -> dict[str, bytes]:
    """Path below the grid's runs -> content of what is compared."""
    (runs,) = (folder / "runs").glob("smoke-*")
    return {str(path.relative_to(runs)): path.read_bytes() for glob in COMPARED for path in runs.glob(glob)}


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        here, cluster = Path(name, "here"), Path(name, "slurm")
        for folder in (here, cluster):
            folder.mkdir()
        Path(name).chmod(0o755)
        subprocess.run(GRID, cwd=here, check=True)
        start = time.monotonic()
        try:
            taken = on_slurm(cluster)
        except MixsupError as error:
            sys.exit(str(error))
        local, remote = results_of(here), results_of(cluster)
        if not taken or local != remote:
            sys.exit(
                f"node taken away: {taken}; different: {[key for key in local if local[key] != remote.get(key)]}"
            )
        seconds = time.monotonic() - start
        print(
            f"Slurm, one node lost: complete in {seconds:.0f} s, {len(local)} files equal those of the local grid."
        )


if __name__ == "__main__":
    main()
