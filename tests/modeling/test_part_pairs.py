"""What must hold for every pair of parts, from the tables of parts, so that a part added later is tested too."""

import copy
import itertools

import pytest
import torch
from torch.nn import functional as F

from hf_mtl.modeling.aggregation import TASK_AGGREGATIONS
from hf_mtl.modeling.encoder_conditioning import TASK_CONDITIONINGS
from hf_mtl.modeling.gate import TASK_GATES
from hf_mtl.modeling.head import HEAD_READINGS
from hf_mtl.modeling.interaction import TASK_INTERACTIONS
from hf_mtl.modeling.interaction_base import ScaledInteraction
from hf_mtl.modeling.pooling import TASK_POOLINGS
from hf_mtl.modeling.systems import SYSTEMS
from tests.conftest import TASKS, build_model, encoder_inputs
from tests.modeling import test_limit_battery as battery
from tests.modeling.test_conditioning import loaded, shaken

PAIRED = [TASKS[1], {**TASKS[1], "name": "temper"}, TASKS[3], TASKS[4]]
TABLES = {
    "conditioning": TASK_CONDITIONINGS,
    "pooling": TASK_POOLINGS,
    "task_interaction": TASK_INTERACTIONS,
    "gate": TASK_GATES,
    "head": HEAD_READINGS,
    "aggregation": TASK_AGGREGATIONS,
}
PLAIN = {"pooling": "mean", "task_interaction": "none", "gate": "none"}
# The pooler reads where task tokens stand, and says so.
REFUSED = [{"conditioning": "task_tokens", "pooling": "pooler"}]


def is_refused(settings):
    return any(settings.items() >= refused.items() for refused in REFUSED)


def covering():
    """Models in which every two names of two tables stand together at least once, found one after the other: each
    takes, table by table, the name that brings most new pairs with those that it has.
    """
    parts = list(TABLES)
    open_pairs = {
        frozenset({one, other})
        for first, second in itertools.combinations(parts, 2)
        for one, other in itertools.product(
            [(first, name) for name in TABLES[first]], [(second, name) for name in TABLES[second]]
        )
        if not is_refused(dict([one, other]))
    }
    models = []
    while open_pairs:
        settings = dict(min(open_pairs, key=lambda pair: sorted(pair)))
        for part in [part for part in parts if part not in settings]:
            names = [name for name in TABLES[part] if not is_refused({**settings, part: name})]
            new = {
                name: sum(frozenset({(part, name), item}) in open_pairs for item in settings.items()) for name in names
            }
            settings[part] = max(names, key=new.__getitem__)
        open_pairs -= {frozenset(pair) for pair in itertools.combinations(settings.items(), 2)}
        models.append({part: settings[part] for part in parts})
    return models


PAIRS = covering()


def build(settings, tasks=None):
    # A gate has something to hold back where tasks read each other.
    read = {"task_interaction": "cross_task_attention"} if "gate" in settings else {}
    return build_model(PAIRED if tasks is None else tasks, **{**PLAIN, **read, **settings})


def same(what, found, expected, mask=None, tolerance=1e-4):
    """Compare logits by task; of tags only those of words, or none where rows differ in length."""
    assert found.keys() == expected.keys()
    for task, logits in found.items():
        other = expected[task]
        if logits.ndim == 3:
            if mask is None:
                continue
            logits, other = logits[mask], other[mask]
        if tolerance:
            torch.testing.assert_close(logits, other, atol=tolerance, rtol=tolerance, msg=f"{what}: {task}")
        else:
            assert torch.equal(logits, other), f"{what}: {task}"


def asked_of_two():
    """A batch whose rows are answered for two tasks each: row r for tasks r and r + 1, in turn in either order."""
    rows, count = torch.arange(8), len(PAIRED)
    first, second = rows % count, (rows + 1) % count
    turned = (rows // count % 2).bool()
    asked_tasks = torch.stack([torch.where(turned, second, first), torch.where(turned, first, second)], dim=1)
    routing = {}
    for index, task in enumerate(PAIRED):
        places, slots = (asked_tasks == index).nonzero().T
        entries = {"rows": places, "tasks": places * 0 + index, "slots": slots}
        known = routing.setdefault(task["problem_type"], entries)
        if known is not entries:
            known.update({key: torch.cat([known[key], entries[key]]) for key in known})
    return {**encoder_inputs(), "asked_tasks": asked_tasks, "routing": routing}


@torch.no_grad()
def check(settings):
    """The start is hard sharing (LB-2); then, whatever the parameters, LB-5, LB-6, LB-7 and LB-11."""
    model, inputs = build(settings), encoder_inputs()
    mask = inputs["attention_mask"].bool()
    kept = {key: settings[key] for key in ("pooling", "aggregation") if key in settings}
    plain = loaded(build(kept), model)
    exact = settings.get("conditioning", "none") == "none"
    same("start", model(**inputs).logits, plain(**inputs).logits, mask, 0 if exact else 1e-6)

    logits = shaken(model)(**inputs).logits
    longer = {key: F.pad(value, (0, 5), value=7 * (key == "input_ids")) for key, value in inputs.items()}
    same("padding", model(**longer).logits, logits)
    some = slice(5, 6)
    alone = model(**{key: value[some] for key, value in inputs.items()}).logits
    same("a row alone", alone, {task: own[some] for task, own in logits.items()}, mask[some])
    turned = loaded(build(settings, copy.deepcopy(PAIRED[::-1])), model)
    found = turned(**inputs).logits
    same("task order", {task: found[task] for task in logits}, logits, mask)

    batch = asked_of_two()
    for name, scores in model(**batch).entry_logits.items():
        entries = batch["routing"][name]
        for row, task, one in zip(entries["rows"].tolist(), entries["tasks"].tolist(), scores):
            expected = logits[PAIRED[task]["name"]][row]
            one = one.squeeze(-1) if name == "regression" else one
            if one.ndim == 2:
                one, expected = one[mask[row]], expected[mask[row]]
            torch.testing.assert_close(one, expected, atol=1e-4, rtol=1e-4, msg=f"asked: {PAIRED[task]['name']}")


@pytest.mark.parametrize("settings", PAIRS, ids=lambda settings: "-".join(settings.values()))
def test_parts_keep_the_limits_together(settings):
    """LB-2, LB-5, LB-6, LB-7, LB-11 of every pair of parts, whatever stands beside them."""
    check(settings)


def test_every_pair_of_names_stands_in_a_model():
    for first, second in itertools.combinations(TABLES, 2):
        for names in itertools.product(TABLES[first], TABLES[second]):
            pair = dict(zip((first, second), names))
            assert is_refused(pair) or any(model.items() >= pair.items() for model in PAIRS), pair


def test_pairs_are_refused_by_name():
    for settings in REFUSED:
        with pytest.raises(ValueError, match="choose another pooling"):
            build(settings)


@pytest.mark.parametrize("told", TASK_CONDITIONINGS)
@pytest.mark.parametrize("head", HEAD_READINGS)
@torch.no_grad()
def test_what_is_merged_is_what_each_task_says(head, told):
    """S2.9: the mean of the answers that the tasks give alone."""
    settings = {"head": head, "conditioning": told}
    model = shaken(build({**settings, "aggregation": "mean"}))
    own = loaded(build(settings), model)(**encoder_inputs()).logits
    found = model(**encoder_inputs()).logits
    for task in ("mood", "temper"):
        torch.testing.assert_close(found[task], (own["mood"] + own["temper"]) / 2, atol=1e-4, rtol=1e-4, msg=task)


class MeanOfOthers(ScaledInteraction):
    """Every task reads the mean of all, projected by a matrix that a layer norm precedes."""

    def __init__(self, config):
        super().__init__(config)
        self.norm = torch.nn.LayerNorm(config.hidden_size)
        self.value = torch.nn.Linear(config.hidden_size, config.hidden_size)

    def mix(self, states, embeddings):
        return self.value(self.norm(states) + embeddings).tanh().mean(dim=1, keepdim=True).expand_as(states)


def test_a_new_interaction_is_one_class_and_one_line(monkeypatch):
    """One class and one line in the table suffice for all that holds of interactions, training included."""
    name = "mean_of_others"
    monkeypatch.setitem(TASK_INTERACTIONS, name, MeanOfOthers)
    for gate in TASK_GATES:
        battery.test_the_start_is_hard_sharing_bit_for_bit(name, {}, gate)
    for test in (
        battery.test_every_tensor_wakes_up,
        battery.test_one_task_is_the_single_task_model,
        battery.test_task_order_changes_nothing,
        battery.test_rows_do_not_read_each_other,
        battery.test_gradients_are_those_of_differences,
        battery.test_answering_some_tasks_answers_them_alike,
    ):
        test(name, {})
    for told in TASK_CONDITIONINGS:
        check({"conditioning": told, "task_interaction": name})


@torch.no_grad()
@pytest.mark.parametrize("system", SYSTEMS)
def test_a_system_starts_as_hard_sharing(system):
    """LB-2, S2.2: before training all systems are one (task queries start as the mean); what they become differs, see
    test_systems_are_different_computations.
    """
    model = build_model(PAIRED, **SYSTEMS[system].settings)
    plain = loaded(build_model(PAIRED, **SYSTEMS["hard_sharing"].settings), model)
    inputs = encoder_inputs()
    same(system, model(**inputs).logits, plain(**inputs).logits, inputs["attention_mask"].bool(), 1e-6)
