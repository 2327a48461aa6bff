"""The paper read with its own tables: which of its statements do the printed numbers support?

A statement is *supported* where the tables say it, *not supported* where they say something else, and *cannot tell*
where what would decide it (spread, repetitions, a margin) is not printed. Only tables 2 and 4 print folds.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mixsup_lib.experiments.statistics import ARMS, holm
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
    found: list[Statement] = []

    def judge(where: str, says: str, holds: bool | None, because: str) -> None:
        verdict = CANNOT_TELL if holds is None else SUPPORTED if holds else NOT_SUPPORTED
        found.append(Statement(where, says, verdict, because))

    at = {n_fa: gains(n_fa) for n_fa in (5, 15, 30)}
    every = {(n_fa, *key): gain for n_fa in at for key, gain in at[n_fa].items()}
    whole = [gain["binary", "whole_tumor"] for gain in at.values()]
    folds = {(setting, region): fold_gains(setting, region) for setting in TABLES for region in REGIONS}

    plain, corrected = (sum(p < LEVEL for p in tests) for tests in zip(*fold_tests().values(), strict=True))
    says = "mixed supervision is significantly better: 15 FA, every region"
    because = (
        f"paired t-test over five folds: p < {LEVEL} in {plain} of {len(folds)} comparisons, in {corrected} "
        "after Holm's correction"
    )
    judge("abstract, section 4.3", says, corrected == len(folds), because)
    says = "mixed supervision is significantly better: 5 FA"
    because = (
        f"differences {min(at[5].values()):+.2f} to {max(at[5].values()):+.2f}, but neither folds, patients "
        "nor seeds are printed"
    )
    judge("abstract, section 4.3", says, None, because)
    others = [key for key in folds if not at[5][key] > at[15][key] > at[30][key]]
    exceptions = " and ".join(f"{setting} {region_name(region)}" for setting, region in others)
    ratio = (SCENARIOS[5] / 5) / (SCENARIOS[15] / 15)
    says = "the improvement is proportional to the ratio of weak to full scans"
    because = (
        f"in {len(folds) - len(others)} of {len(folds)} columns the gain grows with it (not in {exceptions}); "
        f"for the whole tumour it is {whole[0] / whole[1]:.1f} times as large "
        f"where the ratio is {ratio:.1f} times as large"
    )
    judge("abstract", says, not others, because)
    few = [*at[5].values(), *at[15].values()]
    better = sum(gain > 0 for gain in few)
    says = "with 5 and 15 FA mixed is ahead on all regions, binary and multiclass (means)"
    because = f"{better} of {len(few)} means are higher; the smallest difference is {min(few):+.2f} points"
    judge("section 4.3", says, better == len(few), because)
    largest = [every[5, setting, "whole_tumor"] for setting in ("binary", "multiclass")]
    says = "the largest improvements are whole tumour at 5 FA: 8 points binary, 9 multiclass"
    because = f"{largest[0]:+.2f} and {largest[1]:+.2f}, the largest two of {len(every)}"
    holds = sorted(every.values())[-2:] == largest and [round(gain) for gain in largest] == [8, 9]
    judge("section 4.3", says, holds, because)
    losses = [(*key, fold) for key, gain in folds.items() for fold in np.flatnonzero(gain <= 0) + 1]
    compared = len(folds) * N_FOLDS
    says = "15 FA: an improvement in all folds and regions but one fold of the enhancing core, binary"
    because = f"{compared - len(losses)} of {compared} differences are positive; the other is fold {losses[0][2]}"
    judge("section 4.3", says, [loss[:2] for loss in losses] == [("binary", "enhancing_core")], because)
    says = "with 30 FA both perform alike"
    because = (
        f"differences {min(at[30].values()):+.2f} to {max(at[30].values()):+.2f}; to call that equal needs "
        "a margin named beforehand and a spread, and neither is printed"
    )
    judge("section 4.3", says, None, because)
    arms = [(means[arm, 5], means[arm, 15]) for means, _ in TABLES.values() for arm in ARMS]
    steps = [after - before for pair in arms for before, after in zip(*pair, strict=True)]
    says = "Dice rises quickly with the first annotated scans, in both arms"
    because = f"from 5 to 15 FA by {min(steps):.1f} to {max(steps):.1f} points, in all {len(steps)} columns"
    judge("section 4.3", says, min(steps) > 0, because)
    means, columns = TABLES["binary"]
    mixed, standard = means["mixed", 5][0], means["standard", 15][0]
    spread = np.std(columns["standard", "whole_tumor"][:N_FOLDS], ddof=1) / np.sqrt(N_FOLDS)
    says = "whole tumour: mixed with 5 FA is slightly better than standard with 15 FA"
    because = (
        f"{mixed} against {standard}: {mixed - standard:+.2f}, with a standard error of {spread:.2f} over the "
        "folds of the latter alone; the scenarios test other folds"
    )
    holds = mixed > standard if abs(mixed - standard) > 2 * spread else None
    judge("section 4.3, figure 7", says, holds, because)
    says = "whole tumour: the improvement shrinks as more scans are annotated"
    because = f"{whole[0]:+.2f}, {whole[1]:+.2f} and {whole[2]:+.2f} at 5, 15 and 30 FA"
    judge("figure 7", says, whole == sorted(whole, reverse=True), because)
    scenarios = sum(weak > 0 for weak in SCENARIOS.values())
    count = N_FOLDS * scenarios * len(TASKS)
    says = "the comparison rests on 60 tests"
    because = f"{N_FOLDS} folds x {scenarios} scenarios x {len(TASKS)} problems = {count}; one seed each"
    judge("section 4.2", says, count == 60, because)
    return found
