"""What files say about a person beside the image: header texts, extensions, TIFF tags, names of patients.

Only what looks harmless is passed over (names of software), as no program recognises every name. Nothing is changed.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np

from mixsup_lib.cohort import Patient, Problem
from mixsup_lib.errors import shown
from mixsup_lib.layouts.lgg_kaggle import FORMATS

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
