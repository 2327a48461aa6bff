"""How many masks weak scans are worth: exact on curves whose answer is known, and honest where it is not."""

import numpy as np
import pandas as pd
import pytest

from mixsup_lib.config import make_config
from mixsup_lib.experiments.statistics import masks_reaching, masks_worth
from mixsup_lib.experiments.style import alt_text
from mixsup_lib.files import DataError
from mixsup_lib.teaching.figures.nb11 import surface_lines, weak_scans
from mixsup_lib.teaching.planner import Surface

STANDARD = {f"{n} FA": make_config(cohort="any", supervision="standard", n_fa=n) for n in (5, 10, 40)}
MIXED = {f"5 FA + {n} WA": make_config(cohort="any", supervision="mixed", n_fa=5, n_wa=n) for n in (20, 91)}
CONFIGS = STANDARD | MIXED
MEANS = {"5 FA": 60.0, "10 FA": 70.0, "40 FA": 80.0, "5 FA + 20 WA": 65.0, "5 FA + 91 WA": 81.0}


def measured(means=MEANS) -> pd.DataFrame:
    """Dice of 2 folds of 10 patients; patients differ by how easy they are, the same in every run."""
    ease = np.random.default_rng(0).normal(0, 5, 20)
    index = pd.MultiIndex.from_tuples(
        [("whole_tumor", 1 + i // 10, f"P{i}") for i in range(20)], names=["region", "fold", "patient"]
    )
    return pd.DataFrame({name: mean + ease - ease.mean() for name, mean in means.items()}, index=index)


def test_between_two_numbers_of_masks_dice_grows_with_the_logarithm():
    n_fa, curve = np.array([5, 10, 40]), np.array([[60.0, 70.0, 80.0]] * 4)
    by_hand = [5, 10 * (40 / 10) ** 0.5, 10, np.inf]  # below the first, halfway in log, exact, never
    assert masks_reaching(n_fa, curve, np.array([55.0, 75.0, 70.0, 80.1])).tolist() == by_hand


def test_a_curve_that_falls_counts_from_where_it_first_reaches_the_dice():
    curve = np.array([[60.0, 75.0, 70.0]])
    assert masks_reaching(np.array([5, 10, 40]), curve, np.array([74.0])).tolist() == [10]


def test_the_whole_table_and_its_interval():
    table = masks_worth(measured(), CONFIGS).set_index("variant")
    assert table.loc["5 FA + 20 WA", ["n_wa", "masks", "low", "high"]].tolist() == [
        20,
        8,
        8,
        8,
    ]  # 5 * 2 ** 0.5 = 7.07
    assert table.loc["5 FA + 91 WA", "masks"] == np.inf and table["dice"].round(6).tolist() == [65.0, 81.0]


def test_patients_who_disagree_widen_the_interval():
    dice = measured()
    dice["5 FA + 20 WA"] += np.random.default_rng(1).normal(0, 8, 20)
    row = masks_worth(dice, CONFIGS).iloc[0]
    assert row["low"] < row["masks"] < row["high"]


def test_one_number_of_masks_is_no_curve():
    with pytest.raises(DataError, match="measured with 1 number"):
        masks_worth(measured(), {"5 FA": STANDARD["5 FA"], **MIXED})


def test_the_picture_of_the_weak_scans_says_every_mean():
    words = alt_text(weak_scans(measured(), CONFIGS, title="phantom"))
    assert words.startswith(
        "phantom. Mean Dice, 5 FA: 60.0; 5 FA + 20 WA: 65.0; 5 FA + 91 WA: 81.0; 10 FA: 70.0"
    )
    assert words.endswith("2 folds.")


def test_the_picture_of_the_surface_says_every_mean():
    dice = np.array([[60.0, 65, 70], [70, 75, 80]])
    surface = Surface(
        np.array([5, 12]), np.array([0, 15, 65]), dice, dice[None] + [[[1]], [[-1]]], "phantom-x", 2
    )
    figure = surface_lines(surface)
    assert "5 FA + 0 WA: 60.0; 5 FA + 15 WA: 65.0" in alt_text(figure)
    assert [line.get_label() for line in figure.axes[0].containers][0] == "no weak scans (standard)"
