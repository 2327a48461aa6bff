"""Time one training step in several ways on this machine and record it for notebook 10.

    python workflow/measure_speed.py [--rounds 10]

On a machine with a GPU the ways of `speed.GPU_WAYS` on the paper's network, else those of `speed.CPU_WAYS` on that of
the preset `workshop`, on one thread. Writes data/results/speed-<device>.csv; nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import re
import subprocess
from pathlib import Path

import torch

from mixsup_lib import speed
from mixsup_lib.provenance import cpu_model

RESULTS = Path("data/results")
PAPER = {"width": 64, "depth": 4, "padding": "valid", "input_shape": (300, 300)}
WORKSHOP = {"width": 16, "depth": 3, "padding": "same", "input_shape": (80, 64)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    gpu = torch.cuda.is_available()
    device = torch.cuda.get_device_name() if gpu else cpu_model()
    ways, network, sizes = (speed.GPU_WAYS, "paper", PAPER) if gpu else (speed.CPU_WAYS, "workshop", WORKSHOP)
    table = speed.compare(ways, sizes, rounds=rounds)
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True
    ).stdout.strip()
    table = table.assign(network=network, device=device, threads=1, torch=torch.__version__, commit=commit)
    name = re.sub(r"[^A-Za-z0-9]+", "-", device).strip("-").lower()
    RESULTS.mkdir(parents=True, exist_ok=True)
    table.to_csv(RESULTS / f"speed-{name}.csv", index=False, float_format="%.4g")
    print(table.round(4).to_string(index=False))


if __name__ == "__main__":
    main()
