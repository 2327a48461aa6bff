"""The smoke experiment on a real two-node Slurm, one node taken away in the middle, against the same runs made here.

    python workflow/slurm_trial.py

Needs root and Debian's slurm-wlm and munge. Starts a Slurm of its own on this machine. Exits with 0 where all runs
finished and tables and weights are equal, byte for byte.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HERE = [sys.executable, "-m", "mixsup_lib", "compare", "smoke"]
ON_SLURM = [sys.executable, ROOT / "workflow/grid.py", ROOT / "workflow/slurm", "smoke"]
COMPARED = ("*/**/weights.safetensors", "table.csv", "tables/*.csv")

NODES = {"n1": 17001, "n2": 17002}
PLACE = Path("/etc/slurm/slurm.conf")
"""Where jobs look for the configuration."""

NAME = "ClusterName=mixsup-trial"
"""First line of a configuration of ours; one that a killed trial left behind is replaced."""

CONFIGURATION = """\
{name}
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
ReturnToService=2
SlurmdTimeout=15
MpiDefault=none
SlurmctldPort=16817
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
StateSaveLocation={folder}/state
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdLogFile={folder}/slurmd-%n.log
SlurmdSpoolDir={folder}/spool-%n
{nodes}
PartitionName=main Nodes={names} Default=YES MaxTime=INFINITE State=UP
"""
NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=1 RealMemory=4000 State=UNKNOWN"


@contextlib.contextmanager
def two_nodes(folder: Path) -> Iterator[None]:
    """Start munge, the controller and two nodes of one core, their logs in `folder`; stop them at the end."""
    if missing := [name for name in ("munged", "slurmctld", "slurmd") if not shutil.which(name)]:
        sys.exit(f"{missing[0]} is not on the PATH; on Debian: apt-get install slurm-wlm munge.")
    if PLACE.exists() and not PLACE.read_text().startswith(NAME):
        sys.exit(f"{PLACE}: is there already, so this machine has a Slurm of its own; try another machine.")
    host = socket.gethostname().split(".")[0]
    for name in ("state", *(f"spool-{node}" for node in NODES)):
        (folder / name).mkdir(parents=True)
    folder.chmod(0o755)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    nodes = "\n".join(NODE.format(name=name, host=host, port=port) for name, port in NODES.items())
    PLACE.parent.mkdir(exist_ok=True)
    PLACE.write_text(CONFIGURATION.format(name=NAME, host=host, folder=folder, nodes=nodes, names=",".join(NODES)))
    started = []
    try:
        files = [f"--{name}-file={folder}/munged.{name}" for name in ("pid", "log", "seed")]
        socket_and_key = [f"--socket={folder}/munge.socket", f"--key-file={key}"]
        started.append(start("munged", "--foreground", *socket_and_key, *files))
        wait_for("munged", (folder / "munge.socket").exists)
        started += [start("slurmctld", "-D"), *(start("slurmd", "-D", "-N", node) for node in NODES)]
        wait_for("two idle nodes", lambda: said("sinfo", "--noheader", "--Node", "--format=%T") == {"idle"})
        yield
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
        PLACE.unlink()


def start(*command: str) -> subprocess.Popen:
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def said(*command: str) -> set[str]:
    """The words that a command prints."""
    return set(subprocess.run(command, capture_output=True, text=True).stdout.split())


def wait_for(what: str, happened: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > end:
            sys.exit(f"{what}: not there after {seconds:.0f} s.")
        time.sleep(0.2)


def run_on_slurm(folder: Path) -> None:
    """The experiment on two nodes; the second is taken away once both are running a job."""
    with two_nodes(folder / "cluster"):
        grid, taken = subprocess.Popen(ON_SLURM, cwd=folder), False
        while grid.poll() is None:
            if not taken and said("squeue", "--noheader", "--states=RUNNING", "--format=%N") == {*NODES}:
                time.sleep(2)  # into the middle of its run
                os.kill(int((folder / "cluster/slurmd-n2.pid").read_text()), signal.SIGKILL)
                subprocess.run(["scancel", "--nodelist", "n2"], check=True)
                taken = True
                print("node n2 taken away", flush=True)
            time.sleep(0.5)
    if grid.returncode or not taken:
        sys.exit(f"the grid on Slurm ended with status {grid.returncode}, node taken away: {taken}")


def results_of(folder: Path) -> dict[str, bytes]:
    """Path below the experiment's folder -> content of what is compared."""
    (place,) = (folder / "runs").glob("smoke-*")
    return {str(path.relative_to(place)): path.read_bytes() for glob in COMPARED for path in place.glob(glob)}


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        here, slurm = Path(name, "here"), Path(name, "slurm")
        for folder in (here, slurm):
            folder.mkdir()
        subprocess.run(HERE, cwd=here, check=True)
        began = time.monotonic()
        run_on_slurm(slurm)
        seconds, local, remote = time.monotonic() - began, results_of(here), results_of(slurm)
        if different := [key for key in local if local[key] != remote.get(key)]:
            sys.exit(f"different: {different}")
        print(f"Slurm, one node lost: complete in {seconds:.0f} s, {len(local)} files equal those made here.")


if __name__ == "__main__":
    main()
