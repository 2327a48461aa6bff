"""The paper read with its own tables: which of its statements do the printed numbers support?

A statement is *supported* where the tables say it, *not supported* where they say something else, and *cannot tell*
where what would decide it (spread, repetitions, a margin) is not printed. Only tables 2 and 4 print folds.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mixsup_lib.experiments.statistics import holm
from mixsup_lib.experiments.tables import region_name
from mixsup_lib.paper import N_FOLDS, REGIONS, SCENARIOS, TABLES, TASKS

LEVEL = 0.05
SUPPORTED, NOT_SUPPORTED, CANNOT_TELL = "supported", "not supported", "cannot tell"


class Statement(NamedTuple):
    """One statement: where it stands, what it says in our words, the verdict, and the numbers behind the verdict."""

    where: str
    says: str
    verdict: str
    because: str


def gains(n_fa: int) -> dict[tuple[str, str], float]:
    """Mixed minus standard (Dice points) with `n_fa` annotated scans: (setting, region) -> difference of the means."""
    return {
        (setting, region): round(means["mixed", n_fa][i] - means["standard", n_fa][i], 2)
        for setting, (means, _) in TABLES.items()
        for i, region in enumerate(REGIONS)
    }


def fold_gains(setting: str, region: str) -> np.ndarray:
    """(5,) mixed minus standard of the folds of the 15 FA scenario, the only one whose folds are printed."""
    folds = TABLES[setting][1]
    return np.subtract(folds["mixed", region][:N_FOLDS], folds["standard", region][:N_FOLDS])


def fold_tests() -> dict[tuple[str, str], tuple[float, float]]:
    """Paired t-test over the five folds at 15 FA: (setting, region) -> p, and p by Holm's correction for six tests."""
    from scipy.stats import ttest_1samp

    keys = [(setting, region) for setting in TABLES for region in REGIONS]
    p = np.array([ttest_1samp(fold_gains(*key), 0).pvalue for key in keys])
    return {key: (float(a), float(b)) for key, a, b in zip(keys, p, holm(p), strict=True)}


def audit() -> list[Statement]:
    """Every statement of the abstract and of section 4.3 that the tables could decide, in the paper's order."""
    return [
        _significant_at_15(),
        _significant_at_5(),
        _proportional(),
        _outperforms(),
        _largest(),
        _all_folds_but_one(),
        _similar_at_30(),
        _first_scans_count(),
        _five_as_good_as_fifteen(),
        _decreasing(),
        _sixty_tests(),
    ]


def _verdict(holds: bool) -> str:
    return SUPPORTED if holds else NOT_SUPPORTED


def _significant_at_15() -> Statement:
    tests = fold_tests()
    plain = sum(p < LEVEL for p, _ in tests.values())
    corrected = sum(p < LEVEL for _, p in tests.values())
    return Statement(
        "abstract, section 4.3",
        "mixed supervision is significantly better: 15 FA, every region",
        _verdict(corrected == len(tests)),
        f"paired t-test over five folds: p < {LEVEL} in {plain} of {len(tests)} comparisons, in {corrected} after "
        "Holm's correction",
    )


def _significant_at_5() -> Statement:
    found = gains(5).values()
    return Statement(
        "abstract, section 4.3",
        "mixed supervision is significantly better: 5 FA",
        CANNOT_TELL,
        f"differences {min(found):+.2f} to {max(found):+.2f}, but neither folds, patients nor seeds are printed",
    )


def _proportional() -> Statement:
    columns = {key: [gains(n)[key] for n in (5, 15, 30)] for key in gains(5)}
    rising = [key for key, (five, fifteen, thirty) in columns.items() if not five > fifteen > thirty]
    exceptions = " and ".join(f"{setting} {region_name(region)}" for setting, region in rising)
    five, fifteen, _ = columns["binary", "whole_tumor"]
    ratio = (SCENARIOS[5] / 5) / (SCENARIOS[15] / 15)
    return Statement(
        "abstract",
        "the improvement is proportional to the ratio of weak to full scans",
        _verdict(not rising),
        f"in {len(columns) - len(rising)} of {len(columns)} columns the gain grows with it (not in {exceptions}); "
        f"for the whole tumour it is {five / fifteen:.1f} times as large where the ratio is {ratio:.1f} times as large",
    )


def _outperforms() -> Statement:
    found = [*gains(5).values(), *gains(15).values()]
    better = sum(gain > 0 for gain in found)
    return Statement(
        "section 4.3",
        "with 5 and 15 FA mixed is ahead on all regions, binary and multiclass (means)",
        _verdict(better == len(found)),
        f"{better} of {len(found)} means are higher; the smallest difference is {min(found):+.2f} points",
    )


def _largest() -> Statement:
    every = {(n, *key): gain for n in (5, 15, 30) for key, gain in gains(n).items()}
    two = sorted(every, key=every.get)[-2:]
    expected = {(5, setting, "whole_tumor") for setting in TABLES}
    return Statement(
        "section 4.3",
        "the largest improvements are whole tumour at 5 FA: 8 points binary, 9 multiclass",
        _verdict(set(two) == expected and [round(every[key]) for key in sorted(expected)] == [8, 9]),
        f"{every[5, 'binary', 'whole_tumor']:+.2f} and {every[5, 'multiclass', 'whole_tumor']:+.2f}, the largest two "
        f"of {len(every)}",
    )


def _all_folds_but_one() -> Statement:
    losses = [
        (setting, region, fold)
        for setting in TABLES
        for region in REGIONS
        for fold, gain in enumerate(fold_gains(setting, region), 1)
        if gain <= 0
    ]
    return Statement(
        "section 4.3",
        "15 FA: an improvement in all folds and regions but one fold of the enhancing core, binary",
        _verdict([(setting, region) for setting, region, _ in losses] == [("binary", "enhancing_core")]),
        f"{2 * len(REGIONS) * N_FOLDS - len(losses)} of {2 * len(REGIONS) * N_FOLDS} differences are positive; "
        f"the other is fold {losses[0][2]}",
    )


def _similar_at_30() -> Statement:
    found = gains(30).values()
    return Statement(
        "section 4.3",
        "with 30 FA both perform alike",
        CANNOT_TELL,
        f"differences {min(found):+.2f} to {max(found):+.2f}; to call that equal needs a margin named beforehand and a "
        "spread, and neither is printed",
    )


def _first_scans_count() -> Statement:
    steps = [
        means[arm, 15][i] - means[arm, 5][i]
        for means, _ in TABLES.values()
        for arm in ("standard", "mixed")
        for i in range(len(REGIONS))
    ]
    return Statement(
        "section 4.3",
        "Dice rises quickly with the first annotated scans, in both arms",
        _verdict(min(steps) > 0),
        f"from 5 to 15 FA by {min(steps):.1f} to {max(steps):.1f} points, in all {len(steps)} columns",
    )


def _five_as_good_as_fifteen() -> Statement:
    means, folds = TABLES["binary"]
    mixed, standard = means["mixed", 5][0], means["standard", 15][0]
    spread = np.std(folds["standard", "whole_tumor"][:N_FOLDS], ddof=1) / np.sqrt(N_FOLDS)
    verdict = _verdict(mixed > standard) if abs(mixed - standard) > 2 * spread else CANNOT_TELL
    return Statement(
        "section 4.3, figure 7",
        "whole tumour: mixed with 5 FA is slightly better than standard with 15 FA",
        verdict,
        f"{mixed} against {standard}: {mixed - standard:+.2f}, with a standard error of {spread:.2f} over the folds of "
        "the latter alone; the scenarios test other folds",
    )


def _decreasing() -> Statement:
    gain = [gains(n)["binary", "whole_tumor"] for n in (5, 15, 30)]
    return Statement(
        "figure 7",
        "whole tumour: the improvement shrinks as more scans are annotated",
        _verdict(gain == sorted(gain, reverse=True)),
        f"{gain[0]:+.2f}, {gain[1]:+.2f} and {gain[2]:+.2f} at 5, 15 and 30 FA",
    )


def _sixty_tests() -> Statement:
    mixed = [n for n, weak in SCENARIOS.items() if weak]
    count = N_FOLDS * len(mixed) * len(TASKS)
    return Statement(
        "section 4.2",
        "the comparison rests on 60 tests",
        _verdict(count == 60),
        f"{N_FOLDS} folds x {len(mixed)} scenarios x {len(TASKS)} problems = {count}; one seed each",
    )
