"""How a grid calls Snakemake, which lives in an environment of its own."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from grid_plan import Plan

from mixsup_lib.files import DataError

SNAKEFILE = Path(__file__).resolve().with_name("Snakefile")


def snakemake_program() -> Path | None:
    """Snakemake of the environment of its own that `make grid` sets up, else one on the PATH."""
    own = Path(sys.prefix, "workflow/bin/snakemake")
    found = own if own.exists() else shutil.which("snakemake")
    return Path(found) if found else None


def snakemake(work: Path, plan: Plan, *options: str, profile: Path | None = None) -> list[str]:
    """The command that starts Snakemake in `work`, which holds nothing but this start.

    A `profile` says where runs compute (workflow/slurm), else they compute here. Raises DataError without Snakemake or
    the profile.
    """
    program = snakemake_program()
    if program is None:
        raise DataError("Snakemake is not installed; `make grid` installs it.")
    if profile is not None and not (profile / "config.yaml").is_file():
        raise DataError(
            f"{profile}: holds no config.yaml of a Snakemake profile; give a folder such as workflow/slurm."
        )
    plan.write(work / "plan.json")
    command = [program, "--snakefile", SNAKEFILE, "--directory", work, "--configfile", work / "plan.json"]
    command += ["--cores", plan.cores, "--resources", f"gpu={len(plan.places)}", "--scheduler", "greedy"]
    command += ["--keep-going", "--nolock", "--drop-metadata", "--forcerun", "table", "--nocolor"]
    command += ["--runtime-source-cache-path", work / "source-cache", *options]
    command += ["--profile", profile.resolve()] if profile else []
    return [str(part) for part in command]
