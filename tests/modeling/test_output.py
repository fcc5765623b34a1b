"""What the model takes and returns is what Transformers' models take and return, by task name."""

import copy
import pickle

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import Trainer, TrainingArguments

from hf_mtl import MultiTaskAttentionConfig, MultiTaskAttentionModel
from hf_mtl.modeling import InputError, multitask_output
from hf_mtl.modeling.errors import LabelError
from hf_mtl.modeling.multitask_output import MultiTaskOutput, TaskLogits
from tests.conftest import TASKS, build_model, encoder_inputs, random_batch, randomise

ROWS, LENGTH = 8, 10
NAN = float("nan")
SHAPES = {
    "intent": (ROWS, 3),
    "mood": (ROWS, 2),
    "flags": (ROWS, 3),
    "stars": (ROWS,),
    "names": (ROWS, LENGTH, 3),
    "span": (ROWS, LENGTH, 2),
    "pick": (ROWS,),
}


def labels_by_task(rows: int = ROWS) -> dict[str, torch.Tensor]:
    """Labels of every task that reads one text, some of them holes."""
    index = torch.arange(rows)
    return {
        "intent": (index % 3).masked_fill(index == 1, -100),
        "mood": index % 2,
        "flags": torch.stack([index % 2, index % 3 == 0, index * 0], dim=1).float(),
        "stars": torch.where(index == 2, NAN, index / 2),
        "names": (index[:, None] + torch.arange(LENGTH)) % 3,
        "span": torch.stack([index * 0, index * 0 + 1], dim=1),
    }


@pytest.fixture(scope="module")
def model():
    return randomise(build_model())


def test_logits_are_by_name_with_and_without_labels(model):
    plain, labelled = model(**encoder_inputs()), model(**encoder_inputs(), labels=labels_by_task())
    for output in (plain, labelled):
        assert {name: tuple(logits.shape) for name, logits in output.logits.items()} == SHAPES
        assert all(torch.equal(output["logits"][name], plain.logits[name]) for name in SHAPES)
    assert plain.loss is None
    assert plain[0] is plain.logits
    assert labelled[0] is labelled.loss
    assert labelled[1] is labelled.logits
    assert list(labelled)[:2] == ["loss", "logits"]


def test_as_a_tuple_the_loss_comes_first(model):
    loss, logits, *_ = model(**encoder_inputs(), labels=labels_by_task(), return_dict=False)
    expected = model(**encoder_inputs(), labels=labels_by_task())
    assert loss == expected.loss
    assert list(logits) == list(SHAPES)
    other = copy.deepcopy(model)
    other.config.return_dict = False
    assert other(**encoder_inputs(), labels=labels_by_task())[0] == loss
    assert other(**encoder_inputs(), return_dict=True).logits["mood"].shape == (ROWS, 2)


@pytest.mark.parametrize("task", [name for name in SHAPES if name != "pick"])
def test_labels_by_name_are_the_labels_of_a_row_and_task(model, task):
    """The loss of labels by name is that of the same entries, routed; other tasks have none."""
    labels = labels_by_task()[task]
    output = model(**encoder_inputs(), labels={task: labels, "mood" if task != "mood" else "stars": None})
    index, place = torch.arange(ROWS), [one["name"] for one in TASKS].index(task)
    entries = {"rows": index, "tasks": torch.full((ROWS,), place), "labels": labels}
    if task == "span":
        entries["token_mask"] = encoder_inputs()["attention_mask"]
    routed = model(**encoder_inputs(), routing={TASKS[place]["problem_type"]: entries})
    torch.testing.assert_close(output.loss, routed.loss)
    assert torch.equal(output.task_label_counts, routed.task_label_counts)
    assert output.task_label_counts.count_nonzero() == 1
    torch.testing.assert_close(output.task_losses[task], output.loss)


@pytest.mark.parametrize("as_names", [False, True])
def test_with_task_ids_every_row_is_answered_for_its_task(model, as_names):
    task_ids = torch.tensor([3, 0, 4, 0, 2, 5, 3, 1])
    names = [TASKS[index]["name"] for index in task_ids]
    dense, given = model(**encoder_inputs()).logits, labels_by_task()
    rows = {name: [row for row, other in enumerate(names) if other == name] for name in dict.fromkeys(names)}
    labels = {name: given[name][places] for name, places in rows.items()}
    output = model(**encoder_inputs(), task_ids=task_ids, labels=labels if as_names else None)
    assert list(output.logits) == [task["name"] for task in TASKS if task["name"] in rows]
    assert "pick" not in output.logits
    for name, places in rows.items():
        torch.testing.assert_close(output.logits[name], dense[name][places], msg=name)
    if as_names:
        losses = {name: model(**encoder_inputs(), labels={name: given[name]}).task_losses[name] for name in ("mood",)}
        expected = torch.nn.functional.cross_entropy(dense["mood"][rows["mood"]], given["mood"][rows["mood"]])
        torch.testing.assert_close(output.task_losses["mood"], expected)
        assert losses["mood"] != expected


def test_task_ids_and_a_tensor_of_labels_go_together_where_one_kind_is_meant(model):
    task_ids = torch.tensor([0, 1, 0, 1, 0, 1, 0, 1])
    labels = task_ids % 2
    output = model(**encoder_inputs(), task_ids=task_ids, labels=labels)
    dense = model(**encoder_inputs()).logits
    losses = [
        torch.nn.functional.cross_entropy(dense[TASKS[task]["name"]][row : row + 1], labels[row : row + 1])
        for row, task in enumerate(task_ids.tolist())
    ]
    torch.testing.assert_close(output.loss, torch.stack(losses).mean())


def test_what_is_not_read_is_not_cut(model, monkeypatch):
    calls = []
    cut = multitask_output._logits_of_rows
    monkeypatch.setattr(multitask_output, "_logits_of_rows", lambda *given: calls.append(1) or cut(*given))
    output = model(**random_batch())
    assert output.loss.isfinite()
    assert isinstance(output.logits, TaskLogits)
    assert not calls
    assert {name: len(logits) for name, logits in output.logits.items()} == {
        "intent": 4,
        "mood": 4,
        "flags": 3,
        "stars": 5,
        "names": 6,
        "span": 4,
        "pick": 2,
    }
    assert output.logits["mood"].shape == (4, 2)
    assert calls == [1]
    again = pickle.loads(pickle.dumps(output.logits))
    assert torch.equal(again["stars"], output.logits["stars"])
    # What Accelerate and a Trainer do with mappings of tensors.
    assert torch.equal(type(output.logits)({"a": torch.ones(1)})["a"], torch.ones(1))


def test_a_training_step_reads_no_logits(model):
    output = model(**random_batch(), output_logits=False)
    assert output.logits is None
    assert output.loss == model(**random_batch()).loss


def test_choices_are_an_axis_of_the_inputs(model):
    inputs = {name: values.view(2, 4, -1) for name, values in encoder_inputs().items()}
    inputs["attention_mask"][1, 3] = 0
    output = model(**inputs, labels={"pick": torch.tensor([1, 0])})
    assert list(output.logits) == ["pick"]
    flat = model(**encoder_inputs()).logits["pick"].view(2, 4)
    expected = flat.masked_fill(torch.tensor([[False] * 4, [False] * 3 + [True]]), float("-inf"))
    torch.testing.assert_close(output.logits["pick"], expected)
    torch.testing.assert_close(output.loss, torch.nn.functional.cross_entropy(expected, torch.tensor([1, 0])))
    with pytest.raises(InputError, match=r"multiple choice.*\(rows, choices, length\)"):
        model(**encoder_inputs(), labels={"pick": torch.zeros(ROWS, dtype=torch.long)})
    with pytest.raises(InputError, match="this model has no such task"):
        build_model(TASKS[:2])(**inputs)


@pytest.mark.parametrize("beside", [{}, {"task_ids": torch.tensor([6, 6])}], ids=["every_task", "task_ids"])
@pytest.mark.parametrize("task", [row["name"] for row in TASKS[:6]])
def test_labels_of_a_task_that_answers_no_rows_with_choices_are_refused_by_its_name(model, task, beside):
    inputs = {name: values.view(2, 4, -1) for name, values in encoder_inputs().items()}
    right = torch.tensor([1, 0])
    with pytest.raises(InputError, match=rf"of task '{task}' \(.*multiple choice alone answers: pick.*\(rows, l"):
        model(**inputs, **beside, labels={"pick": right, task: right})
    with pytest.raises(InputError, match="Unknown task in `labels`: 'pikc'.*one of intent, .*Did you mean 'pick'"):
        model(**inputs, **beside, labels={"pikc": right})
    alone = model(**inputs, **beside, labels={"pick": right})
    assert torch.equal(model(**inputs, **beside, labels={"pick": right, task: None}).loss, alone.loss)


ZEROS = torch.zeros(ROWS, dtype=torch.long)
REFUSED = [
    ({"labels": ZEROS}, r"could be of any of the tasks intent, .* write labels=\{'intent': labels\}.*`task_ids`"),
    ({"labels": {"intend": ZEROS}}, "Unknown task in `labels`: 'intend'.*Did you mean 'intent'"),
    ({"labels": {"intent": [0] * ROWS}}, r"task 'intent' are a list; expected a tensor of the shape \(8,\)"),
    ({"labels": {"intent": ZEROS[:3]}}, r"task 'intent' are torch.int64 of the shape \(3,\); expected .*\(8,\)"),
    ({"labels": {"intent": torch.ones(ROWS)}}, "torch.float32 .*; expected torch.int64"),
    ({"start_positions": ZEROS}, "`start_positions` and `end_positions` go together"),
    ({"start_positions": ZEROS, "end_positions": ZEROS, "labels": {"span": torch.zeros(ROWS, 2)}}, "one question"),
    ({"task_ids": torch.full((ROWS,), 9)}, r"`task_ids` holds the index of a task.*expected one of 0 \(intent\)"),
    ({"task_ids": ZEROS, "labels": {"intent": ZEROS[:2]}}, "its 8 rows alone, in row order"),
    ({"task_ids": ZEROS, "labels": ZEROS[:2]}, "expected a tensor of 8 rows, as `task_ids` has"),
    ({"attention_mask": torch.ones(ROWS, 3)}, r"`attention_mask` has the shape \(8, 3\); expected \(8, 10\)"),
    ({"input_ids": None}, "neither of `input_ids` and `inputs_embeds`"),
    ({"inputs_embeds": torch.zeros(ROWS, LENGTH, 32)}, "both of `input_ids` and `inputs_embeds`"),
    ({"input_ids": ZEROS, "attention_mask": None}, r"`input_ids` has the shape \(8,\); expected \(rows, length\)"),
    ({"routing": random_batch()["routing"], "labels": {"mood": ZEROS}}, "`routing` holds tasks and labels"),
    ({"output_attentions": True}, "'sdpa' returns no attentions.*attn_implementation='eager'"),
]


@pytest.mark.parametrize(("given", "message"), REFUSED)
def test_what_could_mean_two_things_is_refused(model, given, message):
    with pytest.raises(InputError, match=message):
        model(**{**encoder_inputs(), **given})


def test_a_label_of_no_task_is_refused_by_name(model):
    with pytest.raises(LabelError, match="Task 'mood' is given the label 2"):
        model(**encoder_inputs(), labels={"mood": ZEROS + 2})


def test_hidden_states_and_attentions_are_the_encoders():
    model = build_model(attn_implementation="eager")
    encoder = model.encoder(**encoder_inputs(), output_hidden_states=True, output_attentions=True)
    output = model(**encoder_inputs(), output_hidden_states=True, output_attentions=True)
    for name in ("hidden_states", "attentions"):
        assert len(output[name]) == len(encoder[name])
        assert all(torch.equal(one, other) for one, other in zip(output[name], encoder[name]))
    assert model(**encoder_inputs()).hidden_states is None
    model.config.output_hidden_states = model.config.output_attentions = True
    assert len(model(**encoder_inputs()).hidden_states) == 3
    assert len(model(**encoder_inputs()).attentions) == 2
    assert model(**encoder_inputs(), output_attentions=False).attentions is None


@pytest.mark.parametrize("conditioning", ["none", "task_tokens", "input_addition", "separate_encoders"])
def test_every_way_of_encoding_returns_hidden_states(conditioning):
    model = randomise(build_model(TASKS[:2], conditioning=conditioning))
    states = model(**encoder_inputs(), output_hidden_states=True).hidden_states
    times = 1 if conditioning in ("none", "task_tokens") else 2
    assert [tuple(layer.shape) for layer in states] == [(ROWS * times, LENGTH, 32)] * 3


def test_positions_are_the_callers(model):
    inputs = encoder_inputs()
    counted = torch.arange(LENGTH).expand(ROWS, -1)
    expected = model(**inputs).logits["mood"]
    torch.testing.assert_close(model(**inputs, position_ids=counted).logits["mood"], expected)
    torch.testing.assert_close(model(**inputs, position_ids=torch.arange(LENGTH)).logits["mood"], expected)
    assert (model(**inputs, position_ids=counted + 3).logits["mood"] - expected).abs().max() > 1e-3


def rows_of(count: int) -> list[dict]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 50, (count, 6), generator=generator)
    return [{"input_ids": row, "attention_mask": row * 0 + 1, "labels": int(row[0] > 25)} for row in ids]


def test_a_stock_trainer_trains_and_evaluates_a_model_of_one_task(tmp_path):
    seen = []

    def compute_metrics(prediction):
        assert set(prediction.predictions) == {"mood"}
        seen.append(prediction.predictions["mood"].shape)
        return {"accuracy": float(np.mean(prediction.predictions["mood"].argmax(1) == prediction.label_ids))}

    model = build_model([TASKS[1]])
    args = TrainingArguments(
        output_dir=str(tmp_path), num_train_epochs=10, learning_rate=1e-2, save_strategy="no", use_cpu=True
    )
    trainer = Trainer(
        model, args, train_dataset=rows_of(64), eval_dataset=rows_of(64), compute_metrics=compute_metrics
    )
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert seen == [(64, 2)] * 2
    assert after["eval_loss"] < before["eval_loss"] / 2
    assert after["eval_accuracy"] > 0.9
    assert trainer.predict(rows_of(64)).label_ids.shape == (64,)


@pytest.mark.parametrize("task_type", ["SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS", "FEATURE_EXTRACTION", None])
def test_an_adapter_of_any_task_type_passes_inputs_and_labels(task_type):
    model = build_model([TASKS[1]])
    config = LoraConfig(task_type=task_type, target_modules=["query", "value"], modules_to_save=["mtl"], r=2)
    wrapped = get_peft_model(model, config)
    labels = {} if task_type in ("QUESTION_ANS", "FEATURE_EXTRACTION") else {"labels": ZEROS}
    output = wrapped(**encoder_inputs(), **labels, output_hidden_states=True)
    assert output.logits["mood"].shape == (ROWS, 2)
    assert len(output.hidden_states) == 3
    if labels:
        output.loss.backward()
        trained = {name for name, tensor in wrapped.named_parameters() if tensor.grad is not None}
        assert any("lora_B" in name for name in trained)
        assert any("mtl.modules_to_save" in name for name in trained)
    assert isinstance(wrapped.base_model.model, MultiTaskAttentionModel)


def test_a_text_that_is_one_choice_has_one_score(model):
    task_ids = torch.full((ROWS,), 6)
    expected = model(**encoder_inputs()).logits["pick"]
    assert expected.shape == (ROWS,)
    torch.testing.assert_close(model(**encoder_inputs(), task_ids=task_ids).logits["pick"], expected)


def test_a_stock_trainer_takes_the_logits_alone_for_predictions():
    fields = [name for name in MultiTaskOutput.__dataclass_fields__ if name not in ("loss", "logits")]
    assert MultiTaskAttentionConfig.keys_to_ignore_at_inference == fields
