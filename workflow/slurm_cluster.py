"""A real Slurm of two nodes on this machine, to try the cluster profile on; needs Debian's slurm-wlm and munge."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mixsup_lib.files import DataError

PROGRAMS = ("munged", "slurmctld", "slurmd", "squeue", "sinfo")
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
NODE = (
    "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=1 RealMemory=4000 State=UNKNOWN"
)


@dataclass(frozen=True)
class Cluster:
    """The running cluster; `folder` holds its logs."""

    folder: Path

    def take_away(self, node: str) -> None:
        """Stop the node at once, as if its machine had gone, and cancel what it was running."""
        os.kill(int((self.folder / f"slurmd-{node}.pid").read_text()), signal.SIGKILL)
        subprocess.run(["scancel", "--nodelist", node], check=True)

    def running(self) -> set[str]:
        """Nodes that run a job now."""
        return set(_say("squeue", "--noheader", "--states=RUNNING", "--format=%N").split())

    def states(self) -> set[str]:
        """States of the nodes."""
        return set(_say("sinfo", "--noheader", "--Node", "--format=%T").split())


@contextlib.contextmanager
def two_nodes(folder: Path) -> Iterator[Cluster]:
    """Start munge, the controller and two nodes of one core; stop them at the end.

    Raises DataError where a program is missing, this machine has a Slurm of its own, or a part does not start.
    """
    if missing := [name for name in PROGRAMS if not shutil.which(name)]:
        raise DataError(f"{missing[0]} is not on the PATH; on Debian: apt-get install slurm-wlm munge.")
    if PLACE.exists() and not PLACE.read_text().startswith(NAME):
        raise DataError(
            f"{PLACE}: is there already, so this machine has a Slurm of its own; try another machine."
        )
    host = socket.gethostname().split(".")[0]
    for name in ("state", *(f"spool-{node}" for node in NODES)):
        (folder / name).mkdir(parents=True)
    folder.chmod(0o755)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    nodes = "\n".join(NODE.format(name=name, host=host, port=port) for name, port in NODES.items())
    PLACE.parent.mkdir(exist_ok=True)
    values = {"name": NAME, "host": host, "folder": folder, "nodes": nodes, "names": ",".join(NODES)}
    PLACE.write_text(CONFIGURATION.format(**values))
    cluster, started = Cluster(folder), []
    try:
        files = [f"--{name}-file={folder}/munged.{name}" for name in ("pid", "log", "seed")]
        started.append(
            _start("munged", "--foreground", f"--socket={folder}/munge.socket", f"--key-file={key}", *files)
        )
        _wait("munged", (folder / "munge.socket").exists)
        started.append(_start("slurmctld", "-D"))
        started += [_start("slurmd", "-D", "-N", node) for node in NODES]
        _wait("two idle nodes", lambda: cluster.states() == {"idle"})
        yield cluster
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
        PLACE.unlink()


def _start(*command: str) -> subprocess.Popen:
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _say(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True).stdout


def _wait(what: str, happened: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > end:
            raise DataError(f"{what}: not there after {seconds:.0f} s; its log is in the cluster's folder.")
        time.sleep(0.2)
