"""The planner: exact hours, Dice only where it was measured, and no plan called better than the data can tell."""

import numpy as np
import pandas as pd
import pytest

from mixsup_lib.experiments.experiment import read_experiment
from mixsup_lib.files import DataError, SettingError
from mixsup_lib.teaching.planner import advice, annotation_hours, measured_surface, plans

CONFIGS = read_experiment("surface").configs()
RNG = np.random.default_rng(0)
EASE = {(fold, patient): RNG.normal(0, 8) for fold in (1, 2) for patient in range(12)}


def true_dice(n_fa: int, n_wa: int) -> float:
    """Linear in log(n_fa) and log(1 + n_wa), as the planner interpolates."""
    return 50 + 8 * np.log(n_fa) + 3 * np.log1p(n_wa)


def recorded(dice=true_dice) -> pd.DataFrame:
    """Runs of the whole grid; patients differ by how easy they are, the same in every run."""
    rows = []
    for config in CONFIGS.values():
        weak, settings = config.n_wa or 0, ("preset", "task", "n_fa", "supervision")
        run = {name: getattr(config, name) for name in settings} | {
            "n_wa": weak or 91,
            "cohort": "phantom-x",
            "seed": 0,
        }
        run |= {"settings_hash": config.settings_hash(), "region": "whole_tumor", "data_fingerprint": "one"}
        for (fold, patient), ease in EASE.items():
            of_patient = {"patient": f"P{fold}-{patient}", "dice": dice(config.n_fa, weak) + ease}
            rows.append({**run, **of_patient, "fold": fold, "folder": "somewhere"})
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def surface():
    return measured_surface(recorded(), CONFIGS)


def test_the_surface_is_the_grid_of_measured_means(surface):
    assert surface.n_fa.tolist() == [2, 5, 12, 30] and surface.n_wa.tolist() == [0, 15, 65]
    shift = np.mean([np.mean([e for (f, _), e in EASE.items() if f == fold]) for fold in (1, 2)])
    expected = [[true_dice(f, w) + shift for w in (0, 15, 65)] for f in (2, 5, 12, 30)]
    assert np.allclose(surface.dice, expected) and surface.n_folds == 2


def test_between_the_points_dice_is_interpolated_in_logarithms(surface):
    shift = surface.dice[0, 0] - true_dice(2, 0)
    n_fa, n_wa = np.array([2, 3, 20, 30]), np.array([0, 7, 40, 65])
    found = surface.at(n_fa, n_wa)[:, 0]
    assert np.allclose(found, [true_dice(f, w) + shift for f, w in zip(n_fa, n_wa, strict=True)])
    with pytest.raises(SettingError, match="n_fa reaches from 1 to 1, but phantom-x was measured from 2 to 30"):
        surface.at(np.array([1]), np.array([0]))


def test_hours_are_spent_to_the_minute_and_scans_at_hand_limit_a_plan(surface):
    """5 masks of 45 minutes leave 75 of 300 minutes: 50 slice labels of 1.5 minutes."""
    table = plans(surface, 5.0).set_index("n_fa")
    assert table.loc[5, "n_wa"] == 50 and table.loc[5, "hours"] == 5.0
    assert table.loc[6, "n_wa"] == 20 and table.index.tolist() == [2, 3, 4, 5, 6]
    assert (table["hours"] <= 5).all() and annotation_hours(6, 20) == 5.0
    assert table.loc[2, "n_wa"] == 65  # more weak scans than were measured would be a guess
    few = plans(surface, 20.0, scans=20)
    assert ((few["n_fa"] + few["n_wa"]) <= 20).all() and few["n_fa"].max() == 20


def test_the_best_plan_is_that_of_highest_dice_and_is_not_worse_than_itself(surface):
    table = plans(surface, 10.0)
    best = table.loc[table["dice"].idxmax()]
    assert best["n_fa"] == max(range(2, 14), key=lambda f: true_dice(f, min(65, int((600 - 45 * f) / 1.5))))
    assert not best["worse"] and table["worse"].any()


def test_plans_are_compared_within_resamples():
    """Patients are equally easy in every run: a plan two points behind is behind, however wide its interval."""
    surface = measured_surface(recorded(lambda n_fa, n_wa: 60.0 + 2.0 * (n_fa >= 5)), CONFIGS)
    table = plans(surface, 4.0).set_index("n_fa")
    assert table.loc[2, "worse"] and table.loc[2, "high"] > table.loc[5, "low"]


def test_advice_names_the_plan_the_interval_and_what_it_was_measured_on(surface):
    table = plans(surface, 10.0)
    text, best = advice(surface, table), table.loc[table["dice"].idxmax()]
    assert f"{best['n_fa']} masks and {best['n_wa']} slice-labelled scans" in text
    assert "95 % interval" in text and "phantom" in text and "2 folds" in text


@pytest.mark.parametrize(
    ("settings", "words"), [({"hours": 1.0}, "2 masks"), ({"hours": 5.0, "scans": 1}, "1 scans are too little")]
)
def test_what_cannot_be_planned_is_one_sentence(surface, settings, words):
    with pytest.raises(SettingError, match=words):
        plans(surface, **settings)


def test_a_hole_in_the_grid_is_named():
    configs = {name: config for name, config in CONFIGS.items() if name != "12 FA + 15 WA"}
    with pytest.raises(DataError, match=r"lacks 12 FA \+ 15 WA"):
        measured_surface(recorded(), configs)


def test_slice_labels_that_would_cost_dice_are_left_out():
    """Beside 30 masks slice labels lower the Dice; between 12 and 30 the plan says from where on."""
    frame = recorded(lambda n_fa, n_wa: true_dice(n_fa, n_wa) - n_wa * (n_fa > 12))
    surface = measured_surface(frame, CONFIGS)
    table = plans(surface, 30.0).set_index("n_fa")
    assert table.loc[12, "n_wa"] == 65 and table.loc[30, "n_wa"] == 0 and table.loc[30, "hours"] == 22.5
    every = [surface.at(np.full(66, n), np.arange(66))[:, 0] for n in table.index]
    assert np.allclose(table["dice"], [dice.max() for dice in every])


def test_masks_for_testing_cost_hours_and_train_nothing(surface):
    """6 hours pay for 8 masks of 45 minutes: with 3 for testing 5 are left to train on."""
    table = plans(surface, 6, n_test=3)
    assert table["n_fa"].max() == 5 and table["hours"].max() <= 6
    five = table.set_index("n_fa").loc[5]
    assert (five["n_wa"], five["hours"]) == (0, 6)
    assert plans(surface, 6, n_test=3, scans=9)["n_fa"].max() == 5
    with pytest.raises(SettingError, match="3 hours are too little: 2 masks and 3 for testing"):
        plans(surface, 3, n_test=3)
