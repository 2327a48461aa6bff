"""Anatomy of a phantom: the MNI152 tissue maps, deformed into a new head on the BraTS grid."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from mixsup_lib.files import SettingError
from mixsup_lib.phantom.settings import PhantomSettings

FIELD_OF_VIEW_MM = (240.0, 240.0, 155.0)
"""Extent of the BraTS grid: 240 x 240 x 155 voxels of 1 mm."""

BRAIN_CENTRE_MM = np.array([0.0, -17.0, 4.0])
"""Centre of the template's brain in MNI coordinates (RAS, mm); the grid is centred there."""

SHARPENING = 1.5
"""Exponent on the tissue shares: the average of 152 heads is softer than one head."""


@dataclass(frozen=True)
class Template:
    """MNI152 maps at one resolution.

    maps: (X, Y, Z) float32 each: "grey", "white", "brain" (0 to 1) and "depth" (mm below the brain's surface).
    spacing, origin: voxel index i lies at MNI coordinate origin + spacing * i (RAS, mm). seats: (N, 3) MNI
    coordinates where a tumour may start: white matter of the cerebrum, away from the brain's surface.
    """

    maps: dict[str, np.ndarray]
    spacing: float
    origin: np.ndarray
    seats: np.ndarray


@dataclass(frozen=True)
class Anatomy:
    """Tissue of one head.

    tissue: (3, X, Y, Z) float32 shares of white matter, grey matter and fluid (sum 1 inside the brain, 0 outside).
    brain: (X, Y, Z) bool. depth: (X, Y, Z) mm below the brain's surface. template_mm: (3, X, Y, Z) MNI coordinates.
    """

    tissue: np.ndarray
    brain: np.ndarray
    depth: np.ndarray
    template_mm: np.ndarray


def grid_shape(voxel_mm: float) -> tuple[int, int, int]:
    """Size of the BraTS grid: 240 x 240 x 155 at 1 mm, 96 x 96 x 62 at 2.5 mm. Raises SettingError outside 1-6 mm."""
    if isinstance(voxel_mm, bool) or not isinstance(voxel_mm, int | float) or not 1 <= voxel_mm <= 6:
        raise SettingError(f"The phantom's voxel_mm is {voxel_mm!r}, but needs a number from 1 to 6 (mm).")
    x, y, z = (round(extent / voxel_mm) for extent in FIELD_OF_VIEW_MM)
    return x, y, z


def grid_affine(voxel_mm: float) -> np.ndarray:
    """(4, 4) voxel index -> RAS mm of the BraTS axes: x to the patient's left, y to posterior, z to the head."""
    step = np.array([-voxel_mm, -voxel_mm, voxel_mm])
    affine = np.diag([*step, 1.0])
    affine[:3, 3] = BRAIN_CENTRE_MM - step * (np.array(grid_shape(voxel_mm)) - 1) / 2
    return affine


def template_for(voxel_mm: float) -> Template:
    """The template for a grid of `voxel_mm`, loaded once per process."""
    return _load_template(1 if voxel_mm < 2 else 2)


@lru_cache(maxsize=2)
def _load_template(spacing: int) -> Template:
    """The maps that ship inside the nilearn package, averaged over blocks of `spacing` mm; nothing is downloaded.

    Source: ICBM 2009a, Fonov et al., "Unbiased average age-appropriate atlases for pediatric studies", NeuroImage
    54 (2011).
    """
    from nilearn import datasets
    from scipy import ndimage

    t1_image = datasets.load_mni152_template(resolution=1)
    t1 = t1_image.get_fdata(dtype=np.float32)
    grey = np.clip(datasets.load_mni152_gm_template(resolution=1).get_fdata(dtype=np.float32), 0, 1)
    white = np.clip(datasets.load_mni152_wm_template(resolution=1).get_fdata(dtype=np.float32), 0, 1)
    brain = ((t1 > 0.2) | (grey + white > 0.5)).astype(np.float32)
    origin = t1_image.affine[:3, 3]

    def maps_at(size: int) -> dict[str, np.ndarray]:
        means = {n: _block_mean(v, size) for n, v in (("grey", grey), ("white", white), ("brain", brain))}
        closed = ndimage.binary_closing(means["brain"] > 0.5, iterations=4 // size)
        means["brain"] = ndimage.binary_fill_holes(closed).astype(np.float32)
        means["depth"] = ndimage.distance_transform_edt(means["brain"]).astype(np.float32) * size
        return means

    coarse = maps_at(2)  # seats are the same at every resolution
    seats = np.argwhere((coarse["white"] > 0.6) & (coarse["depth"] > 10)) * 2.0 + origin + 0.5  # (N, 3)
    x, y, z = np.abs(seats[:, 0]), seats[:, 1], seats[:, 2]
    temporal, frontal = (z > -25) & (x > 28) & (y > -45), (z > -15) & (y > 15)
    cerebrum = (x > 10) & ((z > 5) | temporal | frontal)  # neither brain stem nor cerebellum
    maps = coarse if spacing == 2 else maps_at(spacing)
    return Template(maps, float(spacing), origin + (spacing - 1) / 2, seats[cerebrum])


def _block_mean(volume: np.ndarray, size: int) -> np.ndarray:
    """Mean over blocks of size x size x size voxels; an incomplete block at the end is left out."""
    x, y, z = (n // size for n in volume.shape)
    blocks = volume[: x * size, : y * size, : z * size].reshape(x, size, y, size, z, size)
    return blocks.mean(axis=(1, 3, 5))  # (x, y, z)


def smooth_field(rng: np.random.Generator, shape: tuple[int, ...], voxel_mm: float, length_mm: float) -> np.ndarray:
    """(X, Y, Z) float32 smooth noise, mean 0, variance 1: a cubic B-spline over random nodes `length_mm` apart.

    The nodes lie in mm, so one state of the generator gives the same field at every voxel size.
    """
    n_nodes = [int(np.ceil(extent / length_mm)) + 4 for extent in FIELD_OF_VIEW_MM]
    field = rng.standard_normal(n_nodes, dtype=np.float32)
    for axis, (n, nodes) in enumerate(zip(shape, n_nodes, strict=True)):
        position = (np.arange(n) + 0.5) * voxel_mm / length_mm + 1
        t = np.abs(position[:, None] - np.arange(nodes))  # (n, nodes), in node distances
        basis = np.where(t < 1, 2 / 3 - t**2 + t**3 / 2, np.clip(2 - t, 0, None) ** 3 / 6)
        basis = (basis / np.linalg.norm(basis, axis=1, keepdims=True)).astype(np.float32)
        field = np.moveaxis(np.tensordot(basis, field, axes=(1, axis)), 0, axis)  # `axis`: nodes -> n
    return field


def template_coordinates(rng: np.random.Generator, voxel_mm: float, settings: PhantomSettings) -> np.ndarray:
    """(3, X, Y, Z) float32: the MNI coordinate that each voxel of a new head shows (affine plus smooth deformation)."""
    from scipy.spatial.transform import Rotation

    shape, affine = grid_shape(voxel_mm), grid_affine(voxel_mm)
    turn = Rotation.from_euler("xyz", rng.normal(0, settings.rotation_deg, 3), degrees=True).as_matrix()
    size = rng.uniform(*settings.brain_scale) * np.exp(rng.normal(0, 0.015, 3))
    to_template = turn / size  # (3, 3): each grid axis is divided by its own size
    origin = affine[:3, 3] - BRAIN_CENTRE_MM - rng.normal(0, settings.shift_mm, 3)
    axes = (affine[a, a] * np.arange(n) + origin[a] for a, n in enumerate(shape))
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    mm = np.empty((3, *shape), np.float32)
    for a, row in enumerate(to_template):
        mm[a] = BRAIN_CENTRE_MM[a] + row[0] * x + row[1] * y + row[2] * z
        mm[a] += settings.deformation_mm * smooth_field(rng, shape, voxel_mm, settings.deformation_length_mm)
    return mm


def press(
    template_mm: np.ndarray, seat: tuple[int, int, int], radius_mm: float, voxel_mm: float, strength: float
) -> np.ndarray:
    """Mass effect: coordinates (3, X, Y, Z) after a core of `radius_mm` at voxel `seat` has pushed tissue away.

    The skull does not give: the push fades within 20 mm of the brain's surface.
    """
    towards = template_mm[(slice(None), *seat)][:, None, None, None] - template_mm  # (3, X, Y, Z)
    fade = np.clip(_sample("depth", template_mm, voxel_mm) / 20, 0, 1)
    push = strength * fade * np.exp((towards**2).sum(0) / np.float32(-2 * (1.1 * radius_mm) ** 2))
    return template_mm + push * towards


def sample_anatomy(template_mm: np.ndarray, voxel_mm: float, csf_log_odds: float) -> Anatomy:
    """Tissue at MNI coordinates (3, X, Y, Z); `csf_log_odds` above 0 widens ventricles and sulci.

    Fluid is what is left of the brain without grey and white matter.
    """
    from scipy import ndimage

    white, grey, brain, depth = (_sample(m, template_mm, voxel_mm) for m in ("white", "grey", "brain", "depth"))
    parts, n_parts = ndimage.label(brain > 0.5)
    brain = parts == np.bincount(parts.ravel(), minlength=n_parts + 1)[1:].argmax() + 1  # the largest part
    fluid = np.clip(1 - grey - white, 0, 1) * np.float32(np.exp(csf_log_odds))
    tissue = np.stack([white, grey, fluid]) ** SHARPENING  # (3, X, Y, Z)
    total = tissue.sum(0)
    tissue *= brain / np.maximum(total, 1e-6)
    tissue[2][brain & (total <= 1e-6)] = 1
    return Anatomy(tissue, brain, depth, template_mm)


def _sample(name: str, template_mm: np.ndarray, voxel_mm: float) -> np.ndarray:
    """(X, Y, Z) float32: linear interpolation of one of the template's maps at MNI coordinates (3, X, Y, Z)."""
    from scipy import ndimage

    template = template_for(voxel_mm)
    index = (template_mm - template.origin[:, None, None, None].astype(np.float32)) / np.float32(template.spacing)
    return ndimage.map_coordinates(template.maps[name], index, order=1, output=np.float32)
