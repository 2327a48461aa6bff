"""Read damaged files through the library: each is accepted with a correct result or refused in one sentence.

    python workflow/fuzz.py [--count N] [--seed S] [--jobs J]
    python workflow/fuzz.py --seed S --case N        the same damage again, with what came of it

A case runs in a process of its own, with 5 s of CPU time and 1 GiB of memory beyond what the loaded library takes. A
defect is a traceback, a message that is not one sentence naming the file, a result that is silently wrong, a hang or
too much memory; its input is kept in build/fuzz. Exit 1 where there is one. docs/reliability.md says what counts as
correct.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import fuzz_inputs as inputs
import numpy as np
import torch
from fuzz_kinds import KINDS, Kind

from mixsup_lib.files import MixsupError

MEMORY = 2**30
"""Bytes a case may take beyond the loaded library."""

CPU_SECONDS = 5
WALL_SECONDS = 60
"""A case that sleeps, rather than computes, is stopped after this."""

KEPT = Path("build/fuzz")


class Outcome(NamedTuple):
    """What came of a case. `kind` and `file` say what was damaged; `what`: accepted, refused or a kind of defect."""

    case: int
    kind: str
    file: str
    what: str
    detail: str
    megabytes: int = 0
    seconds: float = 0.0

    @property
    def defect(self) -> bool:
        return self.what not in ("accepted", "refused")


def damage(case: int, seed: int, material: Path, work: Path) -> tuple[Kind, Path, Path]:
    """Make the input of a case in `work`: its kind, its folder and the damaged file in it."""
    name = list(KINDS)[case % len(KINDS)]
    kind, rng = KINDS[name], np.random.default_rng((seed, case))
    folder = work / kind.material
    shutil.copytree(material / kind.material, folder, symlinks=True)
    if kind.read is inputs.read_store:
        (work / "ten").symlink_to(material / "ten")
    files = sorted(path for path in folder.glob(kind.files) if path.is_file())
    path = files[int(rng.integers(len(files)))]
    path.write_bytes(kind.damage(path.read_bytes(), rng))
    return kind, folder, path


def run_case(case: int, seed: int, material: Path, work: Path, sound: dict) -> Outcome:
    """Damage, read, judge."""
    kind, folder, path = damage(case, seed, material, work)
    name, file = list(KINDS)[case % len(KINDS)], path.relative_to(work).as_posix()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = kind.read(folder)
            fault = kind.judge(found, sound[kind.material, kind.read.__name__], path)
    except inputs.Missing as error:
        return Outcome(case, name, file, "missed by check-data", str(error))
    except MixsupError as error:
        fault = not_a_sentence(str(error), path)
        return Outcome(case, name, file, fault or "refused", str(error))
    except MemoryError:
        return Outcome(case, name, file, "too much memory", traceback.format_exc())
    except Exception:
        return Outcome(case, name, file, "traceback", traceback.format_exc())
    return Outcome(case, name, file, "silently wrong" if fault else "accepted", fault or "")


def not_a_sentence(text: str, path: Path) -> str | None:
    """Is a refusal more than one line, endless, or silent about the file? A patient's folder names its slices."""
    if len(text.splitlines()) != 1 or not text.isprintable():
        return "more than a line"
    if len(text) > 600:
        return "an endless sentence"
    names = {path.name, path.parent.name} if path.suffix == ".tif" else {path.name}
    names |= {"etting '", 'etting "', "Settings do not fit"} if path.name == "settings.yaml" else set()
    return None if any(name in text for name in names) else "a sentence that does not name the file"


def start(case: int, seed: int, material: Path, root: Path, sound: dict) -> int:
    """Fork a process for one case; returns its id. The outcome goes to a file, as the process may not live to tell."""
    for ending in ("json", "txt"):
        (root / f"{case}.{ending}").unlink(missing_ok=True)
    pid = os.fork()
    if pid:
        return pid
    work = root / str(case)
    work.mkdir()
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 1))
    resource.setrlimit(resource.RLIMIT_AS, (memory("VmSize") + MEMORY,) * 2)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    base = memory("VmRSS")
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1), os.dup2(null, 2)
    status = 0
    try:
        outcome = run_case(case, seed, material, work, sound)
        outcome = outcome._replace(megabytes=(memory("VmHWM") - base) // 10**6)
        (root / f"{case}.json").write_text(json.dumps(outcome._asdict()))
    except BaseException:
        (root / f"{case}.txt").write_text(traceback.format_exc())
        status = 3
    os._exit(status)


def memory(name: str) -> int:
    """VmSize, VmRSS or VmHWM (the peak of VmRSS) of this process in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def finish(case: int, status: int, usage, wall: float, root: Path) -> Outcome:
    """What a process that ended has left."""
    kind = list(KINDS)[case % len(KINDS)]
    cost = {"seconds": round(usage.ru_utime + usage.ru_stime, 2)}
    told = root / f"{case}.json"
    if told.exists():
        return Outcome(**json.loads(told.read_text()))._replace(**cost)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        what = "hang" if number in (signal.SIGXCPU, signal.SIGKILL) else "crash"
        return Outcome(case, kind, "", what, f"{signal.Signals(number).name} after {wall:.0f} s", **cost)
    written = root / f"{case}.txt"
    detail = written.read_text() if written.exists() else f"exit status {status}"
    return Outcome(case, kind, "", "too much memory" if "MemoryError" in detail else "crash", detail, **cost)


def fuzz(
    cases: list[int], seed: int, jobs: int, root: Path, kept: Path, say: Callable = print
) -> list[Outcome]:
    """Run the cases, `jobs` at a time."""
    material = make_material(root)
    sound = {}
    for kind in {list(KINDS.values())[case % len(KINDS)] for case in cases}:
        key = kind.material, kind.read.__name__
        if key not in sound:
            work = root / "sound" / kind.read.__name__ / kind.material
            shutil.copytree(material / kind.material, work, dirs_exist_ok=True)
            link = work.with_name("ten")
            if kind.read is inputs.read_store and not link.exists():
                link.symlink_to(material / "ten")
            sound[key] = kind.read(work)
    waiting, running, outcomes = list(reversed(cases)), {}, []
    while waiting or running:
        while waiting and len(running) < jobs:
            case = waiting.pop()
            running[start(case, seed, material, root, sound)] = (case, time.monotonic())
        for pid, (case, began) in list(running.items()):
            if time.monotonic() - began > WALL_SECONDS:
                os.kill(pid, signal.SIGKILL)
            ended, status, usage = os.wait4(pid, os.WNOHANG)
            if ended:
                del running[pid]
                outcome = finish(case, status, usage, time.monotonic() - began, root)
                outcomes.append(outcome)
                if outcome.defect:
                    keep(outcome, seed, root, kept)
                    say(
                        f"case {case} ({outcome.kind}): {outcome.what}: {outcome.detail.strip().splitlines()[-1][:300]}"
                    )
                shutil.rmtree(root / str(case), ignore_errors=True)
        time.sleep(0.002)
    return sorted(outcomes)


def make_material(root: Path) -> Path:
    """The sound inputs, written by a process of its own: threads of this one would not survive a fork."""
    material = root / "material"
    if material.exists():
        return material
    writer = multiprocessing.get_context("spawn").Process(target=inputs.write_material, args=(material,))
    writer.start()
    writer.join()
    if writer.exitcode:
        raise SystemExit("the sound inputs could not be written")
    return material


def keep(outcome: Outcome, seed: int, root: Path, kept: Path) -> None:
    """Keep a defect's input and what came of it."""
    folder = kept / f"seed{seed}-case{outcome.case}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "outcome.json").write_text(json.dumps({"seed": seed, **outcome._asdict()}, indent=2))
    damaged = root / str(outcome.case) / outcome.file
    if outcome.file and damaged.is_file():
        shutil.copy(damaged, folder)


def report(outcomes: list[Outcome]) -> str:
    """A line per kind: inputs, accepted, refused, defects, and the largest cost of a case."""
    lines = [
        "| input | inputs | accepted | refused | defects | most memory (MB) | most CPU (s) |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in [*KINDS, "all"]:
        mine = [outcome for outcome in outcomes if name in (outcome.kind, "all")]
        if mine:
            count = Counter("defect" if outcome.defect else outcome.what for outcome in mine)
            cells = [name, len(mine), count["accepted"], count["refused"], count["defect"]]
            cells += [max(o.megabytes for o in mine), max(o.seconds for o in mine)]
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, help="one case alone, with what came of it")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    call = parser.parse_args()
    torch.set_num_threads(1)
    cases = list(range(call.count)) if call.case is None else [call.case]
    with tempfile.TemporaryDirectory(prefix="fuzz-") as root:
        outcomes = fuzz(cases, call.seed, call.jobs, Path(root), KEPT)
    if call.case is not None:
        print(*outcomes[0], sep="\n")
    print(report(outcomes))
    defects = sum(outcome.defect for outcome in outcomes)
    print(
        f"seed {call.seed}: {len(outcomes)} inputs, {defects} defects"
        + (f", kept in {KEPT}" if defects else "")
    )
    return int(defects > 0)


if __name__ == "__main__":
    sys.exit(main())
