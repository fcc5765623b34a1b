"""Answers of tasks of one label space become one, by the weights given or learned; all others stay what they are."""

import copy
import itertools

import numpy as np
import pytest
import torch

from hf_mtl import InputError
from hf_mtl.modeling.aggregation import TASK_AGGREGATIONS
from tests.conftest import TASKS, build_model, encoder_inputs, randomise, unmoved_after, with_weights_of
from tests.modeling.test_conditioning import asked_batch

MERGING = [name for name in TASK_AGGREGATIONS if name != "none"]
# Three tasks of one label space and one of another, of each problem type that is merged; one that never is.
SAME = [
    {**TASKS[0], "name": "first"},
    {**TASKS[0], "name": "second", "class_weights": [1.0, 2.0, 3.0]},
    {**TASKS[0], "name": "third"},
    TASKS[1],
    {**TASKS[2], "name": "flag_a"},
    {**TASKS[2], "name": "flag_b", "threshold": 0.2},
    {**TASKS[2], "name": "flag_c", "labels": ["r", "q", "p"]},
    {**TASKS[3], "name": "star_a"},
    {**TASKS[3], "name": "star_b"},
    {**TASKS[3], "name": "star_c", "label_mean": 0.0},
    TASKS[4],
]
SPACES = (("first", "second", "third"), ("flag_a", "flag_b"), ("star_a", "star_b"))
ALONE = ("mood", "flag_c", "star_c", "names")


def build(aggregation, tasks=None, **settings):
    return randomise(build_model(SAME if tasks is None else tasks, aggregation=aggregation, **settings))


def pair(aggregation, tasks=None, interaction="cross_task_attention", **settings):
    """Every task's logits, merged and not, and the model that merges."""
    model = build(aggregation, tasks, task_interaction=interaction, **settings)
    plain = with_weights_of(build("none", tasks, task_interaction=interaction), model)
    return *(own(**encoder_inputs()).logits for own in (model, plain)), model


def close(found, expected, tolerance=1e-5, **more):
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance, **more)


def sigmoid(values):
    return 1 / (1 + np.exp(-values))


def softmax(values):
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def test_equal_weights_are_the_mean_and_others_stay():
    """S2.9: equal W give the mean; tasks of other label spaces are untouched, bit for bit."""
    found, own, _ = pair("mean")
    for space in SPACES:
        mean = sum(own[task] for task in space) / len(space)
        for task in space:
            close(found[task], mean, msg=task)
            assert not torch.allclose(own[task], mean, atol=1e-2)
    for task in ALONE:
        assert torch.equal(found[task], own[task]), task


@pytest.mark.parametrize("of", ["logits", "probabilities"])
@pytest.mark.parametrize("chosen", SPACES[0])
def test_one_weight_alone_is_that_tasks_answer(of, chosen):
    """S2.9: one-hot W give that head (of probabilities: up to what adds to all logits alike)."""
    weights = {task: float(task == chosen) for task in SPACES[0]}
    found, own, _ = pair("mean", aggregation_weights=weights, aggregation_of=of)
    for task in SPACES[0]:
        close(found[task].log_softmax(-1), own[chosen].log_softmax(-1), msg=task)
        if of == "logits":
            close(found[task], own[chosen], msg=task)


@pytest.mark.parametrize("of", ["logits", "probabilities"])
def test_weights_have_no_scale(of):
    """S2.9: W and 1000 W are one."""
    answers = []
    for scale in (1.0, 1000.0):
        given = {"first": scale, "second": 3 * scale, "third": 0.5 * scale, "flag_a": scale, "flag_b": 2 * scale}
        answers.append(pair("mean", aggregation_weights=given, aggregation_of=of)[0])
    for task in (*SPACES[0], *SPACES[1]):
        close(answers[0][task], answers[1][task], msg=task)


@pytest.mark.parametrize("of", ["logits", "probabilities"])
def test_the_mean_is_its_formula(of):
    """S2.9: sum W Y / sum W in NumPy, for every problem type that is merged."""
    given = {"first": 1.0, "second": 3.0, "third": 0.5, "flag_a": 0.2, "star_b": 5.0}
    found, own, _ = pair("mean", aggregation_weights=given, aggregation_of=of)
    found, own = ({task: values.detach().numpy() for task, values in answers.items()} for answers in (found, own))
    for space, kind in zip(SPACES, ("classes", "flags", "numbers")):
        weights = np.array([given.get(task, 1.0) for task in space])

        def mean(values, weights=weights):
            return np.tensordot(weights / weights.sum(), np.stack(list(values)), axes=1)

        for task in space:
            if of == "logits" or kind == "numbers":
                np.testing.assert_allclose(found[task], mean(own[task] for task in space), atol=1e-5)
            elif kind == "classes":
                expected = mean(softmax(own[task]) for task in space)
                np.testing.assert_allclose(softmax(found[task]), expected, atol=1e-5)
                np.testing.assert_allclose(np.exp(found[task]).sum(axis=-1), 1.0, atol=1e-5)
            else:
                expected = mean(sigmoid(own[task]) for task in space)
                np.testing.assert_allclose(sigmoid(found[task]), expected, atol=1e-5)


@pytest.mark.parametrize("of", ["logits", "probabilities"])
def test_probabilities_of_sure_heads_stay_finite(of):
    model = build("mean", aggregation_of=of)
    with torch.no_grad():
        for head in model.mtl.heads.values():
            for tensor in head.weight.parameters():
                tensor.mul_(1e4)
    output = model(**encoder_inputs())
    assert all(logits.isfinite().all() for logits in output.logits.values())
    sum(logits.sum() for logits in output.logits.values()).backward()
    assert all(own.grad is None or own.grad.isfinite().all() for own in model.parameters())


@pytest.mark.parametrize("name", MERGING)
def test_a_task_merges_only_what_it_reads(name):
    """A task that reads no other answers alone; one that reads another reads its answer, and no third's."""
    tasks = copy.deepcopy(SAME)
    for task in tasks:
        task["reads"] = []
    tasks[1]["reads"] = ["first"]
    tasks[4]["reads"] = ["flag_b"]
    found, own, model = pair(name, tasks, interaction="none")
    for task in own:
        assert torch.equal(found[task], own[task]) == (task not in ("second", "flag_a")), task
    if name == "mean":
        close(found["second"], (own["first"] + own["second"]) / 2)
    with torch.no_grad():
        for tensor in model.task_parameters("third"):
            tensor.add_(1.0)
    after = model(**encoder_inputs()).logits
    assert torch.equal(after["second"], found["second"])
    assert not torch.equal(after["third"], found["third"])


@pytest.mark.parametrize("name", ["learned", "attention"])
@pytest.mark.parametrize("of", ["logits", "probabilities"])
def test_what_is_learned_starts_as_no_aggregation(of, name):
    """S2.9, S2.10, LB-2: bit for bit, whatever all other tensors are; and then every tensor moves."""
    model = build(name, aggregation_of=of)
    plain = with_weights_of(build("none"), model)
    with torch.no_grad():
        for tensor in model.mtl.aggregation.scale.parameters():
            tensor.zero_()
    for task, logits in model(**encoder_inputs()).logits.items():
        assert torch.equal(logits, plain(**encoder_inputs()).logits[task]), task
    fresh = build_model(SAME, aggregation=name)
    assert not any(tensor.any() for tensor in fresh.mtl.aggregation.scale.parameters())


@pytest.mark.parametrize("name", ["learned", "attention"])
def test_every_tensor_wakes_up(name):
    """S2.10. The two tasks of the shared batch that have one label space here are the first two."""
    tasks = [TASKS[1], {**TASKS[1], "name": "temper"}, *TASKS[2:]]
    assert not unmoved_after(build_model(tasks, aggregation=name))


def opened(model, scale=20.0):
    """Let all of what is merged in."""
    with torch.no_grad():
        for tensor in model.mtl.aggregation.scale.parameters():
            tensor.fill_(scale)
    return model


def test_learned_weights_are_their_formula():
    """S2.10: W_i = sigmoid(v . tanh(U LN(S_i) + V tanh(W e_i)) + c), by loops over rows and tasks."""
    model = opened(build("learned"))
    score, names = model.mtl.aggregation.scores, model.config.task_names
    own = with_weights_of(build("none"), model)(**encoder_inputs())
    found, embeddings = model(**encoder_inputs()).logits, model.mtl.task_encoder()
    for row, space in itertools.product(range(3), SPACES):
        weights = []
        for task in space:
            index = names.index(task)
            state = score.state.weight @ score.norm(own.task_states[row, index])
            known = score.task_to_scores.weight @ (score.task.weight @ embeddings[index]).tanh()
            weights.append((score.output.weight[0] @ (state + known).tanh() + score.output.bias[0]).sigmoid())
        merged = sum(w * own.logits[task][row] for w, task in zip(weights, space)) / sum(weights)
        for task in space:
            close(found[task][row], merged, 1e-4, msg=task)


@pytest.mark.parametrize("scorer", ["general", "multi_head"])
def test_attention_over_outputs_is_its_formula(scorer):
    """S0.3, S0.7: y_t = sum_i a_ti C_i(R_i), a_t a softmax over the tasks of t's label space, by loops over rows and
    tasks; of several heads the mean weights.
    """
    settings = {"attention_scorer": scorer, "task_interaction": "attention_over_heads"}
    model = opened(build("attention", **settings))
    part, names = model.mtl.aggregation, model.config.task_names
    found = model(**encoder_inputs())
    states, embeddings = found.task_states, model.mtl.task_encoder()
    for row, space in itertools.product(range(3), SPACES):
        readable = [part.norm(states[row, names.index(task)]) + embeddings[names.index(task)] for task in space]
        own = {task: head_of(model, task, states[row, names.index(task)]) for task in space}
        for task, query in zip(space, readable):
            scores = torch.stack([part.scorer(query[None], key[None])[:, 0, 0] for key in readable])
            shares = scores.softmax(0).mean(dim=1)
            merged = sum(share * own[other] for share, other in zip(shares, space))
            close(found.logits[task][row], merged, 1e-4, msg=task)


def head_of(model, task, state):
    """A task's own answer to a state."""
    kind = next(own["problem_type"] for own in SAME if own["name"] == task)
    head = model.mtl.heads[kind]
    own = [tensors.get_parameter(f"task_{task}") for tensors in (head.weight, head.bias)]
    return (own[0] @ state + own[1]).squeeze(-1) if kind == "regression" else own[0] @ state + own[1]


def test_states_are_summed_where_label_spaces_differ_and_outputs_where_they_agree():
    """S0.3, S0.7: no state of a task whose output is read; without any such task, states alone."""
    settings = {"task_interaction": "attention_over_heads", "attention_scorer": "general"}
    model = build("attention", **settings)
    weights, names = (
        model(**encoder_inputs(), output_task_attentions=True).interaction_weights,
        model.config.task_names,
    )
    partners = {task: set(space) for space in SPACES for task in space}
    for task, other in itertools.product(names, names):
        is_read = task == other or other not in partners.get(task, ())
        assert bool((weights[:, 0, names.index(task), names.index(other)] > 0).all()) == is_read, (task, other)
    layers = build("attention", **settings, interaction_layers=2).mtl.interaction.layers
    for layer in layers:
        assert torch.equal(layer.task_weights.reads, model.mtl.interaction.task_weights.reads)
    with pytest.raises(InputError, match="aggregation_weights weigh answers of tasks with the same labels"):
        build("attention", TASKS, **settings, aggregation_weights={"mood": 2.0})
    states_alone = build("attention", TASKS, **settings)
    plain = with_weights_of(build("none", TASKS, **settings), states_alone)
    assert states_alone.state_dict().keys() == plain.state_dict().keys()
    for task, logits in states_alone(**encoder_inputs()).logits.items():
        assert torch.equal(logits, plain(**encoder_inputs()).logits[task])


def test_learned_weights_of_nothing_are_equal():
    """S2.10 (i): U = V = 0 and c = 0 give w = 1/2, and S2.9 is the plain mean."""
    model = opened(build("learned"))
    score = model.mtl.aggregation.scores
    with torch.no_grad():
        for tensor in (score.state.weight, score.task_to_scores.weight, score.output.bias):
            tensor.zero_()
    plain = with_weights_of(build("mean"), model)(**encoder_inputs()).logits
    for task, logits in model(**encoder_inputs()).logits.items():
        close(logits, plain[task], 1e-4, msg=task)


def test_a_scale_between_is_on_the_way():
    model = build("learned")
    shares, answers = (0.0, 0.5, 20.0), []
    for scale in shares:
        answers.append(opened(model, scale)(**encoder_inputs()).logits["second"])
    expected = answers[0] + torch.tensor(0.5).tanh() * (answers[2] - answers[0])
    close(answers[1], expected, 1e-4)


def test_learned_weights_take_the_given_ones_as_well():
    given = {"first": 0.0, "third": 0.0, "flag_a": 0.0, "star_b": 0.0}
    model = opened(build("learned", aggregation_weights=given))
    own = with_weights_of(build("none"), model)(**encoder_inputs()).logits
    for task, logits in model(**encoder_inputs()).logits.items():
        chosen = {"first": "second", "third": "second", "flag_a": "flag_b", "star_b": "star_a"}.get(task, task)
        close(logits, own[chosen], 1e-4, msg=task)


@pytest.mark.parametrize("name", MERGING)
def test_task_order_changes_nothing(name):
    """LB-5."""
    model = build(name)
    turned = with_weights_of(build(name, copy.deepcopy(SAME[::-1])), model)
    expected = model(**encoder_inputs()).logits
    for task, logits in turned(**encoder_inputs()).logits.items():
        close(logits, expected[task], 1e-4, msg=task)


@pytest.mark.parametrize("told", ["none", "modulation", "task_tokens"])
@pytest.mark.parametrize("name", MERGING)
def test_a_row_asked_of_one_task_reads_the_others(name, told):
    """LB-11: partners answer though the row is not asked of them."""
    model, inputs = build(name, conditioning=told), encoder_inputs()
    dense, rows = model(**inputs).logits, torch.arange(8)
    for index, task in enumerate(("first", "second", "third")):
        entries = {"rows": rows, "tasks": rows * 0 + index, "labels": rows % 3}
        batch = asked_batch({**inputs, "routing": {"single_label_classification": entries}})
        output = model(**batch)
        close(output.entry_logits["single_label_classification"][:, :3], dense[task], 1e-4, msg=task)
        assert output.loss.isfinite()


@pytest.mark.parametrize("name", MERGING)
def test_checkpoints_answer_alike(name, tmp_path):
    model = build(name, aggregation_weights={"first": 0.5}, aggregation_of="probabilities")
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path).eval()
    assert again.config.aggregation_weights == {"first": 0.5}
    for task, logits in model(**encoder_inputs()).logits.items():
        assert torch.equal(logits, again(**encoder_inputs()).logits[task]), task


@pytest.mark.parametrize("name", MERGING)
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"aggregation_weights": {"fist": 1.0}}, "task in aggregation_weights.*Did you mean 'first'"),
        ({"aggregation_weights": {"first": -1.0}}, "aggregation_weights of 'first' is -1.0"),
        (
            {"aggregation_weights": {"first": float("nan")}},
            "aggregation_weights={'first': nan}; expected a mapping",
        ),
        ({"aggregation_weights": dict.fromkeys(SPACES[0], 0.0)}, "are 0 for every task of a label space"),
        ({"aggregation_of": "odds"}, "aggregation_of"),
        ({"tasks": TASKS}, "no two tasks here have them"),
        ({"tasks": [{**task, "reads": []} for task in SAME]}, "no two tasks here have them"),
    ],
    ids=str,
)
def test_settings_that_cannot_be_are_named(name, settings, said):
    with pytest.raises(InputError, match=said):
        build(name, **settings)


def test_an_unknown_aggregation_is_named():
    with pytest.raises(InputError, match="Unknown aggregation 'means'"):
        build("means")


@pytest.mark.parametrize("name", MERGING)
def test_one_task_answers_alone(name):
    """LB-4."""
    model = build(name, SAME[:1])
    plain = with_weights_of(build("none", SAME[:1]), model)
    assert torch.equal(model(**encoder_inputs()).logits["first"], plain(**encoder_inputs()).logits["first"])
