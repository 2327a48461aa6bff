"""Exercises of notebook 01: the side of a tumour, what the tumour does to mean and median, and slice labels by hand."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from mixsup_lib.datasets.slice_labels import FILE_NAME, read_slice_labels, slice_faults, slice_presence
from mixsup_lib.phantom import PhantomPatient, make_patient, patient_id
from mixsup_lib.teaching.exercises.exercise import RETURN, Exercise, Mistake, close

ANNOTATED_INDEX = 5
"""Number of the phantom that exercise 3 annotates, counted from 0."""

TOLERANCE = 6
"""Slices that a weak annotation may get wrong."""


@functools.cache
def _phantom(index: int) -> PhantomPatient:
    return make_patient(index)


def _scan(
    i: int, signs: tuple[int, int, int] = (-1, -1, 1), shift: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """A mask with tumour around first index `i` of 20, and the affine of a grid with these signs, centred on x = 0."""
    mask = np.zeros((20, 16, 12), np.uint8)
    mask[i - 1 : i + 2, 6:9, 3:8] = 1
    affine = np.diag([*(2.0 * sign for sign in signs), 1.0])
    affine[:3, 3] = -np.array(signs) * (np.array(mask.shape) - 1.0)
    affine[0, 3] += shift
    return mask, affine


def _head_first(mask: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same scan in a file whose first axis runs to the head."""
    return mask.transpose(2, 0, 1), affine[:, [2, 0, 1, 3]]


def _with_a_voxel_on_the_right() -> tuple[np.ndarray, np.ndarray]:
    mask, affine = _scan(13)
    mask[1, 1, 1] = 1
    return mask, affine


def _side(x: float) -> str:
    """NIfTI's x grows to the patient's right."""
    return "right" if x > 0 else "left"


def _centre(mask: np.ndarray) -> np.ndarray:
    return np.argwhere(mask).mean(axis=0)


exercise_1_1 = Exercise(
    right=lambda mask, affine: _side((affine @ [*_centre(mask), 1])[0]),
    cases={
        "Two tumours on opposite sides": (_scan(15), _scan(4)),
        "The same arrays in a file whose first axis runs to the right": (
            _scan(15, (1, -1, 1)),
            _scan(4, (1, -1, 1)),
        ),
        "A midline that is not the middle of the array": (_scan(8, shift=-9.0),),
        "A file whose first axis runs to the head": (_head_first(*_scan(15)),),
        "A tumour with one voxel on the other side": (_with_a_voxel_on_the_right(),),
    },
    attempt=lambda tumor_side, *scans: [tumor_side(*scan) for scan in scans],
    mistakes=(
        Mistake(
            lambda mask, affine: "unknown",
            'Your function returns {seen}, expected "left" or "right".',
            RETURN,
            when=lambda found, *_: next((repr(one) for one in found if one not in ("left", "right")), ""),
        ),
        Mistake(
            lambda mask, affine: "left",
            "Two tumours on opposite sides get the same answer.",
            "where the mask comes in.",
            when=lambda found, *_: len(found) == 2 and found[0] == found[1],
        ),
        Mistake(
            lambda mask, affine: _side(_centre(mask)[0] - 10),
            "Left and right are exchanged.",
            "the direction in which x grows in NIfTI's world: to the patient's right.",
        ),
        Mistake(
            lambda mask, affine: _side(10 - _centre(mask)[0]),
            "The same arrays get the same answer when the affine says that the first axis runs to the right.",
            "the section on orientation: an index alone does not tell the side, the affine has to turn it into mm.",
        ),
        Mistake(
            lambda mask, affine: _side(affine[0, 0] * (_centre(mask)[0] - (mask.shape[0] - 1) / 2)),
            "A tumour left of the midline is put on the other side where the midline is not the middle of the array.",
            "the last column of the affine: x = 0 is the midline, wherever the array ends.",
        ),
        Mistake(
            lambda mask, affine: _side(affine[0, 0] * _centre(mask)[0] + affine[0, 3]),
            "In a file whose first axis runs to the head, your function looks at the wrong axis.",
            "the whole matrix product: all three indices may contribute to x.",
        ),
        Mistake(
            lambda mask, affine: _side((affine @ [*np.argwhere(mask)[0], 1])[0]),
            "A tumour with one voxel on the other side is put there.",
            "the centre of the tumour: the mean over all its voxels.",
        ),
    ),
    praise="The affine decides, whatever the order and the direction of the axes on disk.",
)


def _volume() -> tuple[np.ndarray, np.ndarray]:
    """Air around voxels of 80 to 129, and a tumour of 300 in them."""
    volume = np.zeros((4, 5, 5), np.float32)
    volume[1:3] = np.arange(80, 130).reshape(2, 5, 5)
    tumor = np.zeros(volume.shape, bool)
    tumor[2, 3:] = True
    volume[tumor] = 300
    return volume, tumor


def _rises(volume: np.ndarray, some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Percent by which mean and median over some voxels are above those over others."""
    return np.array(
        [
            100 * (statistic(volume[some]) / statistic(volume[others]) - 1)
            for statistic in (np.mean, np.median)
        ]
    )


def _effect(volume: np.ndarray, tumor: np.ndarray) -> np.ndarray:
    return _rises(volume, volume != 0, (volume != 0) & ~tumor)


def _on_a_phantom(_: Any) -> str:
    patient = _phantom(1)
    effects = {
        name: _effect(volume, patient.labels > 0)
        for name, volume in zip(patient.sequences, patient.images.astype(float), strict=True)
    }
    numbers = ", ".join(f"{name} {mean:+.1f} and {median:+.1f} %" for name, (mean, median) in effects.items())
    less = [name for name, (mean, median) in effects.items() if abs(median) < abs(mean)]
    more = [name for name in effects if name not in less]
    return (
        f"On patient 002, effect on mean and median: {numbers}. The median moves less on {', '.join(less)}"
        + (f", not on {', '.join(more)}." if more else ".")
    )


exercise_1_2 = Exercise(
    right=_effect,
    cases={"A volume with a bright tumour": _volume()},
    same=functools.partial(close, tolerance=1e-3),
    mistakes=(
        Mistake(
            lambda volume, tumor: (0.0, 0.0),
            "Your function still returns 0 for both.",
            "the four numbers: mean and median, with and without.",
        ),
        Mistake(
            lambda volume, tumor: _rises(volume, volume == volume, ~tumor),
            "Of mean and median you get {found[0]:.1f} and {found[1]:.1f} %: the background is counted.",
            "which voxels count: the non-zero ones, `volume[head]`.",
            when=lambda found, wanted, volume, tumor: np.isclose(
                found[0], 100 * (volume.mean() / volume[~tumor].mean() - 1), rtol=1e-3
            ),
        ),
        Mistake(
            lambda volume, tumor: _effect(volume, tumor)[::-1],
            "Mean and median are exchanged.",
            "the order in which to return the two.",
        ),
        Mistake(
            lambda volume, tumor: _effect(volume, tumor) / 100,
            "Your numbers, {found[0]:.3f} and {found[1]:.3f}, are fractions.",
            "the unit: percent.",
        ),
        Mistake(
            lambda volume, tumor: _rises(volume, (volume != 0) & ~tumor, volume != 0),
            "Your numbers say how far the values *without* the tumour lie from those with it.",
            "what is compared with what: with the tumour, above without.",
            when=lambda found, wanted, *_: any(
                close(found, backwards, 1e-3) for backwards in (-wanted, 100 * (1 / (1 + wanted / 100) - 1))
            ),
        ),
        Mistake(
            lambda volume, tumor: _rises(volume, tumor, (volume != 0) & ~tumor),
            "You compare the tumour itself with the rest of the head.",
            "the first of the two numbers: all non-zero voxels, the tumour among them.",
        ),
    ),
    says="Of mean and median you get {found[0]:.2f} and {found[1]:.2f} %, expected other numbers.",
    look="100 * (with / without - 1), where `without` is taken over `head & ~tumor`.",
    praise=_on_a_phantom,
)


def _rows(text: str, patient: str = patient_id(ANNOTATED_INDEX)) -> str:
    return f"patient,class,first_z,last_z\n{patient},{text}\n"


def _annotation(rows: Any) -> Any:
    """What the text of a slice_labels.csv says of phantom 006, beside what its mask shows; no text as it is."""
    if not isinstance(rows, str):
        return repr(rows)
    patient, truth = (
        patient_id(ANNOTATED_INDEX),
        (_phantom(ANNOTATED_INDEX).labels > 0).any(axis=(0, 1)),
    )  # (Z,)
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / FILE_NAME).write_text(rows, encoding="utf-8")
        table = read_slice_labels(folder, lambda _, fault: faults.append(fault))
    found = {"text": faults[:1], "named": [], "classes": [], "numbers": [], "wrong": len(truth)}
    if faults:
        return found
    own = table[table["patient"] == patient]
    found |= {"named": sorted(table["patient"].unique()), "classes": sorted(set(own["class"]))}
    if found["classes"] != ["whole_tumor"]:
        return found
    found["numbers"] = slice_faults(own, patient, len(truth))[:1]
    if found["numbers"]:
        return found
    shown = slice_presence(own, patient, len(truth))["whole_tumor"].to_numpy()
    missed, extra = np.flatnonzero(truth & ~shown), np.flatnonzero(shown & ~truth)
    return found | {
        "wrong": len(missed) + len(extra),
        "upside down": np.count_nonzero(shown[::-1] != truth),
        "below": int((extra < np.flatnonzero(truth)[0]).sum()),
        "missed": len(missed),
        "extra": len(extra),
        "hit": np.count_nonzero(truth & shown),
        "slices": len(truth),
    }


exercise_1_3 = Exercise(
    right=_rows("whole_tumor,29,53"),
    cases={"Phantom 006": ()},
    attempt=_annotation,
    same=lambda found, wanted: found["wrong"] <= TOLERANCE,
    mistakes=(
        Mistake(
            28,
            "The answer is {found}, expected text.",
            "the stub: the header, below it your row.",
            when=lambda found, wanted: isinstance(found, str),
        ),
        Mistake(
            "patient,first_z,last_z\nBrats18_PHANTOM_006_1,28,54\n",
            "Your text: {found[text][0]}",
            "the form of a row: patient,class,first_z,last_z.",
            when=lambda found, wanted: found["text"],
        ),
        Mistake(
            "patient,class,first_z,last_z\n",
            "There is no row yet.",
            "the sheet above: the first and the last slice with tumour.",
            when=lambda found, wanted: not found["named"],
        ),
        Mistake(
            _rows("whole_tumor,28,54", patient="Brats18_PHANTOM_6_1"),
            f"No row is for {patient_id(ANNOTATED_INDEX)}, but for {{found[named][0]}}.",
            "the patient's ID, letter by letter.",
            when=lambda found, wanted: not found["classes"],
        ),
        Mistake(
            _rows("oedema,28,54"),
            "Your rows name the class {seen}.",
            "the class that the exercise asks for: whole_tumor, in that spelling.",
            when=lambda found, wanted: ", ".join(name for name in found["classes"] if name != "whole_tumor"),
        ),
        Mistake(
            _rows("whole_tumor,28,62"),
            "Your row: {found[numbers][0]}",
            "the numbers on the sheet: slices count 0 to 61.",
            when=lambda found, wanted: found["numbers"],
        ),
        Mistake(
            _rows("whole_tumor,7,33"),
            "{found[wrong]} slices are wrong; read from the other end, your numbers would fit better.",
            "where slice 0 is: at the neck, at the beginning of the sheet.",
            when=lambda found, wanted: found["upside down"] < found["wrong"],
        ),
        Mistake(
            _rows("whole_tumor,24,54"),
            "You begin {found[below]} slices too low.",
            "the bright spot in your lowest slices: does it hang together with the tumour above, or is it elsewhere?",
            when=lambda found, wanted: found["below"] >= 2,
        ),
        Mistake(
            _rows("whole_tumor,29,61"),
            "{found[extra]} slices are labelled tumour and show none.",
            "the end of your range: in which slice is the bright area last seen?",
            when=lambda found, wanted: found["extra"] > TOLERANCE,
        ),
    ),
    says="You miss {found[missed]} slices that show tumour.",
    look="the slices just outside your range, enlarged in the explorer: the tumour begins small.",
    praise=lambda found: (
        f"{found['hit']} of {found['hit'] + found['missed']} tumour slices found, {found['extra']} too many: "
        f"{found['wrong']} of {found['slices']} labels differ from the mask. Annotators differ most at the ends, where "
        "a tumour is small."
    ),
)
