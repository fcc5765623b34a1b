"""One data set with many label columns and holes: a row is drawn once, and trains what it has a label for."""

import copy
import math

import pytest
import torch
from datasets import Dataset

from hf_mtl import InputError, MultiTaskTrainer, MultiTaskTrainingArguments, TaskSpec
from hf_mtl.data.mixture import mixture_from_datasets
from tests.conftest import build_model

ROWS = 12


def reviews() -> Dataset:
    """Holes of all three kinds; row 5 has no label at all."""
    return Dataset.from_dict(
        {
            "text": [f"review number {index} of the shop" for index in range(ROWS)],
            "words": [f"review number {index} of the shop".split() for index in range(ROWS)],
            "mood": [["bad", "good", None][index % 3] for index in range(ROWS)],
            "stars": [math.nan if index % 2 else float(index) for index in range(ROWS)],
            "spam": [-100 if index in (0, 5, 7) else index % 2 for index in range(ROWS)],
            "tags": [None if index == 5 else ["O", "O", "B-N", "O", "O", "O"] for index in range(ROWS)],
        }
    )


def specs() -> list[TaskSpec]:
    single = "single_label_classification"
    return [
        TaskSpec(name="mood", problem_type=single, source="reviews", columns={"label": "mood"}),
        TaskSpec(name="stars", problem_type="regression", source="reviews", columns={"label": "stars"}),
        TaskSpec(name="spam", problem_type=single, source="reviews", columns={"label": "spam"}),
        TaskSpec(
            name="tags",
            problem_type="token_classification",
            source="reviews",
            columns={"tokens": "words", "label": "tags"},
        ),
    ]


def trainer(tmp_path, tokenizer, **arguments) -> MultiTaskTrainer:
    mixture = mixture_from_datasets({"reviews": reviews()}, {"reviews": reviews()}, specs())
    model = build_model([spec.to_config().to_dict() for spec in mixture.specs], vocab_size=tokenizer.vocab_size)
    settings = {"output_dir": str(tmp_path), "use_cpu": True, "disable_tqdm": True, "save_strategy": "no", **arguments}
    return MultiTaskTrainer(
        model, MultiTaskTrainingArguments(**settings), train_dataset=mixture, processing_class=tokenizer
    )


def test_holes_are_no_labels():
    mixture = mixture_from_datasets({"reviews": reviews()}, None, specs())
    assert {name: len(rows) for name, rows in mixture.train.items()} == {"mood": 8, "stars": 6, "spam": 9, "tags": 11}
    by_name = {spec.name: spec for spec in mixture.specs}
    assert by_name["mood"].labels == ["bad", "good"]
    assert by_name["spam"].labels == ["0", "1"]
    assert mixture.train["spam"]["source_row"][:] == [1, 2, 3, 4, 6, 8, 9, 10, 11]


def test_a_row_is_one_item_with_an_entry_a_label(tmp_path, tokenizer):
    own = trainer(tmp_path, tokenizer)
    data = own.train_dataset
    assert data.sizes == {"reviews": ROWS - 1}
    entries = [[entry["name"] for entry in data[index]["entries"]] for index in range(len(data))]
    assert entries[0] == ["mood", "stars", "tags"]
    assert entries[1] == ["mood", "spam", "tags"]
    assert entries[2] == ["stars", "spam", "tags"]
    assert sum(map(len, entries)) == 8 + 6 + 9 + 11
    batch = own.data_collator([data[index] for index in range(4)])
    assert batch["input_ids"].shape[0] == 4
    assert [share.task for share in own.preview_mixture()] == ["reviews"]


def test_the_loss_is_that_of_a_data_set_a_task(tmp_path, tokenizer):
    """The same rows, encoded once for all their labels or once for each, have the same gradient."""
    own = trainer(tmp_path, tokenizer)
    model, data = own.model.double().train(), own.train_dataset
    shared = own.data_collator([data[index] for index in range(len(data))])
    apart = own.data_collator(
        [{**data[index], "entries": [entry]} for index in range(len(data)) for entry in data[index]["entries"]]
    )
    assert apart["input_ids"].shape[0] == 34
    gradients = []
    for batch in (shared, apart):
        model.zero_grad()
        model(**copy.deepcopy(batch)).loss.backward()
        gradients.append([tensor.grad for tensor in model.parameters() if tensor.grad is not None])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=0)


def test_training_and_evaluation_run(tmp_path, tokenizer):
    own = trainer(tmp_path, tokenizer, max_steps=3, per_device_train_batch_size=4)
    own.train()
    metrics = own.evaluate()
    assert {"eval_mood_accuracy", "eval_stars_pearson", "eval_spam_accuracy", "eval_tags_span_f1"} <= metrics.keys()
    answers = own.evaluation_loop(own.get_eval_dataloader(), description="").predictions
    assert {name: len(found) for name, found in answers.items()} == {"mood": 8, "stars": 6, "spam": 9, "tags": 11}


def test_a_task_with_nothing_but_holes_is_refused():
    empty = reviews().remove_columns("mood").add_column("mood", [None] * ROWS)
    with pytest.raises(InputError, match="label"):
        mixture_from_datasets({"reviews": empty}, None, specs())


def test_a_hole_without_a_shared_source_is_an_error():
    spec = TaskSpec(name="reviews", problem_type="regression", columns={"label": "stars"})
    with pytest.raises(InputError, match="nan"):
        mixture_from_datasets({"reviews": reviews()}, None, [spec])


def test_a_source_that_is_not_given_is_named():
    spec = TaskSpec(name="mood", problem_type="regression", source="review")
    with pytest.raises(InputError, match="reviews"):
        mixture_from_datasets({"reviews": reviews()}, None, [spec])


def test_a_task_named_like_its_source_shares_it():
    rows = {"reviews": reviews().rename_column("mood", "label")}
    tasks = [
        TaskSpec(name="reviews", problem_type="single_label_classification"),
        TaskSpec(name="stars", problem_type="regression", source="reviews", columns={"label": "stars"}),
    ]
    mixture = mixture_from_datasets(rows, None, tasks)
    assert [spec.source for spec in mixture.specs] == ["reviews", "reviews"]
    assert {name: len(own) for name, own in mixture.train.items()} == {"reviews": 8, "stars": 6}
