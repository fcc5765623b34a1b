"""A cascade: what a parent's head says of a row is an input of its children's states."""

import copy

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from hf_mtl import InputError
from hf_mtl.modeling.encoder_conditioning import TASK_CONDITIONINGS
from hf_mtl.modeling.head import HEAD_READINGS
from hf_mtl.modeling.task_tensors import Carried
from hf_mtl.training.training_order import left_out, model_of, tasks_apart
from tests.conftest import TASKS, build_model, encoder_inputs, random_batch, randomise, unmoved_after, with_weights_of
from tests.modeling.test_conditioning import asked_batch, loaded, shaken

# intent speaks to mood and stars, these to flags, that to tasks whose heads read word pieces and choices.
PARENTS = {"mood": "intent", "stars": ["intent"], "flags": ["stars", "mood"], "names": "flags", "pick": ["flags"]}
ANCESTORS = {"mood": {"intent"}, "stars": {"intent"}, "flags": {"intent", "mood", "stars"}}
PLAIN = {"task_interaction": "none", "pooling": "mean", "gate": "none"}


def build(parents=None, tasks=None, **settings):
    return build_model(tasks, task_parents=copy.deepcopy(PARENTS if parents is None else parents), **settings)


def matrix(model, child):
    return model.mtl.task_parents.answer_to_state.get_parameter(f"task_{child}")


def close(found, expected, tolerance=1e-5, **more):
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance, **more)


def softmax(values):
    powers = np.exp(values - values.max())
    return powers / powers.sum()


def test_children_read_what_their_parents_say():
    """S0.14: H'_t = H_t + sum_p W_tp y_p by loops over rows, tasks and parents, y_p of the head that reads H'_p."""
    with torch.no_grad():
        model = randomise(build())
        output, names = model(**encoder_inputs()), [task["name"] for task in TASKS]
        tokens = model.encoder(**encoder_inputs()).last_hidden_state.numpy()
        heads = model.mtl.heads

        def own(kind, part, name):
            return getattr(heads[kind], part).get_parameter(f"task_{name}").numpy()

        for row in range(8):
            states = {name: output.task_states[row, index].numpy().copy() for index, name in enumerate(names)}
            said = {}
            for name, kind, answer in (
                ("intent", "single_label_classification", softmax),
                ("mood", "single_label_classification", softmax),
                ("stars", "regression", lambda values: values),
                ("flags", "multi_label_classification", lambda values: 1 / (1 + np.exp(-values))),
            ):
                place = 0
                # In the order of their names.
                for parent in sorted([PARENTS[name]] if isinstance(PARENTS.get(name), str) else PARENTS.get(name, [])):
                    for value in said[parent]:
                        states[name] += value * matrix(model, name).numpy()[place]
                        place += 1
                logits = own(kind, "weight", name) @ states[name] + own(kind, "bias", name)
                np.testing.assert_allclose(output.logits[name][row].numpy().reshape(-1), logits, atol=1e-4)
                said[name] = answer(logits)
            state = states["names"] + said["flags"] @ matrix(model, "names").numpy()
            read = tokens[row] + heads["token_classification"].task_to_token.weight.numpy() @ state
            tags = read @ own("token_classification", "weight", "names").T + own(
                "token_classification", "bias", "names"
            )
            np.testing.assert_allclose(output.logits["names"][row].numpy(), tags, atol=1e-4)
            state = states["pick"] + said["flags"] @ matrix(model, "pick").numpy()
            score = own("multiple_choice", "weight", "pick") @ state
            np.testing.assert_allclose(output.logits["pick"][row].numpy().reshape(-1), score, atol=1e-4)


def test_the_start_is_no_cascade_bit_for_bit():
    """S0.14, LB-2: whatever all other tensors are."""
    model = shaken(build())
    with torch.no_grad():
        for tensor in model.mtl.task_parents.parameters():
            tensor.zero_()
    plain = with_weights_of(build_model(), model)
    expected = plain(**encoder_inputs()).logits
    for task, logits in model(**encoder_inputs()).logits.items():
        assert torch.equal(logits, expected[task]), task
    assert not any(tensor.any() for tensor in build().mtl.task_parents.parameters())


def test_every_tensor_wakes_up():
    assert not unmoved_after(build())


def test_a_task_hears_of_its_ancestors_alone():
    """S0.14: what changes a head changes its descendants' answers, through others in between too, and no others'."""
    model = randomise(build(**PLAIN))
    before = model(**encoder_inputs()).logits
    descendants = {"intent": {"mood", "stars", "flags", "names", "pick"}, "stars": {"flags", "names", "pick"}}
    for task, heirs in descendants.items():
        kind = next(row["problem_type"] for row in TASKS if row["name"] == task)
        other = copy.deepcopy(model)
        with torch.no_grad():
            other.mtl.heads[kind].bias.get_parameter(f"task_{task}")[0] += 1.0
        after = other(**encoder_inputs()).logits
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        assert changed == {task, *heirs}


def gradients_of(model, child):
    """By task, the tensors of its own that the child's loss gives a gradient."""
    batch = random_batch()
    model.zero_grad()
    model(**batch).task_losses[child].backward()
    return {
        task["name"]: {
            name
            for name, tensor in model.named_parameters()
            if name.endswith(f".task_{task['name']}") and tensor.grad is not None and tensor.grad.any()
        }
        for task in TASKS
    }


@pytest.mark.parametrize("child", ANCESTORS)
def test_a_child_gives_its_parents_no_gradient_if_detached(child):
    """S0.14: none of its ancestors' tensors has a gradient of its loss; without detaching all of them have one."""
    settings = {**PLAIN, "pooling": "task_queries"}
    ancestors = ANCESTORS[child]
    apart = gradients_of(randomise(build(**settings)), child)
    assert {task for task, tensors in apart.items() if tensors} == {child}
    assert f"mtl.task_parents.answer_to_state.task_{child}" in apart[child]
    together = gradients_of(randomise(build(**settings, detach_parents=False)), child)
    assert {task for task, tensors in together.items() if tensors} == {child, *ancestors}
    for parent in ancestors & PARENTS.keys():
        assert f"mtl.task_parents.answer_to_state.task_{parent}" in together[parent]


def test_detaching_changes_no_answer():
    model = randomise(build())
    attached = with_weights_of(build(detach_parents=False), model)
    expected = attached(**encoder_inputs()).logits
    for task, logits in model(**encoder_inputs()).logits.items():
        assert torch.equal(logits, expected[task]), task


def test_gradients_are_those_of_differences():
    """LB-9."""
    model = randomise(build(detach_parents=False, **PLAIN)).double()
    part, heads = model.mtl.task_parents, model.mtl.heads
    states = torch.randn(2, len(TASKS), 32, dtype=torch.float64, requires_grad=True)
    tokens = torch.randn(2, 3, 32, dtype=torch.float64)

    def read(states):
        return part(Carried(heads), tokens, states)

    assert torch.autograd.gradcheck(read, (states,))


@torch.no_grad()
@pytest.mark.parametrize("told", TASK_CONDITIONINGS)
def test_a_row_asked_of_a_child_alone_reads_its_parents(told):
    """LB-11: parents answer though the row is not asked of them, of the row as it is encoded for them."""
    model, inputs = shaken(build(conditioning=told)), encoder_inputs()
    dense, rows = model(**inputs).logits, torch.arange(8)
    for index in (1, 2, 3, 4):
        entries = {"rows": rows, "tasks": rows * 0 + index}
        kind, name = TASKS[index]["problem_type"], TASKS[index]["name"]
        output = model(**asked_batch({**inputs, "routing": {kind: entries}}))
        width = dense[name].shape[-1] if dense[name].ndim > 1 else 1
        found = output.entry_logits[kind][..., :width]
        close(found.squeeze(-1) if dense[name].ndim == 1 else found, dense[name], 1e-4, msg=name)


def test_parents_answer_a_row_as_it_is_encoded_for_them():
    """S0.14: where each task has an encoder, a parent's head reads what its own encoder says of the row."""
    with torch.no_grad():
        settings = {**PLAIN, "conditioning": "separate_encoders", "head": "convolution"}
        model, inputs = shaken(build({"intent": "mood"}, **settings)), encoder_inputs()
        before = model(**inputs).logits
        for tensor in model.encoder.encoders["task_mood"].parameters():
            tensor.mul_(0.9)
        after = model(**inputs).logits
        assert {name for name in before if not torch.equal(before[name], after[name])} == {"intent", "mood"}
        plain = loaded(build_model(**settings), model)(**inputs).logits
        added = plain["mood"].softmax(dim=-1) @ matrix(model, "intent")
        weight = model.mtl.heads["single_label_classification"].weight.get_parameter("task_intent")
        close(after["intent"], plain["intent"] + added @ weight.T, 1e-4)


@torch.no_grad()
@pytest.mark.parametrize("head", HEAD_READINGS)
@pytest.mark.parametrize("told", ["none", "modulation", "task_tokens"])
def test_padding_other_rows_and_the_order_of_tasks_change_nothing(told, head):
    """LB-5, LB-6, LB-7."""
    model, inputs = shaken(build(conditioning=told, head=head)), encoder_inputs()
    mask = inputs["attention_mask"].bool()

    def same(found, rows=slice(None)):
        for task, logits in found.items():
            other = expected[task][rows]
            if task in ("names", "span"):
                places = mask[rows]
                logits, other = logits[:, : places.shape[1]][places], other[places]
            close(logits, other, 1e-4, msg=task)

    expected = model(**inputs).logits
    same(model(**{key: F.pad(value, (0, 5), value=7 * (key == "input_ids")) for key, value in inputs.items()}).logits)
    same(model(**{key: value[5:6] for key, value in inputs.items()}).logits, slice(5, 6))
    turned = build(
        {child: PARENTS[child] for child in reversed(PARENTS)},
        copy.deepcopy(TASKS[::-1]),
        conditioning=told,
        head=head,
    )
    same(loaded(turned, model)(**inputs).logits)


def test_the_order_of_parents_is_that_of_their_names():
    model = randomise(build())
    other = build({**PARENTS, "flags": ["mood", "stars"]})
    other = with_weights_of(other, model)
    assert torch.equal(other(**encoder_inputs()).logits["flags"], model(**encoder_inputs()).logits["flags"])


def test_parents_speak_before_answers_are_merged():
    """With aggregation a child reads what its parent's own head says."""
    tasks = [TASKS[0], {**TASKS[0], "name": "theme"}, TASKS[1]]
    model = randomise(build({"mood": "intent"}, tasks, aggregation="mean"))
    alone = with_weights_of(build({"mood": "intent"}, tasks), model)
    found, expected = model(**encoder_inputs()).logits, alone(**encoder_inputs()).logits
    assert torch.equal(found["mood"], expected["mood"])
    assert not torch.allclose(found["intent"], expected["intent"], atol=1e-2)


def test_checkpoints_answer_alike(tmp_path):
    model = randomise(build(detach_parents=False))
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path).eval()
    assert (again.config.task_parents, again.config.detach_parents) == (PARENTS, False)
    expected = model(**encoder_inputs()).logits
    for task, logits in again(**encoder_inputs()).logits.items():
        assert torch.equal(logits, expected[task]), task


def test_a_model_of_some_tasks_keeps_the_parents_that_are_left():
    model = randomise(build())
    some = model_of(model, ["intent", "mood", "flags"])
    assert some.config.task_parents == {"mood": "intent", "flags": ["mood"]}
    # Of mood and stars, in this order, the rows of mood.
    assert torch.equal(matrix(some, "flags"), matrix(model, "flags")[:2])
    given = {"mood": "intent", "flags": ["stars", "mood"]}
    assert left_out(model, ["intent", "mood", "flags"]) == [f"task_parents={given}"]
    assert left_out(model, ["intent", "mood"]) == []
    alone = model_of(model, ["mood"])
    assert alone.config.task_parents == {}
    assert "task_parents={'mood': 'intent'}" in left_out(model, ["mood"])
    whole = model_of(model, list(model.config.task_names), trained=some)
    assert torch.equal(matrix(whole, "flags"), matrix(model, "flags"))


def test_training_tasks_apart_is_refused():
    with pytest.raises(InputError, match="task_parents"), tasks_apart(build()):
        pass


def test_one_task_has_no_parent():
    """LB-4."""
    assert not build({}, TASKS[:1]).mtl.task_parents.reads_tasks
    with pytest.raises(InputError, match="Unknown parent"):
        build({"intent": "mood"}, TASKS[:1])


@pytest.mark.parametrize(
    ("parents", "said"),
    [
        ({"moood": "intent"}, "Unknown task in task_parents 'moood'.*Did you mean 'mood'"),
        ({"mood": "intents"}, "Unknown parent of 'mood' in task_parents: 'intents'.*Did you mean 'intent'"),
        ({"mood": "mood"}, "task_parents gives 'mood' itself as parent"),
        ({"mood": []}, "gives 'mood' the parents \\[\\]; expected a task, or several that differ"),
        ({"mood": ["intent", "intent"]}, "expected a task, or several that differ"),
        (
            {"mood": "intent", "intent": "flags", "flags": ["stars", "mood"]},
            "a circle: 'mood' reads 'intent' reads 'flags' reads 'mood'",
        ),
        ({"stars": "mood", "mood": "intent", "intent": "mood"}, "a circle: 'mood' reads 'intent' reads 'mood'"),
        ({"mood": "names"}, "'names' \\(token_classification\\), which answers word pieces.*intent, flags, stars"),
        ({"mood": "span"}, "choose a task_interaction, e.g. cross_task_attention"),
        ({"mood": ["intent", "pick"]}, "'pick' \\(multiple_choice\\)"),
        ({"mood": 3}, "task_parents={'mood': 3}; expected a mapping of names to texts or lists of texts or null"),
        ({"mood": [3]}, "expected a mapping of names to texts or lists of texts"),
        (["mood"], "expected a mapping of names to texts or lists of texts"),
    ],
    ids=str,
)
def test_parents_that_cannot_be_are_named(parents, said):
    with pytest.raises(InputError, match=said):
        build(parents)


def test_a_child_that_leaves_its_parent_out_of_reads_is_named():
    tasks = copy.deepcopy(TASKS)
    tasks[1]["reads"] = ["flags"]
    with pytest.raises(InputError, match="reads=\\['flags'\\].*parent 'intent'; add 'intent' to its `reads`"):
        build({"mood": "intent"}, tasks)
    tasks[1]["reads"] = ["flags", "intent"]
    build({"mood": "intent"}, tasks)
