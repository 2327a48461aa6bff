"""Is this cohort ready? Every problem in one pass: what `python -m mixsup_lib check-data FOLDER` prints."""

from __future__ import annotations

import gzip
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

from mixsup_lib.cohort import Cohort, Patient, Problem, Volume
from mixsup_lib.datasets import find_cohort
from mixsup_lib.datasets.own import DRAFT_NAME, FILE_NAME as COHORT_FILE, draft
from mixsup_lib.datasets.reading import UnknownLayoutError
from mixsup_lib.datasets.slice_labels import (
    FILE_NAME,
    NONE,
    SUBCLASSES,
    derive_rows,
    mask_presence,
    read_slice_labels,
    slice_faults,
    slice_presence,
    unexplained,
)
from mixsup_lib.files import DataError, nearest, printable, shown, write_text
from mixsup_lib.slices import foreground_mask, scale_fault

COLUMNS = ["patient", "file", "severity", "problem"]


def main(folder: str | Path) -> int:
    """Check a cohort and print what it holds and what is wrong with it.

    For a folder of NIfTI files in no known layout, a draft of the cohort.yaml that describes it is written there.
    Returns the exit code: 0 where there is nothing but notes, otherwise 1.
    """
    problems, seen = _check(folder, progress=True)
    print("\n".join([*seen, format_problems(problems)]))
    return int((problems["severity"] != "note").any())


def check_cohort(folder: str | Path, *, progress: bool = False) -> pd.DataFrame:
    """All problems of the cohort in `folder`, one row each, errors first.

    Columns: patient, file (relative to the cohort folder), severity, problem (one sentence). An "error" makes the
    file unusable. A "warning" does not stop training: the data is odd (a sequence is a copy of another), says more
    about a person than it need, or a folder was passed over. A "note" tells a limit that is no fault. Opens every
    image and every mask, one patient at a time. Raises `SettingError` where there is no such folder.
    """
    return _check(folder, progress)[0]


@dataclass
class Seen:
    """What the patients of a cohort are compared by, and what its description tells."""

    digests: dict[bytes, str] = field(default_factory=dict)
    axes: dict[Patient, str] = field(default_factory=dict)
    sizes: Counter = field(default_factory=Counter)
    classes: set[int] = field(default_factory=set)
    first_rows: pd.DataFrame | None = None


def _check(folder: str | Path, progress: bool) -> tuple[pd.DataFrame, list[str]]:
    """The problems, and lines that say what the cohort holds."""
    from tqdm.auto import tqdm

    try:
        cohort = find_cohort(folder, strict=False)
    except UnknownLayoutError as error:
        return _table([Problem("", str(error.folder), error.sentence)]), _write_draft(error.folder)
    except DataError as error:
        return _table([Problem("", str(folder), str(error).removeprefix(f"{folder}: "))]), []
    problems = list(cohort.problems)
    rows = read_slice_labels(cohort.folder, lambda file, text: problems.append(Problem("", file, text)))
    seen = Seen()
    for patient in tqdm(cohort.patients, desc="check-data", unit="patient", disable=not progress):
        problems += _check_patient(patient, cohort, rows, seen)
    problems += _check_axes(seen.axes)
    problems += _check_values(cohort, seen.classes)
    table_at_fault = rows is None and any(problem.file == FILE_NAME for problem in problems)
    problems += [] if table_at_fault else _check_rows(cohort, rows)
    problems += identifying(cohort.patients)
    return _table(problems), _description(cohort, rows, seen)


def _write_draft(folder: Path) -> list[str]:
    """Write the draft of a cohort.yaml into a folder of unknown layout; lines that say so, none without scans."""
    text, path = draft(folder), folder / DRAFT_NAME
    if text is None:
        return []
    if path.exists():
        return [f"{path} is there already; fill it in and rename it to {COHORT_FILE}, or delete it for a new one."]
    try:
        write_text(path, text)
    except OSError:
        return [f"{folder} cannot be written; save this there as {COHORT_FILE} and fill it in:", text]
    return [
        f"{path} is a draft that describes these files. Look through it, fill it in and rename it to {COHORT_FILE}."
    ]


def _description(cohort: Cohort, rows: pd.DataFrame | None, seen: Seen) -> list[str]:
    """What the cohort holds, a line each."""
    masks = sum(bool(patient.mask_files) for patient in cohort.patients)
    limits = cohort.patients[0].intensity_range if cohort.patients else None
    scale = (
        "divided by the median of the head" if limits is None else f"as they are from {limits[0]:g} to {limits[1]:g}"
    )
    (size, count), *other = seen.sizes.most_common() or [("not known", 0)]
    in_doubt = _in_doubt(cohort, seen.classes)
    values = ", ".join(
        f"{label.value} {label.name}" + ("" if label.meaning in seen.classes else " (in no mask)")
        for label in cohort.labels.values
    )
    lines = {
        "folder": cohort.folder,
        "layout": cohort.layout,
        "patients": f"{len(cohort.patients)}, {masks} of them with a mask",
        "sequences": f"{', '.join(cohort.sequences)}; intensities {scale}",
        "size": size + (f" ({count} patients; {len(other)} other sizes)" if other else ""),
        "labels": values,
        "tasks": "whole_tumor" if in_doubt else ", ".join(cohort.tasks),
    }
    first = seen.first_rows if rows is None else rows
    source = "from the masks" if rows is None else FILE_NAME
    if first is not None and len(first):
        row = first.iloc[0]
        slices = "" if row["class"] == NONE else f" in slices {row['first_z']} to {row['last_z']}, counted from 0"
        name = "whole_tumor" if in_doubt and rows is None and row["class"] != NONE else row["class"]
        lines["slice labels"] = f"{source}; the first says {row['patient']}: {name}{slices}"
    return [printable(f"{name:14s}{value}") for name, value in lines.items()]


def _in_doubt(cohort: Cohort, classes: set[int]) -> bool:
    """Do all masks hold one value of several, so that it may well be the outline of the whole tumour?"""
    return len(classes) == 1 and len(cohort.labels.values) > 1 and not cohort.labels.stated


def _check_values(cohort: Cohort, classes: set[int]) -> Iterator[Problem]:
    """A warning where nobody says what the one value in all masks means."""
    if _in_doubt(cohort, classes):
        value = next(label for label in cohort.labels.values if label.meaning in classes)
        sentence = (
            f"all masks hold the single value {value.value}. Only whole_tumor can be asked of them, unless "
            f"{COHORT_FILE} says what it means, for example `labels: {{{value.value}: {value.name}}}` (data/README.md)."
        )
        yield Problem("", ".", sentence, "warning")


def format_problems(problems: pd.DataFrame) -> str:
    """The table as text, and a last line that counts."""
    if problems.empty:
        return "No problem found."
    cells = problems[["severity", "patient", "file", "problem"]].map(printable)
    widths = [max(cells[name].str.len().max(), len(name)) for name in cells]
    lines = [cells.columns, *cells.itertuples(index=False)]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    counts = cells["severity"].value_counts()
    kinds = {name: counts.get(name, 0) for name in ("error", "warning", "note")}
    total = ", ".join(f"{count} {name}{'' if count == 1 else 's'}" for name, count in kinds.items())
    return "\n".join([*text, f"{total}."])


def _check_patient(patient: Patient, cohort: Cohort, rows: pd.DataFrame | None, seen: Seen) -> list[Problem]:
    """What is wrong with one patient; adds what it shows to `seen`."""
    found: list[Problem] = []

    def report(file: str, sentence: str, severity: str = "error") -> None:
        found.append(Problem(patient.id, file, sentence, severity))

    warn = partial(report, severity="warning")
    volumes = patient.load_volumes(report)
    _check_copies(patient, volumes, seen.digests, warn)
    for name, volume in volumes.items():
        if patient.intensity_range is None and (fault := scale_fault(volume.array, foreground_mask(volume.array))):
            report(patient.place, f"sequence {name} {fault}.")
    for volume in volumes.values():
        seen.axes[patient] = "".join(nib.aff2axcodes(volume.source_affine))
    n_slices = next((volume.array.shape[2] for volume in volumes.values()), None)
    if volumes:
        seen.sizes[_size(next(iter(volumes.values())))] += 1
    del volumes
    labels = patient.load_labels(report) if patient.mask_files else None
    if labels is not None:
        n_slices = labels.shape[2]
        seen.classes |= set(np.unique(labels).tolist()) - {0}
        if seen.first_rows is None:
            seen.first_rows = derive_rows(patient.id, labels, cohort.tasks)
    has_rows = rows is not None and (rows["patient"] == patient.id).any()
    if rows is not None and not has_rows and patient.mask_files:
        warn(FILE_NAME, "has no row for this patient, who cannot be weakly annotated; add one.")
    if has_rows and n_slices is not None:
        faults = slice_faults(rows, patient.id, n_slices)
        for sentence in faults or _contradictions(patient.id, labels, rows, cohort.tasks):
            report(FILE_NAME, sentence)
        for sentence in [] if faults else unexplained(rows, patient.id, n_slices, "multiclass"):
            warn(FILE_NAME, sentence)
    return found


def _size(volume: Volume) -> str:
    """Voxels along x, y and z, and the size of one."""
    voxels = "x".join(map(str, volume.array.shape))
    return f"{voxels} voxels" + (f" of {_mm(volume.voxel_size_mm)} mm" if volume.voxel_size_mm else ", no spacing")


def _mm(lengths: Sequence[float]) -> str:
    return "x".join(f"{length:.3g}" for length in lengths)


def _check_copies(patient: Patient, volumes: dict[str, Volume], digests: dict[bytes, str], warn) -> None:
    """A sequence that is a copy of another one, in the patient or in another patient."""
    copies = set()
    for first, second in combinations(volumes, 2):
        if second not in copies and np.array_equal(volumes[first].array, volumes[second].array):
            copies.add(second)
            sentence = f"sequence {second} is a copy of {first}; get the real one, or expect worse results."
            warn(patient.place, sentence)
    if patient.sequences[0] in volumes:
        content = np.ascontiguousarray(volumes[patient.sequences[0]].array)
        digest = hashlib.blake2b(content.data, digest_size=16).digest()
        other = digests.setdefault(digest, patient.place)
        if other != patient.place:
            sentence = f"has the same {patient.sequences[0]} image as {other}; keep one of the two."
            warn(patient.place, sentence)


def _contradictions(
    patient_id: str, labels: np.ndarray | None, rows: pd.DataFrame, tasks: tuple[str, ...]
) -> Iterator[str]:
    """Slices whose rows in slice_labels.csv and whose mask disagree, for the classes that the file uses."""
    if labels is None:
        return
    used = set(rows["class"]) - {NONE}
    compared = SUBCLASSES if used <= set(SUBCLASSES) else sorted(used)
    if "multiclass" not in tasks:
        compared = [task for task in tasks if task in used or not used]
    written, there = slice_presence(rows, patient_id, labels.shape[2]), mask_presence(labels)
    for name in compared:
        for here, not_here, what in (
            (there, written, "the mask shows {} in slices {}, where no row has it"),
            (written, there, "rows put {} in slices {}, where the mask shows none"),
        ):
            slices = np.flatnonzero(here[name] & ~not_here[name])
            if slices.size:
                runs = np.split(slices, np.flatnonzero(np.diff(slices) > 1) + 1)
                text = ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)
                yield f"{what.format(name, text)}; correct the rows or the mask."


def _check_axes(axes: dict[Patient, str]) -> Iterator[Problem]:
    """Patients whose files lie along other axes than those of most: right if stored so, else mirrored."""
    usual, count = Counter(axes.values()).most_common(1)[0] if axes else ("", 0)
    for patient, own in axes.items():
        if own != usual and 2 * count > len(axes):
            sentence = f"its axes run {own}, those of {count} others {usual}; if that is a mistake, correct the header."
            yield Problem(patient.id, patient.place, sentence, "note")


def _check_rows(cohort: Cohort, rows: pd.DataFrame | None) -> Iterator[Problem]:
    """Patients without any label, rows of patients that the cohort has not, and a note on those without a mask."""
    known = [patient.id for patient in cohort.patients]
    with_rows = set() if rows is None else set(rows["patient"])
    bare = [patient for patient in cohort.patients if not patient.mask_files and patient.id not in with_rows]
    if bare:
        more = f" (and {len(bare) - 1} more patients)" if len(bare) > 1 else ""
        sentence = f"has neither a mask nor a row in {FILE_NAME}; add one of them, or remove the patient{more}."
        yield Problem(bare[0].id, bare[0].place, sentence)
    for name in sorted(with_rows - set(known)):
        sentence = f"names the patient {name}, whom the cohort has not; correct the ID.{nearest(name, known)}"
        yield Problem(name, FILE_NAME, sentence)
    weak = sum(not patient.mask_files for patient in cohort.patients)
    if weak:
        sentence = f"{weak} of {len(known)} patients have no mask: they can only be weakly annotated."
        yield Problem("", ".", sentence, "note")


def _table(problems: list[Problem]) -> pd.DataFrame:
    rows = [(p.patient, p.file, p.severity, p.problem) for p in problems]
    frame = pd.DataFrame(rows, columns=COLUMNS, dtype=str)
    order = frame["severity"].map({"error": 0, "warning": 1, "note": 2})
    return frame.loc[order.sort_values(kind="stable").index].reset_index(drop=True)


HEADER_TEXTS = ("descrip", "aux_file", "intent_name", "db_name")
SOFTWARE = re.compile(
    r"(fsl|spm|ants?|itk|simpleitk|nibabel|nifti|mricron|mipav|freesurfer|afni|slicer|dcm2niix?|captk|python|matlab|te=)"
    r"[\w .:;=,()+-]*|[\d. v]{1,8}",
    re.IGNORECASE,
)
"""Texts that name a program, its version or an echo time: "FSL5.0", "5.0.10", "TE=4.3;Time=0"."""

DATE = re.compile(
    r"(?<!\d)(19|20)\d\d[-._]?(0[1-9]|1[0-2])[-._]?(0[1-9]|[12]\d|3[01])(?!\d)"
    r"|(?<!\d)(0?[1-9]|[12]\d|3[01])[-._](0?[1-9]|1[0-2])[-._](19|20)\d\d(?!\d)"
)
PUBLIC = re.compile(r"TCGA_\w{2}_\w{4}_\d{8}|W39_1998\.09\.19_Segm.*")
"""Names that a public data set itself gives, dates in them included."""


def identifying(patients: Iterable[Patient]) -> list[Problem]:
    """Warnings about what may identify a person: names with a date or of a person, and texts in NIfTI headers.

    Each is told once, with the first file that has it. It is no proof that there is nothing else.
    """
    found: dict[tuple[str, str], list[Problem]] = {}
    for patient in patients:
        for file, where, sentence in _personal(patient):
            found.setdefault((where, sentence), []).append(Problem(patient.id, file, sentence, "warning"))
    return [
        Problem(
            first.patient, first.file, first.problem + (f" (and {len(more)} more files)" if more else ""), "warning"
        )
        for first, *more in found.values()
    ]


def _personal(patient: Patient) -> Iterator[tuple[str, str, str]]:
    """(file, where, sentence) for everything in a patient's name and files."""
    if not PUBLIC.fullmatch(patient.id):
        parts = re.findall(r"[^\W\d_]{2,}", patient.id)
        a_person = "^" in patient.id or (len(parts) > 1 and not re.search(r"\d", patient.id))
        fault = "holds a date" if DATE.search(patient.id) else "reads like a person's" if a_person else None
        if fault:
            yield (patient.place, patient.id, f"the patient's name {shown(patient.id)} {fault}; use a pseudonym.")
    for path in (*patient.image_files, *patient.mask_files):
        file, own = patient.relative(path), path.name.removeprefix(patient.id)
        if DATE.search(own) and not PUBLIC.fullmatch(own):
            yield file, own, "the file's name holds a date; rename it."
        for where, text in _header_texts(path):
            sentence = f"{where} says {shown(text)}, which may identify a person; clear it before sharing."
            yield file, where, sentence


def _header_texts(path: Path) -> Iterator[tuple[str, str]]:
    """The texts of a NIfTI header that name no program, and the sizes of its extensions."""
    try:
        with (gzip.open if path.suffix.lower() == ".gz" else open)(path, "rb") as stream:
            header = nib.Nifti1Header.from_fileobj(stream)
    except Exception:  # no NIfTI file, or a damaged one, which is told elsewhere
        return
    for name in HEADER_TEXTS:
        text = np.asarray(header[name]).tobytes().split(b"\0")[0].decode("latin-1").strip()
        if text and not SOFTWARE.fullmatch(text):
            yield f"header field {name}", text
    for extension in header.extensions:
        yield f"a header extension of type {extension.get_code()}", f"{extension.get_sizeondisk()} bytes"
