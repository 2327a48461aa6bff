"""The paper's own settings and results, as data.

Mlynarski, Delingette, Criminisi, Ayache: "Deep Learning with Mixed Supervision for Brain Tumor Segmentation".
Section and table numbers are the paper's. Dice scores are percentages.
"""

from __future__ import annotations

SEQUENCES = ("FLAIR", "T1", "T1c", "T2")
"""MR sequences in the channel order of the authors' network."""

CLASSES = {1: "non_enhancing", 2: "oedema", 3: "enhancing"}
"""Tumour subclasses and their label values (section 4.1); 0 is non-tumour."""

REGIONS = {"whole_tumor": (1, 2, 3), "tumor_core": (1, 3), "enhancing_core": (3,)}
"""The benchmark's regions as sets of classes (section 4.1)."""

TASKS = (*REGIONS, "multiclass")
"""Three binary problems and the multiclass problem (section 4.2)."""

INTENSITY_CONSTANT = 100.0
"""Section 4.1's "fixed constant": the non-zero median of every volume becomes this value."""

TRAINING_SLICES = (15, 130, 155)
"""Training uses axial slices 15..130 (inclusive) of 155; testing uses all of them."""

BATCH = {"mixed": (4, 2, 4), "standard": (4, 2, 0)}
"""k positive annotated, m negative, n positive weak images in a batch (section 3.1)."""

TARGET_WEIGHTS = {"binary": (0.7, 0.3), "multiclass": (0.7, 0.1, 0.1, 0.1)}
"""Total weight t_c of each class in the segmentation loss (sections 3.1 and 3.2)."""

SEGMENTATION_SHARE = {"binary": 0.7, "multiclass": 0.3}
"""The a of Loss = a * Loss_s + (1 - a) * Loss_c (sections 3.1 and 3.2)."""

FLIP_FRACTION = 0.3
"""Share of the images of a batch that are mirrored left-right."""

N_PATIENTS, N_FOLDS = 285, 5
"""BraTS 2018 training patients and folds: 57 test patients each (section 4.2)."""

SCENARIOS = {5: 223, 15: 213, 30: 198, 228: 0}
"""Fully annotated patients -> weakly annotated patients (section 4.2)."""

TABLE_1 = {
    ("standard", 5): (70.39, 48.14, 55.74),
    ("mixed", 5): (78.34, 50.11, 60.06),
    ("standard", 15): (77.91, 58.33, 62.88),
    ("mixed", 15): (80.92, 63.23, 66.61),
    ("standard", 30): (83.95, 66.17, 69.15),
    ("mixed", 30): (83.84, 68.30, 67.18),
    ("standard", 228): (86.80, 77.09, 72.20),
}
"""Binary problems: (supervision, fully annotated) -> mean Dice of whole tumour, tumour core, enhancing core."""

TABLE_2 = {
    ("standard", "whole_tumor"): (76.23, 78.15, 78.13, 77.67, 79.35, 77.91),
    ("mixed", "whole_tumor"): (82.36, 81.03, 78.96, 79.88, 82.35, 80.92),
    ("standard", "tumor_core"): (61.46, 61.17, 56.68, 56.42, 55.94, 58.33),
    ("mixed", "tumor_core"): (63.15, 66.82, 63.45, 60.83, 61.91, 63.23),
    ("standard", "enhancing_core"): (66.33, 61.08, 57.86, 68.09, 61.02, 62.88),
    ("mixed", "enhancing_core"): (68.72, 70.65, 60.34, 67.55, 65.80, 66.61),
}
"""Binary problems at 15 FA: (supervision, task) -> mean Dice of folds 1..5 and their printed mean."""

TABLE_3 = {
    ("standard", 5): (67.61, 51.12, 58.15),
    ("mixed", 5): (76.64, 56.30, 58.19),
    ("standard", 15): (74.46, 59.87, 61.85),
    ("mixed", 15): (79.39, 63.91, 65.71),
    ("standard", 30): (81.10, 67.48, 68.67),
    ("mixed", 30): (81.23, 66.33, 67.69),
    ("standard", 228): (85.67, 78.78, 74.14),
}
"""Multiclass problem: (supervision, fully annotated) -> mean Dice of whole tumour, tumour core, enhancing core."""

TABLE_4 = {
    ("standard", "whole_tumor"): (74.31, 78.91, 67.57, 75.55, 75.96, 74.46),
    ("mixed", "whole_tumor"): (77.53, 82.20, 73.72, 80.96, 82.55, 79.39),
    ("standard", "tumor_core"): (61.17, 63.89, 55.72, 55.36, 63.18, 59.87),
    ("mixed", "tumor_core"): (62.83, 65.26, 62.23, 61.99, 67.23, 63.91),
    ("standard", "enhancing_core"): (66.15, 64.83, 53.83, 61.68, 62.77, 61.85),
    ("mixed", "enhancing_core"): (68.33, 68.39, 59.51, 68.63, 63.70, 65.71),
}
"""Multiclass problem at 15 FA: (supervision, region) -> mean Dice of folds 1..5 and their printed mean."""

TABLES = {"binary": (TABLE_1, TABLE_2), "multiclass": (TABLE_3, TABLE_4)}
"""Kind of problem -> its table of means by scenario, and that of the folds at 15 FA."""
