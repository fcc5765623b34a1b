"""The batches of a mixture: a pure function of seed and step, every row once a pass, little padding."""

from collections import Counter

import numpy as np
import pytest

from hf_mtl import InputError
from hf_mtl.data.batch_forms import BATCH_FORMS, RowCosts, StepShape
from hf_mtl.data.mixing import MIXING_STRATEGIES, CallableMixing, MixingOptions
from hf_mtl.data.sampler import WINDOW_STEPS, MixtureBatchSampler

SIZES = [600, 150, 42, 8]
TASKS = tuple("abcd")


def costs(sizes, choices=False) -> RowCosts:
    generator = np.random.default_rng(0)
    lengths = generator.integers(5, 60, sum(sizes))
    return RowCosts(lengths, generator.integers(1, 5, sum(sizes)) if choices else None)


def sampler(sizes=SIZES, mixing="proportional", batch_rows=8, batches=1, grouped=True, **settings):
    options = MixingOptions(
        tasks=TASKS[: len(sizes)],
        target_scores=dict.fromkeys(TASKS, 80.0),
        temperature=settings.pop("temperature", 2.0),
    )
    shape = StepShape(
        batch_rows, batches, settings.pop("tasks_per_step", 2), tokens_per_batch=settings.pop("tokens_per_batch", None)
    )
    strategy = MIXING_STRATEGIES[mixing](options) if isinstance(mixing, str) else mixing
    found = settings.pop("costs", costs(sizes)) if grouped else None
    return MixtureBatchSampler(sizes, strategy, shape, costs=found, **{"seed": 3, **settings})


def step_rows(own, steps):
    return [np.concatenate(own.step(step)).tolist() for step in steps]


def tasks_of(own, rows):
    return np.searchsorted(own.starts, np.asarray(rows), side="right") - 1


def epoch_rows(own, epoch):
    own.set_epoch(epoch)
    return [row for batch in own for row in batch]


@pytest.mark.parametrize("grouped", [False, True], ids=["plain", "grouped"])
@pytest.mark.parametrize("form", BATCH_FORMS)
@pytest.mark.parametrize("mixing", MIXING_STRATEGIES)
def test_steps_are_a_pure_function(mixing, form, grouped):
    """Forwards, backwards and from anywhere a step has the same rows; another seed has others."""
    first, second = (sampler(mixing=mixing, form=form, grouped=grouped) for _ in range(2))
    forwards = step_rows(first, range(250))
    assert step_rows(second, reversed(range(250)))[::-1] == forwards
    assert step_rows(sampler(mixing=mixing, form=form, grouped=grouped), [177]) == [forwards[177]]
    assert step_rows(sampler(mixing=mixing, form=form, grouped=grouped, seed=4), range(250)) != forwards


@pytest.mark.parametrize("form", BATCH_FORMS)
@pytest.mark.parametrize("mixing", MIXING_STRATEGIES)
def test_every_task_goes_through_its_rows_in_whole_passes(mixing, form):
    """Whatever shares, form and length grouping: no row comes again before its task's pass is over.

    Counted at the ends of windows, inside which length grouping moves rows about.
    """
    own = sampler(mixing=mixing, form=form)
    windows = [[] for _ in range(8 * own.epoch_windows)]
    for step in range(8 * own.epoch_steps):
        windows[own.window_of(step)] += np.concatenate(own.step(step)).tolist()
    for task, size in enumerate(SIZES):
        counts = np.zeros(size, dtype=int)
        for rows in windows:
            mine = np.array([row for row in rows if tasks_of(own, row) == task], dtype=int)
            np.add.at(counts, mine - own.starts[task], 1)
            assert counts.max() - counts.min() <= 1
        assert counts.max() > 0


@pytest.mark.parametrize("grouped", [False, True], ids=["plain", "grouped"])
@pytest.mark.parametrize("sizes", [SIZES, [40, 24], [2000, 48]], ids=str)
def test_an_epoch_holds_every_row_once(sizes, grouped):
    """The tasks' rows fill whole batches here, so that an epoch is exactly one pass over each."""
    own = sampler(sizes, grouped=grouped)
    assert sum(sizes) % own.shape.rows == 0
    epochs = [epoch_rows(own, epoch) for epoch in range(3)]
    for rows in epochs:
        assert Counter(rows) == Counter(range(sum(sizes)))
    assert epochs[0] != epochs[1]
    assert epochs[1] != epochs[2]


@pytest.mark.parametrize("mixing", ["proportional", "temperature", "uniform", "explicit", "round_robin"])
def test_shares_are_exact_to_one_draw(mixing):
    """At every step as drawn, and at every window's end with length grouping."""
    plain, grouped = (sampler(mixing=mixing, grouped=flag) for flag in (False, True))
    shares = plain.strategy.shares(plain.sizes)
    for own in (plain, grouped):
        drawn = np.zeros(len(SIZES))
        for step in range(600):
            drawn += np.bincount(tasks_of(own, np.concatenate(own.step(step))), minlength=len(SIZES))
            if own is plain or own.window_of(step + 1) != own.window_of(step):
                assert np.abs(drawn - (step + 1) * 8 * shares).max() <= 1
                assert (own.drawn(step + 1) == drawn).all()


@pytest.mark.parametrize("mixing", MIXING_STRATEGIES)
def test_preview_is_what_is_drawn(mixing):
    own = sampler(mixing=mixing, epochs=2.0)
    steps = 2 * own.epoch_steps
    counts = np.bincount(tasks_of(own, np.concatenate(step_rows(own, range(steps)))), minlength=len(SIZES))
    preview = own.preview(TASKS, steps)
    assert [line.draws for line in preview] == counts.tolist()
    assert sum(line.share for line in preview) == pytest.approx(1)
    for line, size in zip(preview, SIZES):
        assert (line.rows, line.passes) == (size, line.draws / size)


def test_annealed_shares_end_where_they_should():
    own = sampler(sizes=[6000, 150, 42, 8], mixing="annealed", epochs=3.0)
    np.testing.assert_allclose(own.shares_of_window(0), own.sizes / own.sizes.sum())
    last = own.sizes**0.2 / (own.sizes**0.2).sum()
    np.testing.assert_allclose(own.shares_of_window(own.run_windows - 1), last)
    np.testing.assert_allclose(own.shares_of_window(own.run_windows + 5), last)


def test_a_function_of_the_progress_turns_a_task_off():
    own = sampler(mixing=CallableMixing(lambda sizes, progress: [1, 1, 1, float(progress < 0.5)]), epochs=4.0)
    last = own.window_of(4 * own.epoch_steps - 1)
    late = [step for step in range(4 * own.epoch_steps) if own.window_of(step) == last]
    assert 3 not in tasks_of(own, np.concatenate(step_rows(own, late)))


@pytest.mark.parametrize("form", BATCH_FORMS)
def test_accumulation_and_processes_do_not_change_a_step(form):
    """24 rows per step as 1 batch, as 3 of 8, as 12 of 2: the same rows (for one_task: of 8-row batches)."""
    shapes = {"one_task": [(8, 3)], "mixed": [(24, 1), (8, 3), (2, 12)], "k_tasks": [(24, 1), (8, 3), (2, 12)]}
    found = []
    for batch_rows, batches in shapes[form]:
        own = sampler(form=form, batch_rows=batch_rows, batches=batches)
        assert all(len(own.step(step)) == batches for step in range(5))
        assert len(own) == own.epoch_steps * batches
        found.append([sorted(rows) for rows in step_rows(own, range(120))])
    assert all(rows == found[0] for rows in found)


def test_one_task_a_batch():
    own = sampler(form="one_task", batches=3)
    for step in range(100):
        for batch in own.step(step):
            assert len(batch) == 8
            assert len(set(tasks_of(own, batch).tolist())) == 1
    # Tasks come to batches in proportion to their rows.
    batches = [batch for step in range(100) for batch in own.step(step)]
    counts = np.bincount([tasks_of(own, batch)[0] for batch in batches], minlength=4)
    assert np.abs(counts - 300 * np.array(SIZES) / 800).max() <= 1


@pytest.mark.parametrize("few", [1, 2, 4])
def test_few_tasks_a_step(few):
    own = sampler(form="k_tasks", tasks_per_step=few, batches=2, mixing="uniform")
    seen = set()
    for step in range(200):
        tasks = tasks_of(own, np.concatenate(own.step(step)))
        counts = np.bincount(tasks, minlength=4)
        assert (counts > 0).sum() <= few
        assert set(counts[counts > 0].tolist()) <= {16 // few * times for times in range(1, few + 1)}
        seen |= set(tasks.tolist())
    assert seen == {0, 1, 2, 3}


def test_a_step_that_cannot_be_divided_is_refused():
    with pytest.raises(InputError, match="tasks_per_step=3"):
        sampler(form="k_tasks", tasks_per_step=3)


@pytest.mark.parametrize("batches", [1, 2, 6])
@pytest.mark.parametrize("choices", [False, True], ids=["rows", "choices"])
def test_a_token_budget_is_kept(choices, batches):
    """No batch costs more, padding and choices counted; every row comes once an epoch; steps are whole."""
    own = sampler(tokens_per_batch=300, batches=batches, costs=costs(SIZES, choices))
    steps = [own.step(step) for step in range(own.epoch_steps)]
    found = [batch for step in steps for batch in step]
    assert all(len(step) == batches for step in steps)
    assert max(own.costs.padded(batch) for batch in found) <= 300
    assert Counter(np.concatenate(found).tolist()) == Counter(range(sum(SIZES)))
    assert len({len(batch) for batch in found}) > 3
    full = sum(own.costs.padded(batch) for batch in found) / (300 * len(found))
    assert full > 0.6
    # The stream goes on into the next pass, and is reached from anywhere.
    later = sampler(tokens_per_batch=300, batches=batches, costs=costs(SIZES, choices))
    at = 3 * own.epoch_steps + 1
    assert step_rows(later, [at]) == step_rows(own, range(at + 1))[-1:]


def test_a_row_longer_than_the_budget_has_its_own_batch():
    own = sampler(tokens_per_batch=40)
    for step in range(own.epoch_steps):
        (batch,) = own.step(step)
        assert own.costs.padded(batch) <= 40 or len(batch) == 1


def test_a_token_budget_needs_lengths():
    for wrong in ({"grouped": False}, {"form": "one_task"}):
        with pytest.raises(InputError, match="tokens_per_batch"):
            sampler(tokens_per_batch=300, **wrong)


def padding(own, steps):
    batches = [batch for step in steps for batch in own.step(step)]
    lengths = costs(SIZES).lengths
    used, paid = (
        sum(lengths[batch].sum() for batch in batches),
        sum(lengths[batch].max() * len(batch) for batch in batches),
    )
    return 1 - used / paid


@pytest.mark.parametrize("form", BATCH_FORMS)
def test_length_grouping_saves_padding(form):
    grouped, plain = (sampler(form=form, grouped=flag) for flag in (True, False))
    steps = range(grouped.epoch_steps)
    assert padding(grouped, steps) < padding(plain, steps) / (4 if form == "mixed" else 1.5)


def test_batches_are_drawn_from_all_tasks_from_the_start():
    """A task of 1 in 19 rows waits for no other's pass to end."""
    own = sampler([1800, 100], grouped=False)
    rows = np.concatenate(step_rows(own, range(WINDOW_STEPS)))
    places = np.flatnonzero(rows >= 1800)
    assert len(places) > 20
    assert np.diff(places).max() <= 2 * 19


def test_pairs_name_task_and_row():
    own = sampler()
    tasks, rows = own.pairs(11)
    assert (own.starts[tasks] + rows == np.concatenate(own.step(11))).all()
    assert (rows < own.sizes[tasks]).all()


def test_a_task_without_rows_is_refused():
    with pytest.raises(InputError, match="at least one"):
        sampler([5, 0])
