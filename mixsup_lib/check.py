"""Every problem of a cohort in one pass: what `python -m mixsup_lib check-data FOLDER` prints."""

from __future__ import annotations

import gzip
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import combinations
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from nibabel import aff2axcodes
from tqdm.auto import tqdm

from mixsup_lib.cohort import Cohort, Patient, Problem, Volume
from mixsup_lib.datasets import find_cohort
from mixsup_lib.datasets.lgg_kaggle import FORMATS
from mixsup_lib.datasets.slice_labels import (
    FILE_NAME,
    NONE,
    SUBCLASSES,
    mask_presence,
    read_slice_labels,
    slice_faults,
    slice_presence,
    unexplained,
)
from mixsup_lib.files import DataError, nearest, printable, shown

HEADER_TEXTS = ("descrip", "aux_file", "intent_name", "db_name")
TIFF_TEXTS = {
    269: "DocumentName",
    270: "ImageDescription",
    285: "PageName",
    306: "DateTime",
    315: "Artist",
    316: "HostComputer",
    33432: "Copyright",
}
SOFTWARE = re.compile(
    r"(fsl|spm|ants?|itk|simpleitk|nibabel|nifti|mricron|mipav|freesurfer|afni|slicer|dcm2niix?|captk|python|matlab|te=)"
    r"[\w .:;=,()+-]*|[\d. v]{1,8}",
    re.IGNORECASE,
)
"""Texts that name a program, its version or an echo time: "FSL5.0", "5.0.10", "TE=4.3;Time=0"."""

YEAR_FIRST = re.compile(r"(?<!\d)(19|20)\d\d[-._]?(0[1-9]|1[0-2])[-._]?(0[1-9]|[12]\d|3[01])(?!\d)")
DAY_FIRST = re.compile(r"(?<!\d)(0?[1-9]|[12]\d|3[01])[-._](0?[1-9]|1[0-2])[-._](19|20)\d\d(?!\d)")
PUBLIC = re.compile(r"TCGA_\w{2}_\w{4}_\d{8}|W39_1998\.09\.19_Segm.*")
"""Names that a public data set itself gives, dates in them included."""


def identifying(patients: Iterable[Patient]) -> list[Problem]:
    """Warnings about what may identify people, one per text and place where it stands, with the first file that has it.

    Looks at headers and names alone; a file that cannot be read is left to the other checks.
    """
    first: dict[tuple[str, str], Problem] = {}
    counts: dict[tuple[str, str], int] = {}
    for patient in patients:
        for file, where, sentence in _findings(patient):
            key = where, sentence
            counts[key] = counts.get(key, 0) + 1
            first.setdefault(key, Problem(patient.id, file, sentence, "warning"))
    return [
        Problem(
            p.patient,
            p.file,
            p.problem + (f" (and {counts[key] - 1} more files)" if counts[key] > 1 else ""),
            "warning",
        )
        for key, p in first.items()
    ]


def _findings(patient: Patient) -> Iterator[tuple[str, str, str]]:
    """(file, where, sentence) for everything in the patient's name and files."""
    if fault := name_fault(patient.id):
        yield patient.place, patient.id, f"the patient's name {shown(patient.id)} {fault}; use a pseudonym."
    for path in (*patient.image_files, *patient.mask_files):
        file = patient.relative(path)
        own = path.name.removeprefix(patient.id)
        if fault := name_fault(own, words=False):
            yield file, own, f"the file's name {fault}; rename it."
        texts = _tiff_texts(path) if path.suffix.lower() in (".tif", ".tiff") else _nifti_texts(path)
        for where, text in texts:
            yield (
                file,
                where,
                f"{where} says {shown(text)}, which may identify a person; clear it before sharing.",
            )


def name_fault(name: str, *, words: bool = True) -> str | None:
    """Does a name hold a date, or read like a person's (words and no number)?"""
    if PUBLIC.fullmatch(name):
        return None
    if YEAR_FIRST.search(name) or DAY_FIRST.search(name):
        return "holds a date"
    parts = re.findall(r"[^\W\d_]{2,}", name)
    if words and ("^" in name or (len(parts) > 1 and not re.search(r"\d", name))):
        return "reads like a person's"
    return None


def _nifti_texts(path: Path) -> Iterator[tuple[str, str]]:
    """Texts of a NIfTI header, kinds of its extensions, and the name that gzip keeps of the file it packed."""
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as stream:
            header = nib.Nifti1Header.from_fileobj(stream)
        packed_as = _gzip_name(path) if path.suffix == ".gz" else ""
    except Exception:  # what makes it unreadable is told elsewhere
        return
    for name in HEADER_TEXTS:
        text = np.asarray(header[name]).tobytes().split(b"\0")[0].decode("latin-1").strip()
        if text and not SOFTWARE.fullmatch(text):
            yield f"header field {name}", text
    for extension in header.extensions:
        yield f"a header extension of type {extension.get_code()}", f"{extension.get_sizeondisk()} bytes"
    if (
        packed_as
        and packed_as not in (path.name, path.name.removesuffix(".gz"))
        and name_fault(packed_as, words=False)
    ):
        yield "the name kept by gzip", packed_as


def _gzip_name(path: Path) -> str:
    """FNAME of a gzip file, "" where it has none."""
    with open(path, "rb") as file:
        start = file.read(1024)
    if len(start) < 10 or not start[3] & 8:
        return ""
    at = 10 + (2 + int.from_bytes(start[10:12], "little") if start[3] & 4 else 0)
    return start[at : start.find(b"\0", at)].decode("latin-1")


def _tiff_texts(path: Path) -> Iterator[tuple[str, str]]:
    from PIL import Image

    try:
        with Image.open(path, formats=FORMATS) as image:
            tags = {name: image.tag_v2.get(number) for number, name in TIFF_TEXTS.items()}
    except Exception:  # what makes it unreadable is told elsewhere
        return
    for name, value in tags.items():
        text = str(value or "").strip("\0 ")
        if text and not SOFTWARE.fullmatch(text):
            yield f"TIFF tag {name}", text


COLUMNS = ["patient", "file", "severity", "problem"]


def check_cohort(folder: str | Path, *, progress: bool = False) -> pd.DataFrame:
    """All problems of the cohort in `folder`, one row each.

    Columns: patient, file (relative to the cohort folder), severity, problem (one sentence). An "error" makes the
    file unusable. A "warning" does not stop training: the data is odd (a sequence is a copy of another), says more
    about a person than it need, or a folder was passed over. A "note" tells a limit that is no fault. Opens every
    image and every mask, one patient at a time. Raises `SettingError` where there is no such folder.
    """
    try:
        cohort = find_cohort(folder, strict=False)
    except DataError as error:
        return _table([Problem("", str(folder), str(error).removeprefix(f"{folder}: "))])
    problems = list(cohort.problems)
    rows = read_slice_labels(cohort.folder, lambda file, text: problems.append(Problem("", file, text)))
    digests: dict[bytes, str] = {}
    axes: dict[Patient, str] = {}
    for patient in tqdm(cohort.patients, desc="check-data", unit="patient", disable=not progress):
        problems += _check_patient(patient, cohort, rows, digests, axes)
    problems += _check_axes(axes)
    problems += _check_rows(cohort, rows)
    problems += identifying(cohort.patients)
    return _table(problems)


def exit_code(problems: pd.DataFrame) -> int:
    """0 where the table holds nothing but notes, otherwise 1."""
    return int((problems["severity"] != "note").any())


def main(folder: str | Path) -> int:
    """Check a cohort, print the table and return the exit code."""
    problems = check_cohort(folder, progress=True)
    print(format_problems(problems))
    return exit_code(problems)


def format_problems(problems: pd.DataFrame) -> str:
    """The table as text, and a last line that counts."""
    shown = problems[["severity", "patient", "file", "problem"]].map(printable)
    widths = [max(shown[name].str.len().max(), len(name)) for name in shown] if len(shown) else []
    lines = [shown.columns, *shown.itertuples(index=False)] if len(shown) else []
    text = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    counts = shown["severity"].value_counts()
    total = ", ".join(f"{counts.get(name, 0)} {name}s" for name in ("error", "warning", "note"))
    return "\n".join([*text, f"{total}." if len(shown) else "No problem found."])


def _check_patient(
    patient: Patient,
    cohort: Cohort,
    rows: pd.DataFrame | None,
    digests: dict[bytes, str],
    axes: dict[Patient, str],
) -> list[Problem]:
    found: list[Problem] = []

    def report(file: str, sentence: str, severity: str = "error") -> None:
        found.append(Problem(patient.id, file, sentence, severity))

    volumes = patient.load_volumes(report)
    _check_copies(patient, volumes, digests, partial(report, severity="warning"))
    for volume in volumes.values():
        axes[patient] = "".join(aff2axcodes(volume.source_affine))
    n_slices = next((volume.array.shape[2] for volume in volumes.values()), None)
    del volumes
    labels = patient.load_labels(report) if patient.mask_files else None
    if labels is not None:
        n_slices = labels.shape[2]
    has_rows = rows is not None and (rows["patient"] == patient.id).any()
    if not has_rows and not patient.mask_files:
        sentence = f"has neither a mask nor a row in {FILE_NAME}; add one of them, or remove the patient."
        report(patient.place, sentence)
    elif rows is not None and not has_rows:
        report(FILE_NAME, "has no row for this patient, who cannot be weakly annotated; add one.", "warning")
    if has_rows and n_slices is not None:
        faults = slice_faults(rows, patient.id, n_slices)
        for sentence in faults or _contradictions(patient.id, labels, rows, cohort.tasks):
            report(FILE_NAME, sentence)
        for sentence in [] if faults else unexplained(rows, patient.id, n_slices, "multiclass"):
            report(FILE_NAME, sentence, "warning")
    return found


def _check_copies(patient: Patient, volumes: dict[str, Volume], digests: dict[bytes, str], warn) -> None:
    """A sequence that is a copy of another one, in the patient or in another patient."""
    copies = set()
    for first, second in combinations(volumes, 2):
        if second not in copies and np.array_equal(volumes[first].array, volumes[second].array):
            copies.add(second)
            warn(
                patient.place,
                f"sequence {second} is a copy of {first}; get the real one, or expect worse results.",
            )
    if patient.sequences[0] in volumes:
        content = np.ascontiguousarray(volumes[patient.sequences[0]].array)
        digest = hashlib.blake2b(content.data, digest_size=16).digest()
        other = digests.setdefault(digest, patient.place)
        if other != patient.place:
            sentence = f"has the same {patient.sequences[0]} image as {other}; keep one of the two."
            warn(patient.place, sentence)


def _check_axes(axes: dict[Patient, str]) -> Iterator[Problem]:
    """Patients whose files lie along other axes than those of most: right if stored so, else mirrored."""
    usual, count = Counter(axes.values()).most_common(1)[0] if axes else ("", 0)
    for patient, own in axes.items():
        if own != usual and 2 * count > len(axes):
            sentence = f"its axes run {own}, those of {count} others {usual}; if that is a mistake, correct the header."
            yield Problem(patient.id, patient.place, sentence, "note")


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
    written, shown = slice_presence(rows, patient_id, labels.shape[2]), mask_presence(labels)
    for name in compared:
        for here, there, what in (
            (shown, written, "the mask shows {} in slices {}, where no row has it"),
            (written, shown, "rows put {} in slices {}, where the mask shows none"),
        ):
            slices = np.flatnonzero(here[name] & ~there[name])
            if slices.size:
                yield f"{what.format(name, _ranges(slices))}; correct the rows or the mask."


def _check_rows(cohort: Cohort, rows: pd.DataFrame | None) -> list[Problem]:
    """Rows of patients that the cohort has not, and a note on those without a mask."""
    known = [patient.id for patient in cohort.patients]
    problems = []
    for name in [] if rows is None else sorted(set(rows["patient"]) - set(known)):
        sentence = f"names the patient {name}, whom the cohort has not; correct the ID.{nearest(name, known)}"
        problems.append(Problem(name, FILE_NAME, sentence))
    weak = sum(not patient.mask_files for patient in cohort.patients)
    if weak:
        sentence = f"{weak} of {len(known)} patients have no mask: they can only be weakly annotated."
        problems.append(Problem("", ".", sentence, "note"))
    return problems


def _ranges(slices: np.ndarray) -> str:
    runs = np.split(slices, np.flatnonzero(np.diff(slices) > 1) + 1)
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def _table(problems: list[Problem]) -> pd.DataFrame:
    rows = [(p.patient, p.file, p.severity, p.problem) for p in problems]
    frame = pd.DataFrame(rows, columns=COLUMNS, dtype=str)
    order = frame["severity"].map({"error": 0, "warning": 1, "note": 2})
    return frame.loc[order.sort_values(kind="stable").index].reset_index(drop=True)
