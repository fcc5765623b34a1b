"""What benchmarks/published claims, on fewer seeds."""

import numpy as np
import pytest
import torch
from tqdm import tqdm

from benchmarks.published.clusters import PLANTED, agreement, read_clusters
from benchmarks.published.experts import ARMS, CROSS_TASK, FEATURES, MMOE, OMOE, SHARED_BOTTOM, run_experts
from benchmarks.published.keywords import KEYWORDS, LEXICAL_RANKS, read_keywords
from benchmarks.published.signs import BARE, FREE, read_sign
from benchmarks.published.stacks import Stack, shuffled, squared_errors, train

pytestmark = pytest.mark.slow


@pytest.fixture
def bar():
    return tqdm(disable=True)


@pytest.mark.parametrize("arm", ARMS)
def test_models_trained_at_once_are_those_trained_alone(arm):
    generator = torch.Generator().manual_seed(0)
    given, labels = torch.randn(2, 40, FEATURES, generator=generator), torch.randn(2, 40, 2)
    found = []
    for chosen in ([0, 1], [0], [1]):
        stack = Stack([ARMS[arm](seed) for seed in chosen])
        optimizer = torch.optim.Adam(stack.learned, lr=1e-2)
        data = given[chosen], labels[chosen]
        train(optimizer, squared_errors(stack, shuffled(data, 20, torch.Generator().manual_seed(0))))
        found.append(stack(data[0]).detach())
    torch.testing.assert_close(found[0], torch.cat(found[1:]), atol=1e-3, rtol=1e-3)


def test_experts_beat_a_shared_bottom():
    """Ma et al. 2018, at every correlation; that a gate per task beats one gate does not reproduce."""
    errors = run_experts(range(3), epochs=8)
    for arm in (OMOE, MMOE):
        assert (errors[arm] < errors[SHARED_BOTTOM]).sum() >= 8  # of 3 seeds times 3 correlations
        assert (errors[arm].mean(axis=1) < 0.8 * errors[SHARED_BOTTOM].mean(axis=1)).all()
    assert errors[CROSS_TASK].mean() <= errors[SHARED_BOTTOM].mean()


def test_a_map_of_planted_clusters_is_found():
    perfect = (PLANTED[:, None] == PLANTED).astype(float)
    assert agreement(perfect[None]) == [1.0]


@pytest.mark.parametrize("reader", ["cross_task_attention", "attention_over_heads"])
def test_attention_shows_clusters_where_reading_them_helps(reader, bar):
    shown = read_clusters("own views", reader, range(3), bar)
    assert shown.recovered.mean() >= 0.9
    assert abs(shown.chance).max() < 0.2
    assert shown.errors.mean() < read_clusters("own views", "none", range(3), bar).errors.mean()


@pytest.mark.parametrize("regime", ["same view", "same state"])
def test_attention_shows_nothing_where_it_does_not(regime, bar):
    assert read_clusters(regime, "cross_task_attention", range(3), bar).recovered.mean() < 0.5


def test_signs_are_right_where_they_are_identified(bar):
    for sign in (1.0, -1.0):
        assert (sign * read_sign(BARE, sign, range(4), bar).weights > 0).mean() >= 0.9
        assert (sign * read_sign(FREE, sign, range(4), bar).effects > 0).mean() >= 0.9


@pytest.mark.parametrize("rank", LEXICAL_RANKS)
def test_each_task_attends_to_its_word(rank, bar):
    own = read_keywords(rank, range(2), bar)
    attention = own.attention.mean(axis=0)  # (tasks, words)
    assert (attention.diagonal() > 0.9).all()
    assert attention[~np.eye(KEYWORDS, dtype=bool)].max() < 0.5
    assert own.accuracy.min() > 0.99
