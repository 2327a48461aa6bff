"""Every number that decides how phantom patients look and how hard their tumours are to find."""

from __future__ import annotations

from dataclasses import dataclass, fields

from mixsup_lib.files import SettingError

Range = tuple[float, float]
"""Limits (low, high) of a uniform distribution."""


@dataclass(frozen=True)
class PhantomSettings:
    """Anatomy, tumours, distractors and scanners of a phantom cohort.

    Signals are relative to normal white matter (1.0) of the same sequence; a `Range` is (low, high) of a uniform
    draw. The first three make the task harder for a network that has seen few patients: a lower `conspicuity_low`, a
    larger `site_spread`, a larger `lesion_count`. `rater_mm` lowers what any network can reach. Raises SettingError
    for a number that makes no sense.
    """

    conspicuity_low: float = 4.2
    """Multiplies the low ends of `conspicuity_flair` and `conspicuity_t2` (0: some tumours are invisible)."""
    site_spread: float = 0.25
    """Multiplies the spread of contrast and gamma between acquisition sites (0: all sites alike)."""
    lesion_count: float = 4.0
    """Mean number of white-matter hyperintensities of a patient (Poisson)."""

    sites: int = 20
    """Number of acquisition sites; each patient comes from one of them."""
    low_grade_share: float = 0.25
    """Probability of a low-grade, mostly non-enhancing tumour."""
    no_enhancement_share: float = 0.5
    """Probability that a low-grade tumour has no enhancing voxel at all."""

    brain_scale: Range = (0.87, 0.95)
    """Size of the brain relative to the MNI152 template, which is larger than most brains."""
    rotation_deg: float = 5.0
    """Standard deviation of the rotation about each axis, degrees."""
    shift_mm: float = 2.0
    """Standard deviation of the shift along each axis, mm."""
    deformation_mm: float = 3.5
    """Standard deviation of the smooth random deformation along each axis, mm."""
    deformation_length_mm: float = 38.0
    """Distance over which the deformation varies, mm."""
    atrophy: float = 0.6
    """Standard deviation of the log odds by which fluid gains against tissue: width of ventricles and sulci."""

    tumor_radius_mm: Range = (15.0, 35.0)
    """Radius of the sphere that has the volume of the whole tumour, mm; its cube is the uniform draw."""
    core_share_high_grade: Range = (0.15, 0.6)
    """Volume of the core (necrosis and rim) over that of the whole tumour, high grade."""
    core_share_low_grade: Range = (0.5, 0.9)
    """The same, low grade."""
    rim_mm: Range = (2.5, 7.0)
    """Mean thickness of the enhancing rim, mm."""
    core_speed: tuple[float, float, float] = (1.0, 0.8, 0.1)
    """Speed at which the core grows in white matter, grey matter and fluid."""
    oedema_speed: tuple[float, float, float] = (1.0, 0.15, 0.03)
    """Speed at which oedema spreads in white matter, grey matter and fluid."""
    axis_speed: tuple[float, float, float] = (1.0, 1.1, 1.3)
    """Relative speed of growth along x, y and z: the long tracts of the white matter run up and down."""
    irregularity: float = 0.35
    """Relative standard deviation of the smooth noise on the speed of growth."""
    mass_effect: float = 0.35
    """Largest relative compression of the tissue around the core (0: none; below 0.5)."""

    conspicuity_flair: Range = (0.2, 1.0)
    """Visibility c of a patient's tumour on FLAIR."""
    conspicuity_t2: Range = (0.15, 1.0)
    """Visibility c of a patient's tumour on T2."""
    oedema_gain: tuple[float, float] = (0.7, 0.6)
    """Oedema is 1 + gain * c on FLAIR and on T2."""
    enhancement: Range = (0.25, 1.0)
    """Signal that enhancing tumour gains on T1c."""
    tumor_texture: float = 0.12
    """Relative standard deviation of the smooth texture inside a tumour."""
    rater_mm: float = 1.5
    """Standard deviation, along each axis and in mm, by which the expert's outline strays from the tumour that is there
    (0: a perfect expert)."""
    rater_length_mm: float = 15.0
    """Distance over which the expert's error varies, mm."""

    lesion_radius_mm: Range = (2.0, 8.0)
    """Radius of a hyperintensity, mm."""
    lesion_strength: Range = (0.35, 1.0)
    """Visibility a of a hyperintensity."""
    lesion_gain: tuple[float, float] = (0.7, 0.5)
    """A hyperintensity is 1 + gain * a on FLAIR and on T2."""
    vessel_strength: Range = (0.3, 1.2)
    """Signal that vessels gain on T1c, per patient."""

    contrast_spread_flair: tuple[float, float] = (0.1, 0.2)
    """Relative standard deviation between sites of grey matter and of fluid on FLAIR."""
    contrast_spread: tuple[float, float] = (0.06, 0.25)
    """The same on T1, T1c and T2."""
    patient_spread: float = 0.3
    """Spread of contrast between patients of one site, as a share of the spread between sites."""
    gamma_spread: float = 0.25
    """Standard deviation of the logarithm of the gamma curve, per site and sequence."""
    noise: Range = (0.03, 0.06)
    """Rician noise: standard deviation of each of its two channels, per site and sequence."""
    blur_mm: Range = (0.0, 2.5)
    """Standard deviation of the blur across slices, mm, per site and sequence (2.5: one coarse voxel)."""
    bias: Range = (0.05, 0.3)
    """Standard deviation of the logarithm of the bias field, per site and sequence."""
    bias_length_mm: float = 90.0
    """Distance over which the bias field varies, mm."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value, default = getattr(self, field.name), field.default
            if isinstance(value, list):  # as JSON gives it back
                object.__setattr__(self, field.name, value := tuple(value))
            numbers, n = (value, len(default)) if isinstance(default, tuple) else ((value,), 1)
            if not (isinstance(numbers, tuple) and len(numbers) == n and all(map(_is_number, numbers))):
                self._refuse(field.name, f"{n} numbers from 0 up" if n > 1 else "a number from 0 up")
            if field.type == "Range" and value[0] > value[1]:
                self._refuse(field.name, "a low end that is not above its high end")
        for name in ("conspicuity_flair", "conspicuity_t2"):
            low, high = getattr(self, name)
            if low * self.conspicuity_low > high:
                self._refuse("conspicuity_low", f"at most {high / low:g}, where both ends of {name} meet")
        if not isinstance(self.sites, int) or self.sites < 1:
            self._refuse("sites", "a whole number from 1 up")
        if self.mass_effect >= 0.5:
            self._refuse("mass_effect", "a number below 0.5, where tissue folds")

    def _refuse(self, name: str, needed: str) -> None:
        raise SettingError(f"Phantom setting {name!r} is {getattr(self, name)!r}, but needs {needed}.")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
