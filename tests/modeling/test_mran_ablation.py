"""The school-like data are what they say, and the ablation says what was planted and measures what it names."""

from unittest import mock

import numpy as np
import pytest
import torch

from benchmarks.mran_ablation.__main__ import page
from benchmarks.mran_ablation.arms import (
    ALONE,
    ARMS,
    HARD,
    LAYERS,
    SCORERS,
    SINGLE,
    SYSTEM,
    WHOLE,
    WITHOUT,
    Errors,
    SchoolReader,
    run_ablation,
)
from benchmarks.mran_ablation.schools import (
    CLUSTER_SCHOOLS,
    CLUSTERS,
    FEATURES,
    HELD_OUT,
    LARGEST,
    NOISE,
    SCHOOLS,
    SHARES,
    SMALLEST,
    draw_features,
    draw_schools,
    school_sizes,
)
from benchmarks.mran_ablation.verdicts import answers, compare, verdicts
from hf_mtl.modeling.attention_scorers import ATTENTION_SCORERS
from hf_mtl.modeling.interaction_mran import RELATIONS


def test_schools_are_a_function_of_the_seed():
    first, again, other = (draw_schools(seed) for seed in (3, 3, 4))
    for split, students in first.splits.items():
        for one, same, another in zip(students, again.splits[split], other.splits[split]):
            assert one.equal(same)
            assert one.shape == another.shape
        assert not students.scores.equal(other.splits[split].scores)


def test_sizes_are_unequal_and_every_cluster_has_small_and_large_schools():
    sizes = school_sizes()
    assert (sizes.min(), sizes.max(), len(np.unique(sizes))) == (SMALLEST, LARGEST, SCHOOLS)
    by_cluster = sizes.reshape(CLUSTERS, CLUSTER_SCHOOLS)
    assert (by_cluster.min(axis=1) < by_cluster.max(axis=1) / 4).all()
    splits = draw_schools(0).splits
    assert np.bincount(splits["train"].schools).tolist() == sizes.tolist()
    for split, count in HELD_OUT.items():
        assert np.bincount(splits[split].schools).tolist() == [count] * SCHOOLS


def test_features_are_numbers_and_flags_of_mean_0_and_variance_1():
    features = draw_features(20_000, torch.Generator().manual_seed(0))
    assert features.shape[1] == FEATURES
    assert features.mean(dim=0).abs().max() < 0.05
    assert (features.var(dim=0) - 1).abs().max() < 0.1
    values = [len(column.unique()) for column in features.T]
    assert sorted(set(values))[0] == 2 and max(values) > 1000


def test_clusters_are_planted():
    """Schools of a cluster share more of their weights, and all share some."""
    near, far = [], []
    for seed in range(20):
        schools = draw_schools(seed)
        cosines = torch.corrcoef(schools.weights).numpy()
        same = schools.clusters[:, None] == schools.clusters
        near.append(cosines[same & ~np.eye(SCHOOLS, dtype=bool)].mean())
        far.append(cosines[~same].mean())
    linear = SHARES["shared"] + SHARES["cluster"] + SHARES["school"]
    assert np.mean(near) == pytest.approx((SHARES["shared"] + SHARES["cluster"]) / linear, abs=0.05)
    assert np.mean(far) == pytest.approx(SHARES["shared"] / linear, abs=0.05)


def test_scores_have_the_variance_that_is_said():
    variances = [draw_schools(seed).splits["test"].scores.var().item() for seed in range(40)]
    assert np.mean(variances) == pytest.approx(sum(SHARES.values()) + NOISE, rel=0.1)


def errors_of(explained: dict[str, float], seeds: int = 10) -> dict[str, Errors]:
    """Errors of all arms: a level, that of MRAN where none is given, luck of each seed and a little of each arm."""
    rng = np.random.default_rng(0)
    luck = rng.normal(0, 3, seeds)
    return {
        arm: Errors(np.ones(seeds), 35 + luck + explained.get(arm, 0.0) + rng.normal(0, 0.3, seeds)) for arm in ARMS
    }


def test_words_follow_planted_differences():
    planted = errors_of({SINGLE: -5.0, HARD: 5.0, ALONE["task_task"]: -5.0})
    by_arm = verdicts(planted)
    named = {SINGLE: "beats", HARD: "loses to", ALONE["task_task"]: "beats"}
    assert by_arm == {arm: named.get(arm, "cannot be told from") for arm in ARMS if arm != WHOLE}
    first, second, third, _ = answers(planted)
    assert f"MRAN beats {SINGLE}; MRAN loses to {HARD}; MRAN cannot be told from {LAYERS}." in first
    assert f"MRAN beats {ALONE['task_task']};" in second
    assert all(name in third for name in WITHOUT.values())
    assert f"MRAN loses to {HARD}" in page(planted, 10, 1)


def test_a_difference_is_that_of_a_hand_computation():
    first, second = (Errors(np.ones(3), np.array(values)) for values in ([1.0, 2.0, 6.0], [0.0, 2.0, 2.0]))
    difference = compare(first, second)  # 1, 0, 4
    error = (((1 - 5 / 3) ** 2 + (5 / 3) ** 2 + (4 - 5 / 3) ** 2) / 2 / 3) ** 0.5
    assert difference.mean == pytest.approx(5 / 3)
    assert difference.margin == pytest.approx(4.302653 * error)
    assert difference.wins == 2


@pytest.mark.parametrize("name", RELATIONS)
def test_an_arm_has_the_modules_that_its_name_says(name):
    others = set(RELATIONS) - {name}
    assert set(ARMS[ALONE[name]]["mran_relations"]) == {name}
    assert set(ARMS[WITHOUT[name]]["mran_relations"]) == others
    assert all(ARMS[of[name]].items() >= {**SYSTEM, "mran_relations": mock.ANY}.items() for of in (ALONE, WITHOUT))


def test_every_scorer_is_an_arm():
    assert {ARMS[arm]["attention_scorer"] for arm in (WHOLE, *SCORERS.values())} == set(ATTENTION_SCORERS)


def test_untrained_mran_is_what_it_stands_on():
    students = draw_schools(0).splits["test"]
    scores = [SchoolReader(0, **ARMS[arm])(students.features, students.schools)[0] for arm in (LAYERS, WHOLE)]
    assert scores[0].equal(scores[1])


def test_sharing_beats_single_tasks():
    errors = run_ablation(range(3), arms=(SINGLE, HARD), epochs=8)
    assert (errors[HARD].explained > errors[SINGLE].explained).all()
    assert (errors[HARD].rmse < errors[SINGLE].rmse).all()
    assert errors[HARD].explained.mean() < 100 * sum(SHARES.values()) / (sum(SHARES.values()) + NOISE)
