"""From tissue to the four sequences, as an acquisition site would record them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mixsup_lib.paper import SEQUENCES
from mixsup_lib.phantom.anatomy import Anatomy, smooth_field
from mixsup_lib.phantom.settings import PhantomSettings

GREY_AND_FLUID = {"FLAIR": (1.22, 0.45), "T1": (0.76, 0.38), "T1c": (0.80, 0.40), "T2": (1.35, 2.30)}
"""Typical signal of grey matter and of fluid over that of white matter."""


@dataclass(frozen=True)
class Site:
    """An acquisition site, for each of the four sequences.

    contrast: (4, 2) signal of grey matter and fluid. gamma, noise, blur_mm, bias: (4,), see `PhantomSettings`. unit:
    (4,) integer that stands for white matter.
    """

    contrast: np.ndarray
    gamma: np.ndarray
    noise: np.ndarray
    blur_mm: np.ndarray
    bias: np.ndarray
    unit: np.ndarray


def make_site(number: int, *, seed: int, settings: PhantomSettings) -> Site:
    """Acquisition site `number`: a function of (seed, number, settings) alone."""
    rng = np.random.default_rng([seed, number, 1])  # the 1 keeps it apart from the patients' generators
    n = len(SEQUENCES)
    return Site(
        contrast=np.array([GREY_AND_FLUID[s] for s in SEQUENCES]) * np.exp(_contrast_noise(rng, settings)),
        gamma=np.exp(rng.normal(0, settings.gamma_spread * settings.site_spread, n)),
        noise=rng.uniform(*settings.noise, n),
        blur_mm=rng.uniform(*settings.blur_mm, n),
        bias=rng.uniform(*settings.bias, n),
        unit=np.exp(rng.uniform(np.log(150), np.log(1500), n)),
    )


def _contrast_noise(rng: np.random.Generator, settings: PhantomSettings) -> np.ndarray:
    """(4, 2) normal noise on grey matter and fluid of each sequence, with the spread between sites."""
    spread = [settings.contrast_spread_flair if s == "FLAIR" else settings.contrast_spread for s in SEQUENCES]
    return rng.standard_normal((len(SEQUENCES), 2)) * np.array(spread) * settings.site_spread


def tumor_signal(rng: np.random.Generator, grade: str, settings: PhantomSettings) -> np.ndarray:
    """(4, 3) signal of non-enhancing core, oedema and enhancing core on FLAIR, T1, T1c, T2, for one patient.

    All contrast but that of enhancement on T1c shrinks with the patient's conspicuity.
    """
    low = settings.conspicuity_low
    flair = rng.uniform(low * settings.conspicuity_flair[0], settings.conspicuity_flair[1])
    t2 = rng.uniform(low * settings.conspicuity_t2[0], settings.conspicuity_t2[1])
    t1 = (flair + t2) / 2
    core = rng.uniform(0.3, 0.8) if grade == "LGG" else rng.uniform(-0.3, 0.5)  # necrosis may be dark on FLAIR
    return np.array(
        [
            [1 + core * flair, 1 + settings.oedema_gain[0] * flair, 1 + 0.5 * flair],
            [1 - 0.40 * t1, 1 - 0.25 * t1, 1 - 0.15 * t1],
            [1 - 0.42 * t1, 1 - 0.25 * t1, 1 + rng.uniform(*settings.enhancement)],
            [1 + 0.85 * t2, 1 + settings.oedema_gain[1] * t2, 1 + 0.5 * t2],
        ]
    )


def acquire(
    rng: np.random.Generator,
    anatomy: Anatomy,
    labels: np.ndarray,
    lesions: np.ndarray,
    vessel: np.ndarray,
    signal: np.ndarray,
    site: Site,
    voxel_mm: float,
    settings: PhantomSettings,
) -> np.ndarray:
    """(4, X, Y, Z) int16 images FLAIR, T1, T1c, T2: at least 1 inside the brain and exactly 0 outside.

    labels: (X, Y, Z) classes; lesions, vessel: (X, Y, Z), see `tumor.py`; signal: (4, 3), see `tumor_signal`.
    """
    from scipy import ndimage

    brain, shape = anatomy.brain, labels.shape
    box = ndimage.find_objects(brain.astype(np.uint8))[0]
    inside, tissue = brain[box], anatomy.tissue[(slice(None), *box)]  # (x, y, z), (3, x, y, z)
    classes = [ndimage.gaussian_filter((labels[box] == c).astype(np.float32), 1.2 / voxel_mm) for c in (1, 2, 3)]
    tumor = np.stack(classes)  # (3, x, y, z), soft at the borders
    normal = 1 - tumor.sum(0)
    tumor *= 1 + settings.tumor_texture * smooth_field(rng, shape, voxel_mm, 8.0)[box]
    tissue = tissue * (1 + 0.03 * smooth_field(rng, shape, voxel_mm, 12.0)[box])
    contrast = site.contrast * np.exp(settings.patient_spread * _contrast_noise(rng, settings))
    lesion_gain = {"FLAIR": settings.lesion_gain[0], "T1": -0.2, "T1c": -0.2, "T2": settings.lesion_gain[1]}
    vessel_gain = {"FLAIR": -0.2, "T1": -0.1, "T1c": rng.uniform(*settings.vessel_strength), "T2": -0.4}

    images = np.zeros((len(SEQUENCES), *shape), np.int16)
    for i, sequence in enumerate(SEQUENCES):
        image = np.tensordot(np.float32([1, *contrast[i]]), tissue, axes=1)  # (x, y, z)
        image += np.float32(lesion_gain[sequence]) * lesions[box] + np.float32(vessel_gain[sequence]) * vessel[box]
        image = image * normal + np.tensordot(np.float32(signal[i]), tumor, axes=1)
        image = np.maximum(image, 0.02) ** np.float32(site.gamma[i])
        image = _blur_slices(image, inside, site.blur_mm[i] / voxel_mm)
        field = smooth_field(rng, shape, voxel_mm, settings.bias_length_mm)[box]
        image *= np.exp(np.float32(site.bias[i]) * field)
        noise = np.float32(site.noise[i]) * rng.standard_normal((2, *inside.shape), dtype=np.float32)
        image = np.hypot(image + noise[0], noise[1]) * np.float32(site.unit[i])  # Rician
        images[i][box] = np.where(inside, np.clip(np.rint(image), 1, 32767), 0)
    return images


def _blur_slices(image: np.ndarray, inside: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur of `image` (x, y, z) along z, over the voxels `inside` only; sigma in voxels."""
    from scipy import ndimage

    if sigma == 0:
        return image
    weight = ndimage.gaussian_filter1d(inside.astype(np.float32), sigma, axis=2)
    return ndimage.gaussian_filter1d(image * inside, sigma, axis=2) / np.maximum(weight, 1e-3)
