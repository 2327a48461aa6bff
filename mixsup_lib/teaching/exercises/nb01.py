"""Exercises of notebook 01: the side of a tumour, what the tumour does to mean and median, and slice labels by hand."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import numpy as np

from mixsup_lib.datasets.slice_labels import FILE_NAME, read_slice_labels, slice_presence
from mixsup_lib.files import DataError
from mixsup_lib.phantom import make_patient, patient_id
from mixsup_lib.teaching.exercises.exercise import RETURN, Exercise, Mistake, close


def _scan(i: int, sign: int = -1, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """A mask, tumour around first index `i` of 20 and in one voxel, and the affine of a grid; `sign` is that of x."""
    mask = np.zeros((20, 16, 12), np.uint8)
    mask[i - 1 : i + 2, 6:9, 3:8] = mask[1, 1, 1] = 1
    affine = np.diag([2.0 * sign, -2.0, 2.0, 1.0])
    affine[0, 3] = shift - 19 * sign
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
        "The same arrays in a file whose first axis runs to the right": (_scan(15, 1), _scan(4, 1)),
        "A midline that is not the middle of the array": (_scan(8, shift=-9.0),),
        "A file whose first axis runs to the head": ((_scan(15)[0].transpose(2, 0, 1), _scan(15)[1][:, [2, 0, 1, 3]]),),
    },
    attempt=lambda tumor_side, *scans: [tumor_side(*scan) for scan in scans],
    mistakes=(
        Mistake(
            lambda *_: "unknown",
            'Your function returns {seen}, expected "left" or "right".',
            RETURN,
            when=lambda found, *_: next(repr(one) for one in found if one not in ("left", "right")),
        ),
        Mistake(lambda *_: "left", "Two tumours on opposite sides get the same answer.", "where the mask enters."),
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
    ),
    says="{case}: you return {found}, expected {wanted}.",
    look="the whole matrix product: all three indices and the last column of the affine contribute to x.",
    praise="The affine decides, whatever the order and the direction of the axes on disk.",
)


VOLUME = np.arange(-25.0, 75.0).clip(min=0).reshape(4, 5, 5)
"""Air below voxels of 1 to 74."""


def _rises(some: np.ndarray, others: np.ndarray) -> list[float]:
    """Percent by which mean and median of some voxels are above those of others."""
    return [100 * (statistic(some) / statistic(others) - 1) for statistic in (np.mean, np.median)]


def _effect(volume: np.ndarray, tumor: np.ndarray) -> list[float]:
    return _rises(volume[volume != 0], volume[(volume != 0) & ~tumor])


exercise_1_2 = Exercise(
    right=_effect,
    cases={"A volume with a bright tumour": (np.where(VOLUME > 64, 300, VOLUME), VOLUME > 64)},
    same=functools.partial(close, tolerance=1e-3),
    mistakes=(
        Mistake(
            lambda *_: (0.0, 0.0),
            "Your function still returns 0 for both.",
            "the four numbers: mean and median, with and without.",
        ),
        Mistake(
            lambda volume, tumor: _rises(volume, volume[~tumor]),
            "Of mean and median you get {found[0]:.1f} and {found[1]:.1f} %: the background is counted.",
            "which voxels count: the non-zero ones, `volume[head]`.",
        ),
        Mistake(
            lambda volume, tumor: [percent / 100 for percent in _effect(volume, tumor)],
            "Your numbers, {found[0]:.3f} and {found[1]:.3f}, are fractions.",
            "the unit: percent.",
        ),
        Mistake(
            lambda volume, tumor: _rises(volume[tumor], volume[(volume != 0) & ~tumor]),
            "You compare the tumour itself with the rest of the head.",
            "the first of the two numbers: all non-zero voxels, the tumour among them.",
        ),
    ),
    says="Of mean and median you get {found[0]:.2f} and {found[1]:.2f} %, expected other numbers.",
    look="100 * (with / without - 1), where `without` is taken over `head & ~tumor`.",
    praise="Now try every sequence of patient 002: does the median always move less than the mean?",
)


PATIENT = 5
"""Number of the phantom that exercise 3 annotates, counted from 0."""


@functools.cache
def _shows_tumor() -> np.ndarray:
    return (make_patient(PATIENT).labels > 0).any(axis=(0, 1))  # (Z,)


def _rows(text: str) -> str:
    return f"patient,class,first_z,last_z\n{patient_id(PATIENT)},{text}\n"


def _annotation(rows: str) -> dict[str, int]:
    """How the text of a slice_labels.csv fits the mask of phantom 006; empty for a text without a row."""

    def refuse(_: str, fault: str) -> None:
        raise DataError(fault)

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / FILE_NAME).write_text(rows, encoding="utf-8")
        table = read_slice_labels(folder, refuse)
    if table.empty:
        return {}
    if names := set(table["class"]) - {"whole_tumor"}:
        raise DataError(f"your rows name the class {', '.join(names)}, expected whole_tumor.")
    truth = _shows_tumor()
    shown = slice_presence(table, patient_id(PATIENT), len(truth))["whole_tumor"].to_numpy()
    extra = np.flatnonzero(shown & ~truth)
    return {
        "wrong": np.count_nonzero(shown != truth),
        "upside down": np.count_nonzero(shown[::-1] != truth),
        "below": int((extra < np.flatnonzero(truth)[0]).sum()),
        "extra": len(extra),
        "missed": np.count_nonzero(truth & ~shown),
        "slices": len(truth),
    }


exercise_1_3 = Exercise(
    right=_rows("whole_tumor,29,53"),
    cases={"Phantom 006": ()},
    attempt=_annotation,
    same=lambda found, wanted: found["wrong"] <= 6 and found["below"] < 2,
    mistakes=(
        Mistake(
            "patient,class,first_z,last_z\n",
            "There is no row yet.",
            "the sheet above: the first and the last slice with tumour.",
            when=lambda found, wanted: found == {},
        ),
        Mistake(
            _rows("whole_tumor,28,62"),
            "Your text: {found}",
            "the form of a row, patient,class,first_z,last_z: the ID letter by letter, slices from 0 to 61.",
            when=lambda found, wanted: isinstance(found, DataError),
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
    ),
    says="{found[missed]} slices that show tumour are missed, {found[extra]} are labelled and show none.",
    look="the slices just outside your range, enlarged in the explorer: the tumour begins small.",
    praise="{found[missed]} tumour slices missed, {found[extra]} too many: {found[wrong]} of {found[slices]} labels "
    "differ from the mask. Annotators differ most at the ends, where a tumour is small.",
)
