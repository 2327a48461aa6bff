"""Checks of notebook 01: the side of a tumour, what the tumour does to mean and median, and slice labels by hand."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from mixsup_lib.datasets.slice_labels import FILE_NAME, read_slice_labels, slice_faults, slice_presence
from mixsup_lib.phantom import PhantomPatient, make_patient, patient_id
from mixsup_lib.teaching.exercises.verdict import RETURN, as_array, call, check, expect

ANNOTATED_INDEX = 5
"""Number of the phantom that exercise 3 annotates, counted from 0."""

TOLERANCE = 6
"""Slices that a weak annotation may get wrong."""


@functools.cache
def _phantom(index: int) -> PhantomPatient:
    return make_patient(index)


def _scan(i: float, signs: tuple[int, int, int], shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """A mask with tumour around first index `i` of 20, and the affine of a grid with these signs, centred on x = 0."""
    mask = np.zeros((20, 16, 12), np.uint8)
    mask[int(i) - 1 : int(i) + 2, 6:9, 3:8] = 1
    affine = np.diag([*(2.0 * sign for sign in signs), 1.0])
    affine[:3, 3] = -np.array(signs) * (np.array(mask.shape) - 1.0)
    affine[0, 3] += shift
    return mask, affine


@check
def exercise_1_1(tumor_side: Any) -> str:
    """(mask, affine) of a file as it is on disk -> "left" or "right" of the patient."""

    def side(mask: np.ndarray, affine: np.ndarray) -> str:
        found = call(tumor_side, mask, affine)
        expect(
            isinstance(found, str) and found in ("left", "right"),
            f'Your function returns {found!r}, expected "left" or "right".',
            RETURN,
        )
        return found

    lps = [side(*_scan(i, (-1, -1, 1))) for i in (15, 4)]
    expect(lps[0] != lps[1], "Two tumours on opposite sides get the same answer.", "where the mask comes in.")
    expect(
        lps == ["left", "right"],
        "Left and right are exchanged.",
        "the direction in which x grows in NIfTI's world: to the patient's right.",
    )
    ras = [side(*_scan(i, (1, -1, 1))) for i in (15, 4)]
    expect(
        ras == ["right", "left"],
        "The same arrays get the same answer when the affine says that the first axis runs to the right.",
        "the section on orientation: an index alone does not tell the side, the affine has to turn it into mm.",
    )
    mask, affine = _scan(8, (-1, -1, 1), shift=-9.0)  # left of the midline, in the first half of the array
    expect(
        side(mask, affine) == "left",
        "A tumour left of the midline is taken for the other side where the midline is not the middle of the array.",
        "the last column of the affine: x = 0 is the midline, wherever the array ends.",
    )
    mask, affine = _scan(15, (-1, -1, 1))
    turned, swapped = mask.transpose(2, 0, 1), affine[:, [2, 0, 1, 3]]
    expect(
        side(turned, swapped) == "left",
        "In a file whose first axis runs to the head, your function looks at the wrong axis.",
        "the whole matrix product: all three indices may contribute to x.",
    )
    large, affine = np.zeros((20, 16, 12), np.uint8), _scan(10, (-1, -1, 1))[1]
    large[1, 1, 1], large[11:15, 5:12, 3:9] = 1, 1
    expect(
        side(large, affine) == "left",
        "A tumour with one voxel on the other side is put there.",
        "the centre of the tumour: the mean over all its voxels.",
    )
    return "The affine decides, whatever the order and the direction of the axes on disk."


@check
def exercise_1_2(effect_of_tumor: Any) -> str:
    """(volume, tumour) -> percent by which the tumour raises the mean and the median of the non-zero voxels."""
    volume = np.zeros((4, 5, 5), np.float32)
    volume[1:3] = np.arange(80, 130).reshape(2, 5, 5)
    tumor = np.zeros(volume.shape, bool)
    tumor[2, 3:] = True
    volume[tumor] = 300
    head = volume != 0
    right = np.array([_rise(statistic, volume, head, tumor) for statistic in (np.mean, np.median)])
    zeros = _rise(np.mean, volume, np.ones_like(head), tumor)
    backwards = 100 * (1 / (1 + right / 100) - 1)
    found = as_array(call(effect_of_tumor, volume, tumor), (2,))
    close = functools.partial(np.allclose, found, rtol=1e-3, atol=1e-3)
    expect(
        found.any(),
        "Your function still returns 0 for both.",
        "the four numbers: mean and median, with and without.",
    )
    expect(
        not np.isclose(found[0], zeros, rtol=1e-3),
        f"Of mean and median you get {found[0]:.1f} and {found[1]:.1f} %: the background is counted.",
        "which voxels count: the non-zero ones, `volume[head]`.",
    )
    expect(not close(right[::-1]), "Mean and median are exchanged.", "the order in which to return the two.")
    expect(
        not close(right / 100),
        f"Your numbers, {found[0]:.3f} and {found[1]:.3f}, are fractions.",
        "the unit: percent.",
    )
    expect(
        not close(backwards) and not close(-right),
        "Your numbers say how far the values *without* the tumour lie from those with it.",
        "what is compared with what: with the tumour, above without.",
    )
    alone = np.array([100 * (s(volume[tumor]) / s(volume[head & ~tumor]) - 1) for s in (np.mean, np.median)])
    expect(
        not close(alone),
        "You compare the tumour itself with the rest of the head.",
        "the first of the two numbers: all non-zero voxels, the tumour among them.",
    )
    expect(
        close(right),
        f"Of mean and median you get {found[0]:.2f} and {found[1]:.2f} %, expected other numbers.",
        "100 * (with / without - 1), where `without` is taken over `head & ~tumor`.",
    )
    return f"On patient 002, effect on mean and median: {_on_phantom()}"


@check
def exercise_1_3(rows: Any) -> str:
    """The text of a slice_labels.csv with the annotation of phantom 006."""
    patient = patient_id(ANNOTATED_INDEX)
    expect(
        isinstance(rows, str),
        f"The answer is {rows!r}, expected text.",
        "the stub: the header, below it your row.",
    )
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / FILE_NAME).write_text(rows, encoding="utf-8")
        table = read_slice_labels(folder, lambda _, fault: faults.append(fault))
    expect(
        not faults, f"Your text: {' '.join(faults[:1])}", "the form of a row: patient,class,first_z,last_z."
    )
    own = table[table["patient"] == patient]
    expect(len(table), "There is no row yet.", "the sheet above: the first and the last slice with tumour.")
    expect(
        len(own),
        f"No row is for {patient}, but for {table['patient'].iloc[0]}.",
        "the patient's ID, letter by letter.",
    )
    expect(
        set(own["class"]) == {"whole_tumor"},
        f"Your rows name the class {', '.join(sorted(set(own['class']) - {'whole_tumor'}))}.",
        "the class that the exercise asks for: whole_tumor, in that spelling.",
    )
    truth = (_phantom(ANNOTATED_INDEX).labels > 0).any(axis=(0, 1))  # (Z,)
    n_slices = len(truth)
    faults = slice_faults(own, patient, n_slices)
    expect(
        not faults,
        f"Your row: {' '.join(faults[:1])}",
        f"the numbers on the sheet: slices count 0 to {n_slices - 1}.",
    )
    shown = slice_presence(own, patient, n_slices)["whole_tumor"].to_numpy()
    missed, extra = np.flatnonzero(truth & ~shown), np.flatnonzero(shown & ~truth)
    wrong = len(missed) + len(extra)
    expect(
        np.count_nonzero(shown[::-1] != truth) >= wrong,
        f"{wrong} slices are wrong; read from the other end, your numbers would fit better.",
        "where slice 0 is: at the neck, at the beginning of the sheet.",
    )
    below = extra[extra < np.flatnonzero(truth)[0]]
    expect(
        len(below) < 2,
        f"You begin {len(below)} slices too low.",
        "the bright spot in your lowest slices: does it hang together with the tumour above, or is it elsewhere?",
    )
    expect(
        len(extra) <= TOLERANCE,
        f"{len(extra)} slices are labelled tumour and show none.",
        "the end of your range: in which slice is the bright area last seen?",
    )
    expect(
        wrong <= TOLERANCE,
        f"You miss {len(missed)} slices that show tumour.",
        "the slices just outside your range, enlarged in the explorer: the tumour begins small.",
    )
    return (
        f"{np.count_nonzero(truth & shown)} of {truth.sum()} tumour slices found, {len(extra)} too many: {wrong} of "
        f"{n_slices} labels differ from the mask. Annotators differ most at the ends, where a tumour is small."
    )


def _rise(statistic: Any, volume: np.ndarray, head: np.ndarray, tumor: np.ndarray) -> float:
    """Percent by which the statistic over the head is above that over the head without tumour."""
    return float(100 * (statistic(volume[head]) / statistic(volume[head & ~tumor]) - 1))


def _on_phantom() -> str:
    patient = _phantom(1)
    volumes, tumor = patient.images.astype(float), patient.labels > 0
    effects = {
        name: [_rise(statistic, volume, volume != 0, tumor) for statistic in (np.mean, np.median)]
        for name, volume in zip(patient.sequences, volumes, strict=True)
    }
    numbers = ", ".join(f"{name} {mean:+.1f} and {median:+.1f} %" for name, (mean, median) in effects.items())
    less = [name for name, (mean, median) in effects.items() if abs(median) < abs(mean)]
    more = [name for name in effects if name not in less]
    return f"{numbers}. The median moves less on {', '.join(less)}" + (
        f", not on {', '.join(more)}." if more else "."
    )
