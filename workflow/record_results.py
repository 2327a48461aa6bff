"""Record finished runs so that others can read them without training.

    python workflow/record_results.py RUNS NAME [--folders]

Writes data/results/NAME.csv (a row per run, test patient and region, with its provenance), the comparison table between
the markers `results:NAME` of REPRODUCTION.md, and docs/NAME.png, patient by patient. `--folders` (phantoms only, as
examples show slices) also copies what notebook 09 reads of each run folder to data/results/runs.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from mixsup_lib import plots, results
from mixsup_lib.files import atomic_path, write_text

RESULTS, PICTURES = Path("data/results"), Path("docs")
LIGHT = ("config.json", "metrics.json", "provenance.json", "per_patient.csv", "history.csv", "examples.npz")
EVERY = 5
"""Recorded histories keep one iteration in five, the mean of the five."""


def record_folder(folder: Path, runs: Path) -> None:
    target = RESULTS / "runs" / folder.relative_to(runs)
    target.mkdir(parents=True, exist_ok=True)
    for name in LIGHT:
        shutil.copyfile(folder / name, target / name)
    history = results.read_history(folder)
    thinned = history.groupby((history["iteration"] - 1) // EVERY).mean()
    thinned["iteration"] = history["iteration"].groupby((history["iteration"] - 1) // EVERY).last()
    thinned.to_csv(target / "history.csv", index=False, float_format="%.5g")


def record_table(name: str, text: str) -> None:
    path = Path("REPRODUCTION.md")
    start, end = f"<!-- results:{name} -->", f"<!-- /results:{name} -->"
    before, _, rest = path.read_text(encoding="utf-8").partition(start)
    _, _, after = rest.partition(end)
    write_text(path, f"{before}{start}\n\n{text}\n\n{end}{after}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path)
    parser.add_argument("name")
    parser.add_argument("--folders", action="store_true")
    call = parser.parse_args()
    frame = results.collect(call.runs)
    with atomic_path(RESULTS / f"{call.name}.csv") as temporary:
        frame.drop(columns="folder").to_csv(temporary, index=False, float_format="%.4f")
    if call.folders:
        for folder in sorted(set(frame["folder"])):
            record_folder(Path(folder), call.runs)
    caption = results.caption(frame["cohort"].iloc[0])
    pairs = results.pairs(frame)
    title = f"{caption}; {pairs['n_fa'].iloc[0]} FA + {pairs['n_wa'].iloc[0]} WA"
    figure = plots.paired_dots(pairs, title=title)
    PICTURES.mkdir(exist_ok=True)
    with atomic_path(PICTURES / f"{call.name}.png") as temporary:
        figure.savefig(temporary, dpi=110, bbox_inches="tight")
    print(plots.alt_text(figure))
    table = results.to_markdown(results.comparison_table(frame))
    record_table(call.name, f"{caption}\n\n{table}")


if __name__ == "__main__":
    main()
