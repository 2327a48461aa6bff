"""Tell prepared slices where their cohorts lie now, after the repository was copied or moved.

    python workflow/move_stores.py

A store remembers its cohort's folder and the times of its files, and is prepared again where they differ. Copying
changes both without changing the images, so here the new folder and times are written down wherever names and sizes
of all files agree. Contents, and with them the fingerprints of finished runs, stay as they are.
"""

from __future__ import annotations

import sys
from pathlib import Path

from mixsup_lib.datasets import find_cohort
from mixsup_lib.files import MixsupError
from mixsup_lib.slices import read_description, write_description

ROOT = Path(__file__).resolve().parent.parent


def move(description: Path, cohort: Path) -> bool:
    """Make the store described by `store.json` that of the folder `cohort`; False if its files are not those."""
    folder, files = (
        description.parent,
        {patient.id: patient.image_files for patient in find_cohort(cohort).patients},
    )
    if (content := read_description(folder)) is None:
        return False
    for entry in content["patients"]:
        now = [
            [file.name, file.stat().st_size, file.stat().st_mtime_ns]
            for file in files.get(entry["patient"], [])
        ]
        if [state[:2] for state in now] != [state[:2] for state in entry["files"]]:
            return False
        entry["files"] = now
    if len(content["patients"]) != len(files):
        return False
    settings = {**content["settings"], "cohort": str(cohort.resolve())}
    write_description(folder, settings, content["patients"])
    return True


def main(root: Path = ROOT) -> int:
    for description in sorted(root.glob("data/stores/*/*/store.json")):
        cohort = root / "data" / description.parents[1].name
        try:
            done = move(description, cohort)
        except (MixsupError, OSError, ValueError, KeyError) as error:
            print(f"{description.parent.relative_to(root)}: {error}")
            continue
        words = "ready" if done else "does not belong to this cohort any more; it will be prepared again"
        print(f"{description.parent.relative_to(root)}: {words}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
