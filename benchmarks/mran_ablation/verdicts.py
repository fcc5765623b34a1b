"""Whether MRAN beats its parts and what it stands on: differences over seeds, in a table and in words."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from scipy import stats

from benchmarks.mran_ablation.arms import ALONE, HARD, LAYERS, SCORERS, SINGLE, SYSTEM, WHOLE, WITHOUT, Errors
from benchmarks.published.tables import table
from hf_mtl.paired_intervals import holm

ERROR_RATE = 0.05


class Difference(NamedTuple):
    """How much more variance an arm explains than another one, seed by seed.

    Args:
        mean: In points of explained variance.
        margin: Half of its 95 % interval (Student's, over seeds).
        p: Of no difference, two-sided.
        wins: Seeds in which the arm explains more.
    """

    mean: float
    margin: float
    p: float
    wins: int


def compare(arm: Errors, other: Errors) -> Difference:
    """Return the paired difference of two arms on the same seeds."""
    differences = arm.explained - other.explained
    seeds = len(differences)
    error = differences.std(ddof=1) / seeds**0.5
    far = float(stats.t.ppf(0.975, seeds - 1) * error)
    p = 2 * float(stats.t.sf(abs(differences.mean()) / error, seeds - 1)) if error else float(not differences.any())
    return Difference(float(differences.mean()), far, p, int((differences > 0).sum()))


# What MRAN is held against: what it stands on and beside, its parts, and its other scorers.
QUESTIONS: dict[str, Sequence[str]] = {
    "Does MRAN beat what has no relations?": (SINGLE, HARD, LAYERS),
    "Does the whole beat each of its modules alone?": tuple(ALONE.values()),
    "Does each module add to the whole?": tuple(WITHOUT.values()),
    f"Does another scorer beat `{SYSTEM['attention_scorer']}`?": tuple(SCORERS.values()),
}


def verdicts(errors: Mapping[str, Errors]) -> dict[str, str]:
    """Return for each arm whether MRAN beats it, loses to it, or neither; Holm-corrected over all arms."""
    compared = {arm: compare(errors[WHOLE], measured) for arm, measured in errors.items() if arm != WHOLE}
    corrected = holm({arm: difference.p for arm, difference in compared.items()})
    signs = {arm: "beats" if difference.mean > 0 else "loses to" for arm, difference in compared.items()}
    return {arm: signs[arm] if corrected[arm] < ERROR_RATE else "cannot be told from" for arm in compared}


def answers(errors: Mapping[str, Errors]) -> list[str]:
    """Return the questions with their answers in words."""
    by_arm, lines = verdicts(errors), []
    for question, arms in QUESTIONS.items():
        kinds: dict[str, list[str]] = {}
        for arm in arms:
            kinds.setdefault(by_arm[arm], []).append(arm)
        said = "; ".join(f"MRAN {kind} {', '.join(named)}" for kind, named in kinds.items())
        lines.append(f"- {question} {said}.")
    return lines


def error_table(errors: Mapping[str, Errors]) -> list[str]:
    """Return a line per arm: errors, and how much more variance MRAN explains."""
    head = ["arm", "RMSE", "explained variance", "MRAN explains more by", "in seeds", "MRAN"]
    rows, by_arm = [head], verdicts(errors)
    for arm, measured in errors.items():
        cells = [arm, f"{measured.rmse.mean():.3f}", f"{measured.explained.mean():.1f}"]
        if arm != WHOLE:
            difference = compare(errors[WHOLE], measured)
            low, high = difference.mean - difference.margin, difference.mean + difference.margin
            cells.append(f"{difference.mean:+.1f} ({low:+.1f} to {high:+.1f})")
            cells += [f"{difference.wins} of {len(measured.rmse)}", by_arm[arm]]
        rows.append(cells + [""] * (len(head) - len(cells)))
    return table(*rows)
