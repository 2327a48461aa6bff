"""Command line: `python -m mixsup_lib COMMAND`. Exit 0: done; 1: the data or the result is at fault; 2: the call is."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from mixsup_lib.files import DataError, MixsupError, SettingError, disk_full, read_yaml

SET = dict(
    dest="settings",
    nargs="+",
    default=[],
    metavar="NAME=VALUE",
    help="further settings; `run --settings` lists them (default: none)",
)


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m mixsup_lib", description=__doc__.split(". ")[0])
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str) -> Callable[..., argparse.Action]:
        return commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.").add_argument

    command("doctor", "check this installation and say what to do")

    add = command("phantom", "write a phantom cohort in BraTS 2018 layout")
    add("folder", type=Path, help="receives the patients; those that are there already are kept")
    add("--patients", type=int, default=120, help="how many patients (default: %(default)s)")
    add("--voxel-mm", type=float, default=2.5, help="side of a voxel in mm (default: %(default)s)")
    add("--seed", type=int, default=0, help="another seed gives other patients (default: %(default)s)")
    add("--workers", type=int, help="processes that write patients (default: one a core)")

    add = command("check-data", "say what a cohort holds and list every problem; draft a cohort.yaml if need be")
    add("folder", type=Path, help="folder of the cohort")

    add = command("prepare", "prepare a cohort's slices; run and compare do so by themselves")
    add("folder", type=Path, help="folder of the cohort")
    add("store", type=Path, help="folder that receives the slices")
    add("--pixel-mm", type=float, help="pixel size to resample to, in mm (default: the scans' own)")
    window = "rows and columns to cut out around the head (default: the whole slice)"
    add("--window", type=int, nargs=2, metavar=("H", "W"), help=window)
    add("--workers", type=int, default=1, help="processes that prepare patients (default: %(default)s)")

    add = command("run", "train and evaluate one run, without Jupyter")
    add("--config", type=Path, help="YAML file with settings (default: none)")
    add("--set", **SET)
    listed = "list all settings with their defaults and choices, and do nothing else"
    add("--settings", dest="list_settings", action="store_true", help=listed)

    add = command("compare", "run an experiment, to a table and a report or pictures")
    which = "YAML file, or the name of one in scenarios/ (default: standard against mixed supervision)"
    add("file", nargs="?", metavar="EXPERIMENT", help=which)
    add("--data", type=Path, help="cohort folder (default: a phantom, which is made)")
    presets = "scale of the runs: tiny, workshop or paper (default: the experiment's; without one workshop)"
    add("--preset", help=presets)
    add("--n-fa", type=int, help="fully annotated patients (default: the experiment's; without one 5)")
    add("--folds", type=int, nargs="+", help="folds to test, counted from 1 (default: the experiment's)")
    add("--seeds", type=int, nargs="+", help="seeds of weights and batches (default: the experiment's)")
    add("--out", type=Path, default=Path("runs"), help="folder that receives the runs (default: %(default)s)")
    add("--jobs", type=int, help="runs at a time (default: one a GPU, or as many as there are cores for)")
    add("--dry-run", action="store_true", help="show what would run, and do nothing else")
    add("--set", **SET)

    add = command("segment", "segment a patient, or a whole cohort, with a finished run")
    add("run", type=Path, help="folder of the finished run")
    which = "folder of the patient or of the cohort; for a Decathlon or nnU-Net patient an image file"
    add("case", type=Path, metavar="CASE", help=which)
    add("output", type=Path, help="NIfTI file to write, or for a cohort the folder for its masks")
    add("--probabilities", action="store_true", help="write the probability of tumour and the slice scores too")

    add = command("rerun", "repeat a finished run and compare")
    add("run", type=Path, help="folder of the finished run")
    add("--out", type=Path, help="folder that receives the repetition (default: that of the run, with -rerun)")
    add("--cohort", type=Path, help="where the cohort lies now (default: where it lay)")
    return top


def parse_settings(pairs: Sequence[str]) -> dict:
    """["a=0.5", "window=[80, 64]"] -> {"a": 0.5, "window": [80, 64]}; folders are text, other values YAML."""
    from mixsup_lib.config import from_text

    settings = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator:
            raise SettingError(f"--set: found {pair!r}, expected NAME=VALUE, for example iterations=300.")
        settings[name] = from_text(name, value)
    return settings


def read_settings(path: Path) -> dict:
    """Settings from a YAML file."""
    try:
        content = read_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingError(f"{path}: cannot be read as YAML ({str(error).splitlines()[0]}).") from None
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise SettingError(f"{path}: found {type(content).__name__}, expected settings as `name: value` lines.")
    return content


def _doctor(_: argparse.Namespace) -> int:
    from mixsup_lib import doctor

    return doctor.main()


def _phantom(call: argparse.Namespace) -> int:
    from mixsup_lib.phantom import make_phantom

    make_phantom(call.folder, patients=call.patients, voxel_mm=call.voxel_mm, seed=call.seed, workers=call.workers)
    return 0


def _check_data(call: argparse.Namespace) -> int:
    from mixsup_lib import check

    return check.main(call.folder)


def _prepare(call: argparse.Namespace) -> int:
    from mixsup_lib.slices import prepare

    window = tuple(call.window) if call.window else None
    store = prepare(call.folder, call.store, pixel_mm=call.pixel_mm, window=window, workers=call.workers)
    print(f"{call.store}: {len(store)} slices of {len(store.cohort.patients)} patients, {store.shape}")
    return 0


def _run(call: argparse.Namespace) -> int:
    from mixsup_lib.config import make_config, setting_lines

    if call.list_settings:
        print("\n".join(setting_lines()))
        return 0
    from mixsup_lib.experiments.runs import load_run, run

    settings = read_settings(call.config) if call.config else {}
    folder = run(make_config(**{**settings, **parse_settings(call.settings)}))
    _, metrics = load_run(folder)
    for region, value in metrics.mean_dice.items():
        print(f"{region}: mean Dice {'-' if value is None else f'{value:.2f}'} over {metrics.n_test[region]} patients")
    if not metrics.n_test:
        print("no test patients (test=none), so no Dice")
    print(folder)
    return 0


def run_compare(call: argparse.Namespace, execute: Callable | None = None) -> int:
    """The command `compare`; `execute` is that of `compare.compare`."""
    from mixsup_lib.experiments.compare import compare

    for number in (signal.SIGTERM, signal.SIGINT):  # a shell's background jobs ignore SIGINT
        signal.signal(number, signal.default_int_handler)
    chosen = {name: value for name in ("preset", "n_fa") if (value := getattr(call, name)) is not None}
    compare(
        call.file,
        call.data,
        settings={**chosen, **parse_settings(call.settings)},
        folds=call.folds,
        seeds=call.seeds,
        out=call.out,
        jobs=call.jobs,
        dry_run=call.dry_run,
        execute=execute,
    )
    return 0


def _segment(call: argparse.Namespace) -> int:
    from mixsup_lib.datasets import find_cohort, open_patient
    from mixsup_lib.experiments.runs import load_run, segment_cohort, segment_patient

    try:
        patient = open_patient(call.case)
    except DataError as no_patient:
        try:
            cohort = find_cohort(call.case, strict=False)  # who is incomplete is named beside the others
        except MixsupError:
            raise no_patient from None
        failed = segment_cohort(call.run, cohort, call.output, probabilities=call.probabilities)
        for name, fault in failed.items():
            print(f"{name} was not segmented: {fault}", file=sys.stderr)
        there = sum(patient.id not in failed for patient in cohort.patients)
        _, metrics = load_run(call.run)
        legend = cohort.labels.legend(metrics.config["task"]) if there else []
        print(f"{call.output}: masks of {there} of {len(cohort.patients)} patients{_shown_legend(legend)}")
        return int(bool(failed))
    legend = segment_patient(call.run, patient, call.output, probabilities=call.probabilities)
    print(f"{call.output}{_shown_legend(legend)}")
    return 0


def _shown_legend(legend: Sequence) -> str:
    """What stands behind a mask's name: " (values: 1 non_enhancing, 2 oedema, 4 enhancing)"."""
    return f" (values: {', '.join(f'{label.value} {label.name}' for label in legend)})" if legend else ""


def _rerun(call: argparse.Namespace) -> int:
    from mixsup_lib.experiments.rerun import rerun
    from mixsup_lib.experiments.tables import format_table

    comparison = rerun(call.run, call.out, cohort=call.cohort)
    for line in (*comparison.data, *comparison.machine):
        print(line)
    print(format_table(comparison.table))
    print(comparison.folder)
    print(comparison.verdict())
    return 0 if comparison.agrees else 1


COMMANDS = {
    "doctor": _doctor,
    "phantom": _phantom,
    "check-data": _check_data,
    "prepare": _prepare,
    "run": _run,
    "compare": run_compare,
    "segment": _segment,
    "rerun": _rerun,
}


def in_one_sentence(command: Callable[[argparse.Namespace], int], call: argparse.Namespace) -> int:
    """Run a command; what is at fault becomes one sentence. Returns the exit code."""
    try:
        return command(call)
    except MixsupError as error:
        fault = error
    except OSError as error:
        if (fault := disk_full(error, error.filename or Path.cwd() / "output")) is None:
            raise
    except KeyboardInterrupt:
        print("Interrupted; start the same command again to continue.", file=sys.stderr)
        return 130
    print(f"{type(fault).__name__}: {fault}", file=sys.stderr)
    return fault.exit_code


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    call = parser().parse_args(arguments)
    return in_one_sentence(COMMANDS[call.command], call)


if __name__ == "__main__":
    sys.exit(main())
