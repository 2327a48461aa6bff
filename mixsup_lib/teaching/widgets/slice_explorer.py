"""The slice explorer: a slice of a patient with the outlines of mask and prediction, and where along the scan it lies.

`draw_slice` is the picture, `slice_explorer` the same with controls. Predictions are optional, and so are masks.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from mixsup_lib.cohort import Case
from mixsup_lib.evaluation import dice, region_mask, task_regions
from mixsup_lib.experiments.pictures import DASHED, contour_slice
from mixsup_lib.experiments.style import COLORS, described, new_figure, styled
from mixsup_lib.experiments.tables import region_name
from mixsup_lib.files import SettingError
from mixsup_lib.paper import INTENSITY_CONSTANT
from mixsup_lib.slices import foreground_mask
from mixsup_lib.teaching.figures.panels import head_box
from mixsup_lib.teaching.widgets.panel import panel

if TYPE_CHECKING:
    from ipywidgets import VBox
    from matplotlib.figure import Figure

NONE = "none"
WINDOW = (0, 200)
"""Grey values shown unless asked otherwise, in percent of the median of the head."""


class Scans:
    """Patients to look at, and the predictions for them; what takes a whole volume is computed once and kept.

    cases: patient -> `Case`, without `labels` if it is weakly annotated; predictions: arm ("standard", "mixed") ->
    patient -> label volume (X, Y, Z) on the case's own grid, as `evaluation.label_volume` returns it, a patient may be
    missing; regions: what can be outlined: the task's own region, or all three for "multiclass".
    """

    def __init__(
        self,
        cases: Mapping[str, Case],
        predictions: Mapping[str, Mapping[str, np.ndarray]] | None = None,
        *,
        task: str = "multiclass",
    ) -> None:
        self.cases, self.predictions = dict(cases), dict(predictions or {})
        self.task, self.regions = task, task_regions(task)
        self.grey_scale = functools.cache(self._grey_scale)
        self.mask = functools.cache(self._mask)
        self.box = functools.cache(self._box)

    def n_slices(self, patient: str) -> int:
        return self.cases[patient].images.shape[3]

    def fullest_slice(self, patient: str) -> int:
        """The slice with most tumour, or the middle one of a patient without a mask."""
        labels = self.cases[patient].labels
        if labels is None or not labels.any():
            return self.n_slices(patient) // 2
        return int(np.count_nonzero(labels, axis=(0, 1)).argmax())

    def _box(self, patient: str) -> tuple[slice, slice]:
        """Ranges along x and y with the head, the mask and the predictions, and a little around them."""
        case = self.cases[patient]
        volumes = [case.images[0], case.labels, *(named.get(patient) for named in self.predictions.values())]
        seen = np.any([(part != 0).any(axis=2) for part in volumes if part is not None], axis=0)  # (X, Y)
        return head_box(seen[..., None], margin=2)

    def _grey_scale(self, patient: str, sequence: str) -> float:
        """Factor that brings the median of the head to 100 (section 4.1)."""
        case = self.cases[patient]
        volume = case.images[case.sequences.index(sequence)]
        return float(INTENSITY_CONSTANT / np.median(volume[foreground_mask(volume)]))

    def _mask(self, patient: str, region: str, source: str) -> np.ndarray | None:
        """(X, Y, Z) bool of the region in the ground truth (source "truth") or a prediction; None if there is none."""
        truth = source == "truth"
        labels = self.cases[patient].labels if truth else self.predictions[source].get(patient)
        if labels is None:
            return None
        return region_mask(labels, region) if truth or self.task == "multiclass" else labels != 0


@styled
def draw_slice(
    scans: Scans,
    *,
    patient: str,
    z: int,
    sequence: str = "FLAIR",
    region: str = "whole_tumor",
    prediction: str = NONE,
    window: tuple[float, float] = WINDOW,
) -> Figure:
    """One axial slice with outlines, and beside it how much of the region each slice of the scan holds.

    z: slice, from 0 at the neck; region: of `scans.regions`, or "none"; prediction: which one is outlined too, of
    `scans.predictions`, or "none"; window: grey values shown black and white, in percent of the median of the head.

    Raises SettingError for a slice outside the scan and for an empty window.
    """
    case, last = scans.cases[patient], scans.n_slices(patient) - 1
    if not 0 <= z <= last:
        raise SettingError(f"{patient} has the slices 0 to {last}, but {z} is asked for.")
    if window[0] >= window[1]:
        raise SettingError(f"the window {window[0]} to {window[1]} is empty; its end must be the larger.")
    sources = () if region == NONE else ("truth",) if prediction == NONE else ("truth", prediction)
    asked = {name: scans.mask(patient, region, name) for name in sources}
    found = {name: mask for name, mask in asked.items() if mask is not None}
    place = (*scans.box(patient), z)
    image = case.images[case.sequences.index(sequence)][place].T * scans.grey_scale(patient, sequence)  # (H, W)
    shown = {name: mask[place].T for name, mask in found.items()}  # (H, W) each
    places = [(left, 0.12, width, 0.75) for left, width in ((0.01, 0.46), (0.56, 0.42))]
    figure, axes = new_figure(1, 2, width=3.9, height=4.2, places=places)
    picture, profile = axes[0]
    arm = {} if prediction == NONE else {"supervision": prediction}
    contour_slice(picture, image, shown.get("truth"), shown.get(prediction), **arm)
    picture.images[0].set_clim(*window)
    for x, side in ((0.03, "R"), (0.97, "L")):
        picture.text(x, 0.5, side, transform=picture.transAxes, ha="center", color="white", weight="bold")
    picture.set_title(f"{patient}\n{sequence}, slice {z}")
    size, unit = 1, "pixels"
    if case.voxel_size_mm is not None:
        size, unit = case.voxel_size_mm[0] * case.voxel_size_mm[1] / 100, "cm²"
    areas = {name: np.count_nonzero(mask, axis=(0, 1)) * size for name, mask in found.items()}  # (Z,) each
    for name, area in areas.items():
        if name == "truth":
            style = {"color": COLORS["truth"], "ec": "black", "label": "ground truth"}
            profile.fill_between(range(last + 1), area, **style)
        else:
            profile.plot(area, label=f"prediction, {name}", color=COLORS[name], ls=DASHED, lw=1.8)
    profile.axvline(z, color="black", lw=1, label="slice shown")
    profile.set(xlim=(-0.5, last + 0.5), xlabel="slice z (0 is the lowest)")
    if areas:
        profile.set(ylim=(0, None), ylabel=f"{region_name(region)} in the slice ({unit})")
        profile.legend(loc="upper left", fontsize=8, frameon=True, edgecolor="none", framealpha=0.9)
    else:
        text = "no outline chosen" if region == NONE else "no mask:\nweakly annotated"
        profile.set(ylim=(0, 1), yticks=[])
        profile.text(0.03, 0.97, text, transform=profile.transAxes, va="top")
    parts = []
    for name in asked:
        what = "ground truth" if name == "truth" else f"prediction, {name} supervision"
        if name in shown:
            parts.append(f"{what} {areas[name][z]:.3g} {unit}")
        else:
            parts.append("no mask (weakly annotated)" if name == "truth" else f"no {what}")
    if len(shown) == 2 and shown["truth"].any():
        parts.append(f"Dice in this slice {dice(shown[prediction], shown['truth']):.0f} %")
    findings = f"{region_name(region).capitalize()} in this slice: {', '.join(parts)}."
    words = f"{patient}, {sequence}, slice {z} of 0 to {last}, grey values {window[0]:g} to {window[1]:g} % of the "
    return described(figure, f"{words}median. {findings if asked else 'No outline.'}")


def slice_explorer(scans: Scans) -> VBox:
    """`draw_slice` with controls: patient, sequence, slice, region, prediction (where there are any), window.

    Choosing a patient goes to its slice with most tumour.
    """
    import ipywidgets as widgets

    first, choose = next(iter(scans.cases)), widgets.Dropdown
    slider = widgets.IntSlider(scans.fullest_slice(first), 0, scans.n_slices(first) - 1, description="slice")
    regions = [(region_name(name), name) for name in (*scans.regions, NONE)]
    controls = {
        "patient": choose(options=list(scans.cases), description="patient"),
        "sequence": choose(options=list(scans.cases[first].sequences), description="sequence"),
        "z": slider,
        "region": choose(options=regions, description="outline"),
        "window": widgets.IntRangeSlider(value=WINDOW, min=0, max=500, step=10, description="window (%)"),
    }
    if scans.predictions:
        controls["prediction"] = choose(options=[*scans.predictions, NONE], description="prediction")

    def fit_slider(change: dict) -> None:
        with slider.hold_trait_notifications():
            slider.max = scans.n_slices(change["new"]) - 1
            slider.value = scans.fullest_slice(change["new"])

    controls["patient"].observe(fit_slider, names="value")
    return panel(functools.partial(draw_slice, scans), controls)
