"""Tumours, and beside them what looks like tumour and is none."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mixsup_lib.phantom.anatomy import Anatomy, smooth_field
from mixsup_lib.phantom.settings import PhantomSettings


@dataclass(frozen=True)
class TumorPlan:
    """What is settled before a tumour grows: grade ("HGG" or "LGG"), radius in mm, volume share of the core."""

    grade: str
    radius_mm: float
    core_share: float

    @property
    def core_radius_mm(self) -> float:
        """Radius of the sphere that has the volume of the core, mm."""
        return self.radius_mm * self.core_share ** (1 / 3)


def plan_tumor(rng: np.random.Generator, settings: PhantomSettings) -> TumorPlan:
    """Draw a patient's tumour."""
    grade = "LGG" if rng.uniform() < settings.low_grade_share else "HGG"
    shares = settings.core_share_low_grade if grade == "LGG" else settings.core_share_high_grade
    smallest, largest = settings.tumor_radius_mm
    radius_mm = rng.uniform(smallest**3, largest**3) ** (1 / 3)
    return TumorPlan(grade, radius_mm, rng.uniform(*shares))


def grow_tumor(
    rng: np.random.Generator,
    anatomy: Anatomy,
    seat: tuple[int, int, int],
    plan: TumorPlan,
    voxel_mm: float,
    settings: PhantomSettings,
) -> np.ndarray:
    """(X, Y, Z) uint8 label map of the paper's classes: 1 non-enhancing, 2 oedema, 3 enhancing.

    Core and oedema are what a front reaches whose speed depends on the tissue: the core grows from voxel `seat` almost
    evenly, oedema from the core along the white matter. Fluid and the falx hold both up. Each ends at its volume.
    """
    from scipy import ndimage

    shape = anatomy.brain.shape
    reach = int(np.ceil(2.5 * plan.radius_mm / voxel_mm))
    box = tuple(slice(max(0, s - reach), min(n, s + reach + 1)) for s, n in zip(seat, shape, strict=True))
    core_noise, oedema_noise = (smooth_field(rng, shape, voxel_mm, 30.0)[box] for _ in range(2))
    rim_noise = smooth_field(rng, shape, voxel_mm, 14.0)[box]
    brain, tissue = anatomy.brain[box], anatomy.tissue[(slice(None), *box)]  # (x, y, z), (3, x, y, z)
    solid = brain & (tissue[2] < 0.5)
    falx = (np.abs(anatomy.template_mm[(0, *box)]) < voxel_mm) & (tissue[0] < 0.5)
    n_whole = 4 / 3 * np.pi * (plan.radius_mm / voxel_mm) ** 3  # voxels

    def arrival(
        speeds: tuple[float, float, float], noise: np.ndarray, start: np.ndarray, axes: np.ndarray
    ) -> np.ndarray:  # (x, y, z)
        speed = np.tensordot(np.array(speeds), tissue, axes=1)  # (x, y, z)
        speed[falx] = speeds[2]
        speed *= np.exp(settings.irregularity * noise)
        return _arrival_time(np.where(brain, speed, 0), start, axes)

    origin = np.array([[s - b.start for s, b in zip(seat, box, strict=True)]])  # (1, 3)
    axes = np.array(settings.axis_speed)
    time = arrival(settings.core_speed, core_noise, origin, axes * np.exp(rng.normal(0, 0.2, 3)))
    core = _smooth(_earliest(time, solid, n_whole * plan.core_share), voxel_mm) & solid
    core[tuple(origin[0])] = True
    time = arrival(settings.oedema_speed, oedema_noise, np.argwhere(core), axes)
    whole = _smooth(_earliest(time, solid | core, n_whole), voxel_mm) & solid | core

    labels = np.zeros(core.shape, np.uint8)
    labels[whole] = 2
    labels[core] = 1
    if plan.grade == "HGG":
        depth_mm = ndimage.distance_transform_edt(core) * voxel_mm
        rim_mm = rng.uniform(*settings.rim_mm) * (1 + 0.55 * rim_noise) + 0.5 * voxel_mm
        labels[core & (depth_mm <= rim_mm)] = 3
    elif rng.uniform() >= settings.no_enhancement_share:
        labels[_earliest(rim_noise, core, rng.uniform(0.03, 0.15) * core.sum())] = 3
    full = np.zeros(shape, np.uint8)
    full[box] = labels
    return full


def annotate(
    rng: np.random.Generator, tumor: np.ndarray, brain: np.ndarray, voxel_mm: float, settings: PhantomSettings
) -> np.ndarray:
    """(X, Y, Z) uint8 label map as an expert draws `tumor`: outlines stray smoothly by `settings.rater_mm`.

    Experts agree with each other at a Dice of 74 to 85 (section 1, from Menze et al., "The multimodal brain tumor image
    segmentation benchmark", IEEE TMI 2015), so no method scores 100 against one of them.
    """
    from scipy import ndimage

    if settings.rater_mm == 0:
        return tumor
    strays = [smooth_field(rng, tumor.shape, voxel_mm, settings.rater_length_mm) for _ in range(3)]
    at = np.indices(tumor.shape, np.float32) + np.float32(settings.rater_mm / voxel_mm) * np.stack(
        strays
    )  # (3, X, Y, Z)
    return ndimage.map_coordinates(tumor, at, order=0, mode="nearest") * brain


def hyperintensities(
    rng: np.random.Generator, anatomy: Anatomy, labels: np.ndarray, voxel_mm: float, settings: PhantomSettings
) -> np.ndarray:
    """(X, Y, Z) float32 visibility, 0 to 1, of white-matter hyperintensities; 0 inside the tumour."""
    visibility = np.zeros(labels.shape, np.float32)
    free = np.argwhere((anatomy.tissue[0] > 0.7) & (labels == 0))  # (N, 3)
    for seat in free[rng.integers(len(free), size=rng.poisson(settings.lesion_count))]:
        radius, strength = rng.uniform(*settings.lesion_radius_mm), rng.uniform(*settings.lesion_strength)
        stretch = np.exp(rng.normal(0, 0.3, 3))
        reach = int(np.ceil(2 * radius / voxel_mm)) + 1
        box = tuple(slice(max(0, s - reach), min(n, s + reach + 1)) for s, n in zip(seat, labels.shape, strict=True))
        offsets = zip(np.ogrid[box], seat, stretch, strict=True)
        distance = voxel_mm * np.sqrt(sum((stretch * (i - s)) ** 2 for i, s, stretch in offsets))  # (x, y, z), mm
        spot = strength / (1 + np.exp((distance - radius) / 0.8)) * anatomy.tissue[0][box]
        visibility[box] = np.maximum(visibility[box], spot)
    visibility[(labels > 0) | (visibility < 0.02)] = 0
    return visibility


def vessels(rng: np.random.Generator, anatomy: Anatomy, labels: np.ndarray, voxel_mm: float) -> np.ndarray:
    """(X, Y, Z) float32 share, 0 to 1, of vessel in a voxel; 0 inside the tumour.

    Two smooth noise fields cross zero together along curves: those in sulci and near the brain's surface are vessels,
    and so is the sagittal sinus.
    """
    first, second = (smooth_field(rng, labels.shape, voxel_mm, 15.0) for _ in range(2))
    width = max(voxel_mm, 1.5) / 15.0
    curve = np.exp(-(first**2 + second**2) / (2 * width**2))
    superficial = np.clip(1.2 - anatomy.depth / 15, 0, 1) * np.clip(2 * (1 - anatomy.tissue[0]), 0, 1)
    x, y, z = anatomy.template_mm
    sinus = np.exp(-((x / 4) ** 2) - (anatomy.depth / 5) ** 2) * ((z > 20) | ((y < -70) & (z > -10)))
    share = np.maximum(curve * superficial, 0.8 * sinus) * anatomy.brain
    share[(labels > 0) | (share < 0.05)] = 0
    return share.astype(np.float32)


def _arrival_time(speed: np.ndarray, start: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """(x, y, z) time at which a front from voxels `start` (N, 3) arrives: inf where `speed` (x, y, z) is 0 all around.

    `axes` (3,) are factors on the speed along x, y and z.
    """
    from skimage.graph import MCP_Geometric

    cost = np.where(speed > 0, 1 / np.maximum(speed, 1e-3), -1)
    return MCP_Geometric(cost, sampling=tuple(1 / axes)).find_costs(start)[0]


def _earliest(time: np.ndarray, where: np.ndarray, count: float) -> np.ndarray:
    """Mask of the `count` lowest values of `time` inside the mask `where`."""
    allowed = np.where(where, time, np.inf)
    last = int(np.clip(round(count), 1, np.isfinite(allowed).sum())) - 1
    return allowed <= np.partition(allowed, last, axis=None)[last]


def _smooth(mask: np.ndarray, voxel_mm: float) -> np.ndarray:
    """`mask` (x, y, z) with its border smoothed over about 2 mm."""
    from scipy import ndimage

    return ndimage.gaussian_filter(mask.astype(np.float32), 1.8 / voxel_mm) > 0.5
