"""Install a workshop bundle without a network and use it: the doctor, then one notebook.

    python workflow/try_workshop_bundle.py ARCHIVE [--notebook 00_setup]

Works in a temporary folder and removes it. Where Linux allows it (unshare), the network is off altogether; elsewhere
only pip's index is.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

NO_NETWORK = ["unshare", "--map-root-user", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
"""Runs a command in a network of its own that holds nothing but this machine itself; Jupyter needs that much."""


def isolation() -> list[str]:
    """The words before a command that take its network away; none where that is not possible."""
    if shutil.which("unshare") and subprocess.run([*NO_NETWORK, "true"], capture_output=True).returncode == 0:
        return NO_NETWORK
    return []


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("archive", type=Path)
    parser.add_argument(
        "--notebook", default="00_setup", help="executed with papermill after the installation"
    )
    call = parser.parse_args()
    alone = isolation()
    print("network: off" if alone else "network: not switched off here; pip's index is", flush=True)
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "VIRTUAL_ENV", "PYTHONPATH"))
    }
    environment |= {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull}
    with tempfile.TemporaryDirectory(
        prefix="mixsup workshop "
    ) as place:  # with spaces, as folders of students have
        started = time.monotonic()
        with tarfile.open(call.archive) as archive:
            archive.extractall(place, filter="data")
        print(f"unpacked: {time.monotonic() - started:.0f} s", flush=True)
        home = Path(place) / "mixsup-workshop"
        notebook = f"notebooks/{call.notebook}.ipynb"
        papermill = [
            ".venv/bin/papermill",
            "--no-progress-bar",
            "--cwd",
            "notebooks",
            notebook,
            "tried.ipynb",
        ]
        steps = [
            ("installed", ["sh", "install.sh"], home),
            ("doctor", [".venv/bin/python", "-m", "mixsup_lib", "doctor"], home / "mixsup"),
            (call.notebook, papermill, home / "mixsup"),
        ]
        for name, command, folder in steps:
            started = time.monotonic()
            shown = sys.stdout if name == "installed" else subprocess.PIPE
            done = subprocess.run(
                [*alone, *command],
                cwd=folder,
                env=environment,
                stdout=shown,
                stderr=subprocess.STDOUT,
                text=True,
            )
            print(
                f"{name}: {'done' if done.returncode == 0 else 'FAILED'}, {time.monotonic() - started:.0f} s",
                flush=True,
            )
            if done.returncode:
                print((done.stdout or "")[-3000:])
                return 1
        size = sum(
            path.stat().st_size for path in home.rglob("*") if path.is_file() and not path.is_symlink()
        )
        print(f"with the installation {size / 1e9:.1f} GB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
