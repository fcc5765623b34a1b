"""The public processor: rows in, what `model(**batch)` takes out; and its logits as the answers of `predict`."""

import copy
import math
import pickle
import shutil

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import BertConfig, BertModel, RobertaConfig, XLNetConfig

import hf_mtl
from hf_mtl import InputError, MultiTaskAttentionConfig, MultiTaskAttentionModel, MultiTaskProcessor
from hf_mtl.modeling.batch_tensors import MultiTaskBatch
from tests.conftest import assert_answers_close, build_model, randomise

TEXTS = ["to Lima and back", "hello", ""]
CHOICES = [
    {"text": "to Lima and back", "choices": ["x", "y z"]},
    {"text": "b", "choices": ["x", "y", "z z z"], "label": "of nobody"},
]
QUESTIONS = [
    {"question": "who?", "context": "Bob went to Lima with Ann, who had been there with a dog. " * 2},
    {"question": "where?", "context": "In Lima."},
]
WORDS = [{"tokens": ["to", "Lima"]}, "a longer text of more words"]
ROWS = [CHOICES[0], {**CHOICES[1], **QUESTIONS[0]}, *WORDS, *TEXTS, QUESTIONS[1]]

# What is asked, and rows that have all fields for it.
SELECTIONS = {
    "all": (None, ROWS),
    "classes": ("intent", TEXTS),
    "flags": ("flags", TEXTS),
    "numbers": ("stars", TEXTS),
    "tags": ("names", WORDS),
    "spans": ("span", QUESTIONS),
    "choices": ("pick", CHOICES),
    "one in a list": (["mood"], TEXTS),
    "two that read alike": ({"intent", "names"}, TEXTS),
    "two that do not": (("pick", "mood"), CHOICES),
}


@pytest.fixture(scope="module")
def model(tokenizer):
    return randomise(build_model(vocab_size=tokenizer.vocab_size))


@pytest.fixture(scope="module")
def folder(model, tokenizer, tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint")
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def processor(folder):
    return MultiTaskProcessor.from_pretrained(folder)


def assert_equal(batch, other) -> None:
    assert set(batch) == set(other)
    for name in batch:
        assert torch.equal(batch[name], other[name]), name


@pytest.mark.parametrize("name", SELECTIONS)
def test_logits_become_what_predict_answers(model, processor, tokenizer, name):
    tasks, rows = SELECTIONS[name]
    batch = processor(rows, tasks, labels=False)
    outputs = model(**batch)
    answers = model.predict(rows, tasks, tokenizer)
    assert_answers_close(processor.post_process(outputs, batch), answers, 1e-5)
    assert_answers_close(processor.post_process(outputs.logits, batch), answers, 1e-5)
    assert all(answers)


@pytest.mark.parametrize("tasks", [None, "intent"])
def test_the_logits_of_a_task_are_those_of_its_rows_in_order(model, processor, tasks):
    # Rows that only some tasks answer, or read otherwise, stand between them.
    rows = [CHOICES[0], *TEXTS] if tasks else [CHOICES[0], TEXTS[0], QUESTIONS[0], *TEXTS[1:]]
    logits = model(**processor(rows, tasks)).logits["intent"]
    assert len(logits) == 4
    for row, scores in zip([CHOICES[0], *TEXTS], logits):
        alone = model(**processor(row, "intent")).logits["intent"]
        torch.testing.assert_close(scores, alone[0], atol=1e-5, rtol=0)


def test_one_task_has_plain_inputs(processor):
    batch = processor(TEXTS, tasks="intent")
    assert list(batch) == ["input_ids", "attention_mask", "token_type_ids", "task_ids"]
    assert batch["input_ids"].shape == batch.input_ids.shape == (3, 6)
    assert batch["task_ids"].tolist() == [0, 0, 0]
    choices = processor(CHOICES, "pick", labels=False)
    assert choices["input_ids"].shape == (2, 3, 9)
    assert choices["attention_mask"].any(dim=-1).tolist() == [[True, True, False], [True, True, True]]


def test_a_model_of_one_task_needs_no_word_of_it(tokenizer):
    task = {"name": "mood", "problem_type": "single_label_classification", "labels": ["bad", "good"]}
    model = build_model([task], vocab_size=tokenizer.vocab_size)
    processor = MultiTaskProcessor.for_model(model, tokenizer)
    batch = processor([{"text": "a", "label": "good"}, {"text": "b", "label": 0}])
    assert_equal(batch, {**tokenizer(["a", "b"], return_tensors="pt"), "labels": torch.tensor([1, 0])})
    loss = torch.nn.functional.cross_entropy(model(**batch).logits["mood"], batch["labels"])
    torch.testing.assert_close(model(**batch).loss, loss)


def test_a_row_is_read_once_for_tasks_that_read_it_alike(processor):
    batch = processor(TEXTS, tasks=["intent", "mood", "flags", "stars", "names"])
    assert batch["input_ids"].shape[0] == 3
    assert batch["asked_tasks"].shape == (3, 5)


def test_a_context_has_a_row_per_window(model, processor):
    batch = processor(QUESTIONS, "span")
    assert batch.row_indices("span") == [0, 0, 1]
    assert model(**batch).logits["span"].shape == (3, 24, 2)
    assert len(processor.post_process(model(**batch), batch)) == 2


LABELS = {
    "intent": (TEXTS, ["c", 0, None], [2, 0, -100]),
    "mood": (TEXTS, np.array([1, -1, 0]), [1, -100, 0]),
    "flags": (TEXTS, [["q"], [1, 0, 1], None], [[0, 1, 0], [1, 0, 1], [-100] * 3]),
    "stars": (TEXTS, [2, 4.5, math.nan], [2, 4.5, math.nan]),
    "names": (["Bob Lima", "to"], [["B-X", 2], [-100]], [[-100, 1, 2, -100], [-100] * 4]),
    "pick": (CHOICES, ["y z", 0], [1, 0]),
    "span": (
        [QUESTIONS[1]] * 2,
        [{"text": ["Lima"], "answer_start": [3]}, {"text": [], "answer_start": []}],
        [[5, 5], [0, 0]],
    ),
}


@pytest.mark.parametrize("task", LABELS)
def test_labels_are_those_that_the_model_takes(model, processor, task):
    rows, labels, expected = LABELS[task]
    batch = processor(rows, tasks=task, labels=labels)
    assert torch.equal(
        batch["labels"].nan_to_num(7), torch.tensor(expected, dtype=batch["labels"].dtype).nan_to_num(7)
    )
    outputs = model(**batch)
    assert outputs.loss > 0 and list(outputs.logits) == [task]
    column = "answers" if task == "span" else "label"
    fields = [row if isinstance(row, dict) else {"text": row} for row in rows]
    marked = [{**row, column: label} for row, label in zip(fields, labels)]
    same = processor(marked, tasks=task)
    assert torch.equal(same["labels"].nan_to_num(7), batch["labels"].nan_to_num(7))
    assert "labels" not in processor(marked, tasks=task, labels=False)
    by_task = model(**processor(rows, labels={task: labels}))
    torch.testing.assert_close(by_task.task_losses[task], outputs.task_losses[task], atol=1e-5, rtol=1e-5)


def test_labels_of_several_tasks_have_holes(model, processor):
    labels = {"intent": ["a", None, "b"], "names": [None, ["O"], None]}
    outputs = model(**processor(TEXTS, labels=labels))
    assert dict(zip(processor.tasks, outputs.task_label_counts.tolist())) == {
        **dict.fromkeys(processor.tasks, 0),
        "intent": 2,
        "names": 1,
    }
    columns = {"text": TEXTS, "labels": [dict(zip(labels, values)) for values in zip(*labels.values())]}
    torch.testing.assert_close(model(**processor(columns)).loss, outputs.loss)
    outputs.loss.backward()


def test_a_data_set_trains(processor, model):
    model = copy.deepcopy(model).train()
    data = Dataset.from_dict({"text": ["a", "b", "c", "d"], "label": [0, 1, 1, 0], "idx": [3, 2, 1, 0]})
    loader = torch.utils.data.DataLoader(data, batch_size=2, collate_fn=lambda rows: processor(rows, tasks="mood"))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(6):
        for batch in loader:
            losses.append(model(**batch.to("cpu")).loss)
            losses[-1].backward()
            optimizer.step()
            optimizer.zero_grad()
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(
    ("rows", "options", "says"),
    [
        ([], {}, "no rows"),
        ("a", {"tasks": "mod"}, "Did you mean 'mood'"),
        ("a", {"tasks": "span"}, "Row 0: no field 'question', which task 'span' needs"),
        ("a", {"max_length": 5}, "takes no 'max_length': a task reads .* as its `max_length` says. It takes rows, "),
        ("a", {"truncation": False}, "takes no 'truncation'"),
        (None, {"text": "a"}, r"takes no 'text': rows come first: processor\(rows\)\. It takes rows, "),
        (None, {}, "The rows are None; expected a text"),
        ("a", {"text_pair": "b"}, "takes no 'text_pair': a second text is a field"),
        ("a", {"task": "mood"}, "takes no 'task'.*Did you mean 'tasks'"),
        ("a", {"padding": False}, "padding=False; expected True or 'longest', or 'max_length'"),
        ("a", {"pad_to_multiple_of": 0}, "pad_to_multiple_of=0"),
        ("a", {"return_tensors": "tf"}, "return_tensors='tf'; expected 'pt', 'np', or None"),
        ("a", {"labels": [1]}, "`labels` could be of any of the tasks intent, mood"),
        ({"text": "a", "label": 1}, {}, r"Row 0: label=1 could be of any of the tasks.*labels=False leaves"),
        ({"text": "a", "labels": {"mod": 1}}, {}, "row 0: 'mod'.*Did you mean 'mood'"),
        ("a", {"labels": {"mod": [1]}}, "Did you mean 'mood'"),
        ("a", {"tasks": "mood", "labels": [1, 0]}, "labels of task 'mood' are 2, the rows 1"),
        ("a", {"tasks": "mood", "labels": 1}, "labels=1; expected a list with one label per row"),
        (
            {"text": "a", "label": "godo"},
            {"tasks": "mood"},
            r"Row 0: the label 'godo' .*expected one of bad, good.*Did",
        ),
        ("a", {"tasks": "mood", "labels": [2]}, "the label 2 of task 'mood'.* from 0 to 1"),
        ("a", {"tasks": "mood", "labels": [0.5]}, "the label 0.5"),
        ("a", {"tasks": "flags", "labels": [["p", "z"]]}, "names among p, q, r, or 3 flags"),
        ("a", {"tasks": "flags", "labels": [[0, 1]]}, "or 3 flags"),
        ("a", {"tasks": "stars", "labels": ["many"]}, "expected a finite number"),
        ("a b", {"tasks": "names", "labels": [["O"]]}, "expected a list of 2 tags"),
        (QUESTIONS[:1], {"tasks": "span", "labels": ["Bob"]}, "answer_start"),
        (CHOICES[:1], {"tasks": "pick", "labels": [2]}, "place of the right choice, from 0 to 1"),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(processor, rows, options, says):
    with pytest.raises(InputError, match=says):
        processor(rows, **options)


def test_padding(processor):
    assert processor("a", "mood", padding="max_length")["input_ids"].shape == (1, 64)
    assert processor("a", "mood", padding="longest")["input_ids"].shape == (1, 3)
    assert processor(["a", "a b c d e f g"], "mood", pad_to_multiple_of=8)["attention_mask"].sum(1).tolist() == [3, 9]
    assert processor(["a", "a b c d e f g"], "mood", pad_to_multiple_of=8)["attention_mask"].shape == (2, 16)
    assert_equal(processor("a", "mood", truncation=True, padding=True), processor("a", "mood"))


def test_tensors_in_other_forms(model, processor):
    batch, lists = processor(TEXTS, "mood", return_tensors="np"), processor(TEXTS, "mood", return_tensors=None)
    assert isinstance(batch["input_ids"], np.ndarray) and batch["input_ids"].tolist() == lists["input_ids"]
    routed = processor(TEXTS, return_tensors="np")
    assert isinstance(routed["routing"]["regression"]["rows"], np.ndarray)
    logits = {name: values.detach().numpy() for name, values in model(**processor(TEXTS, "mood")).logits.items()}
    assert processor.post_process(logits, batch) == processor.post_process(model(**processor(TEXTS, "mood")), batch)


def test_a_batch_moves_is_copied_and_pickled(model, processor):
    batch = processor(TEXTS)
    expected = processor.post_process(model(**batch), batch)
    for twin in (copy.copy(batch), copy.deepcopy(batch), pickle.loads(pickle.dumps(batch))):
        assert isinstance(twin, MultiTaskBatch)
        assert processor.post_process(model(**twin), twin) == expected
    moved = copy.copy(batch).to("meta")
    assert moved["routing"]["regression"]["rows"].device.type == moved["input_ids"].device.type == "meta"
    with pytest.raises(InputError, match="no precision"):
        batch.to(torch.bfloat16)


def test_logits_of_another_batch_are_refused(model, processor):
    batch = processor(TEXTS, "mood")
    with pytest.raises(InputError, match="1 rows of logits for task 'mood', the batch has 3"):
        processor.post_process(model(**processor("a", "mood")), batch)
    with pytest.raises(InputError, match="0 rows of logits for task 'mood'"):
        processor.post_process({}, batch)
    with pytest.raises(InputError, match="The batch is a dict"):
        processor.post_process(model(**batch), dict(batch))
    with pytest.raises(InputError, match="no logits by task name"):
        processor.post_process(model(**batch, output_logits=False), batch)


def test_it_is_read_without_weights_and_saved(folder, processor, tmp_path, monkeypatch):
    copied = tmp_path / "outer" / "inner"
    shutil.copytree(folder, copied)
    (copied / "model.safetensors").unlink()
    monkeypatch.setattr(MultiTaskAttentionModel, "__init__", None)
    state = torch.get_rng_state()
    again = MultiTaskProcessor.from_pretrained(tmp_path / "outer", subfolder="inner")
    assert torch.equal(torch.get_rng_state(), state)
    again.save_pretrained(tmp_path / "saved")
    for one in (again, MultiTaskProcessor.from_pretrained(str(tmp_path / "saved"))):
        assert one.tasks == processor.tasks
        assert_equal(one(TEXTS, "mood"), processor(TEXTS, "mood"))


@pytest.mark.parametrize(
    "config",
    [
        BertConfig(max_position_embeddings=20),
        RobertaConfig(max_position_embeddings=20, pad_token_id=1),
        XLNetConfig(n_layer=1, d_model=32, n_head=2, d_inner=32),
    ],
    ids=lambda config: config.model_type,
)
def test_without_weights_rows_are_as_long_as_with_them(config, tokenizer, tmp_path):
    values = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 32}
    for name, value in {**values, "vocab_size": tokenizer.vocab_size}.items():
        setattr(config, name, value)
    task = {"name": "mood", "problem_type": "single_label_classification", "labels": ["bad", "good"]}
    model = MultiTaskAttentionModel(MultiTaskAttentionConfig(encoder_config=config, tasks=[task]))
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    processor = MultiTaskProcessor.from_pretrained(tmp_path)
    assert processor.most_pieces == MultiTaskProcessor.for_model(model, tokenizer).most_pieces


def test_what_is_no_checkpoint_is_refused(folder, tokenizer, tmp_path):
    BertModel(BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, vocab_size=9)).save_pretrained(
        tmp_path / "encoder"
    )
    (tmp_path / "bare").mkdir()
    shutil.copy(folder / "config.json", tmp_path / "bare")
    for name, says in (("encoder", "type 'bert'"), ("none", "cannot be read"), ("bare", "holds no tokenizer")):
        with pytest.raises(InputError, match=says):
            MultiTaskProcessor.from_pretrained(tmp_path / name)
    with pytest.raises(TypeError, match="revison"):
        MultiTaskProcessor.from_pretrained(folder, revison="main")


def test_it_is_a_public_name():
    assert hf_mtl.MultiTaskProcessor is MultiTaskProcessor and "MultiTaskProcessor" in hf_mtl.__all__


def test_tasks_come_in_any_form(model, processor, tokenizer):
    rows = {"text": ["what a day", "no"]}
    for tasks in (model.config, model.config.tasks, model.config.task_configs):
        made = MultiTaskProcessor(tokenizer, tasks)
        assert list(made.tasks) == model.config.task_names
        assert torch.equal(made(rows)["input_ids"], processor(rows)["input_ids"])
    with pytest.raises(InputError, match="The tokenizer is a str; expected the encoder's"):
        MultiTaskProcessor("bert-base-uncased", model.config)
