"""Rows in whatever form: served where their task is sure, else refused with the line to write."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from hf_mtl import InputError, MultiTaskTrainer, MultiTaskTrainingArguments, TaskSpec
from hf_mtl.data import dataset_forms
from hf_mtl.data.dataset_forms import named_datasets
from hf_mtl.data.unlabelled import _count_labelled
from tests.conftest import build_model
from tests.training.test_step_loss import datasets, trainer

FEATURES = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes"])})
ROWS = [{"text": f"row {index} of it", "label": index % 2} for index in range(8)]
CLASSES = {"name": "mood", "problem_type": "single_label_classification", "labels": ["no", "yes"]}
MOOD = Dataset.from_list(ROWS, features=FEATURES)
SPLITS = DatasetDict(train=MOOD, validation=MOOD.select(range(4)), test=MOOD.select(range(3)).remove_columns("label"))
COLUMNS = {name: [row[name] for row in ROWS] for name in ("text", "label")}
FORMS = {
    "dataset": MOOD,
    "splits": SPLITS,
    "plain_splits": {"train": MOOD, "validation": MOOD},
    "rows": ROWS,
    "columns": COLUMNS,
    "frame": MOOD.to_pandas(),
}


def build(tmp_path, tokenizer, rows_given, held=None, tasks=(("mood", ["no", "yes"]),), **options) -> MultiTaskTrainer:
    rows = [{**CLASSES, "name": name, "labels": labels} for name, labels in tasks]
    args = MultiTaskTrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none", disable_tqdm=True)
    specs = [TaskSpec(**row) for row in rows]
    model = build_model(rows or [CLASSES], vocab_size=tokenizer.vocab_size)
    return MultiTaskTrainer(
        model, args, train_dataset=rows_given, eval_dataset=held, tasks=specs, processing_class=tokenizer, **options
    )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("named", [False, True])
def test_one_task_needs_no_name(form, named, tmp_path, tokenizer):
    given = {"mood": FORMS[form]} if named else FORMS[form]
    own = build(tmp_path, tokenizer, given)
    assert own.mixture.train["mood"][:] == {"text": COLUMNS["text"], "label": COLUMNS["label"]}
    assert len(own.mixture.validation.get("mood", ())) == {"splits": 4, "plain_splits": 8}.get(form, 0)


@pytest.mark.parametrize("form", FORMS)
def test_without_a_name_the_line_to_write_is_shown(form):
    for names in ([], ["mood", "stars"]):
        with pytest.raises(InputError) as error:
            named_datasets(FORMS[form], names, "train")
        if "splits" in form:
            line = 'train_dataset={"mood": data["train"]}, eval_dataset={"mood": data["validation"]}'
        else:
            line = 'train_dataset={"mood": data}'
        assert line in str(error.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("data.csv", "load_dataset"),
        (None, "has None for 'mood'"),
        ({"mood": "data.csv"}, "load_dataset"),
        ({"mood": 3}, "has 3 for 'mood'"),
        ({}, "is empty"),
        ({"mood": [{"text": "a"}, {"text": 3}]}, "are no table"),
        ({"mood": {"text": ["a", "b"], "label": [1]}}, "are no table"),
        ({"mood": DatasetDict(test=MOOD)}, "splits test; expected 'train'"),
        ([MOOD, MOOD], "a list for 'mood'"),
        ({"mood": [("a", 1), ("b", 0)]}, r"a list for 'mood', and item 0 is \('a', 1\).*'label': ..."),
        ({"mood": [{"text": "a", "label": 1}, "b"]}, "a list for 'mood', and item 1 is 'b'"),
        ({"mood": pd.Series(["a", "b"])}, "a Series for 'mood', and item 0 is 'a'"),
        ({"mood": []}, "a list for 'mood' without any row"),
    ],
)
def test_what_holds_no_rows_is_refused(given, message):
    with pytest.raises(InputError, match=message):
        named_datasets(given, ["mood"], "train")


@pytest.mark.parametrize(
    ("names", "split", "lines"),
    [
        (
            ["train", "validation_matched", "validation_mismatched", "test_matched"],
            "train",
            'train_dataset={"mood": data["train"]}, eval_dataset={"mood": data["validation_matched"]}',
        ),
        (["train", "dev"], "train", 'train_dataset={"mood": data["train"]}, eval_dataset={"mood": data["dev"]}'),
        (["train", "validation", "Val2"], "train", 'data["train"]}, eval_dataset={"mood": data["validation"]}'),
        (["test", "train_small"], "train", 'train_dataset={"mood": data["train_small"]}'),
        (["test", "all"], "train", 'train_dataset={"mood": data["all"]}'),
        (["test"], "train", 'train_dataset={"mood": data["SPLIT"]}'),
        (["train", "test"], "validation", 'eval_dataset={"mood": data["test"]}'),
        (["train", "test", "dev"], "validation", 'eval_dataset={"mood": data["dev"]}'),
        (["train", "validation"], "test", 'test_dataset={"mood": data["validation"]}'),
        (["train"], "test", 'test_dataset={"mood": data["SPLIT"]}'),
    ],
)
def test_splits_of_other_names_are_shown_where_they_belong(names, split, lines):
    splits = DatasetDict(dict.fromkeys(names, MOOD))
    with pytest.raises(InputError) as error:
        named_datasets({"mood": splits}, ["mood"], split)
    assert f"{lines}." in str(error.value)
    assert ("expected 'train'" in str(error.value)) is (split == "train" and "train" not in names)


@pytest.mark.parametrize("others", [[], ["test"], ["validation"], ["validation", "test"]])
def test_the_usual_splits_leave_no_doubt(others):
    splits = DatasetDict({"train": MOOD, **{name: MOOD.select([0]) for name in others}})
    assert named_datasets({"mood": splits}, ["mood"], "train")["mood"].num_rows == MOOD.num_rows


SETS = {"whole": DatasetDict, "mapping": dict, "frames": lambda sets: {key: sets[key].to_pandas() for key in sets}}


@pytest.mark.parametrize("kind", SETS)
@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize(
    ("split", "others", "further"),
    [
        ("train", ["unsupervised"], ["unsupervised"]),
        ("train", ["test_matched", "extra"], ["test_matched", "extra"]),
        ("train", ["validation", "test", "foo"], ["foo"]),
        ("validation", ["hard"], ["hard"]),
        ("validation", ["test", "hard"], ["hard"]),
        ("validation", ["train", "validation_hard"], ["validation_hard"]),
        ("test", ["foo"], ["foo"]),
        ("test", ["train", "validation", "foo", "test_2"], ["foo", "test_2"]),
    ],
)
def test_a_split_that_nothing_would_read_is_refused(kind, named, split, others, further):
    data = SETS[kind](dict.fromkeys([split, *others], MOOD))
    with pytest.raises(InputError) as error:
        named_datasets({"mood": data} if named else data, ["mood"], split)
    argument = {"train": "train_dataset", "validation": "eval_dataset", "test": "test_dataset"}[split]
    text = str(error.value)
    if not (split == "train" and "validation" in further[0]):
        assert f"{argument} would leave out {', '.join(map(repr, further))}. Say which rows are meant: " in text
    assert f'{argument}={{"mood": data["{split}"]}}' in text
    name = further[0]
    predicted = f'trainer.predict({{"mood": data["{name}"]}}).'
    scored = f'trainer.evaluate({{"mood": data["{name}"]}}, metric_key_prefix="eval_{name}").'
    assert text.endswith(predicted if split == "test" else scored)


@pytest.mark.parametrize("rows", [{"easy": MOOD, "hard": MOOD}, {"easy": ROWS, "hard": ROWS}], ids=["sets", "lists"])
def test_sets_of_a_task_under_other_names_are_listed(rows):
    with pytest.raises(InputError) as error:
        named_datasets({"mood": rows}, ["mood"], "validation")
    assert "the splits easy, hard; expected 'validation'" in str(error.value)
    assert 'eval_dataset={"mood": data["easy"]}. ' in str(error.value)
    assert 'trainer.evaluate({"mood": data["hard"]}, metric_key_prefix="eval_hard")' in str(error.value)


@pytest.mark.parametrize("rows", [[("a", 1)], [], ["a"], pd.Series(["a"])])
def test_the_name_of_a_task_is_no_column(rows):
    """Where no task is named before, a table of one column has nothing to learn."""
    for names in ([], ["mood"], ["mood", "stars"]):
        with pytest.raises(InputError, match="for 'mood'"):
            named_datasets({"mood": rows}, names, "train")
    with pytest.raises(InputError, match="a table with the columns text, label, and which task"):
        named_datasets(COLUMNS, ["mood", "stars"], "train")


def test_mappings_in_a_series_are_rows():
    assert named_datasets({"mood": pd.Series(ROWS)}, ["mood"], "train")["mood"][:] == COLUMNS


def test_names_of_splits_may_be_tasks_where_tasks_say_so(tmp_path, tokenizer):
    own = build(
        tmp_path, tokenizer, {"train": MOOD, "test": MOOD}, tasks=[("train", ["no", "yes"]), ("test", ["no", "yes"])]
    )
    assert list(own.specs) == ["train", "test"]


def test_keys_that_the_first_row_lacks_are_columns():
    rows = named_datasets({"mood": [{"text": "a"}, {"text": "b", "more": 1}]}, [], "train")["mood"]
    assert rows[:] == {"text": ["a", "b"], "more": [None, 1]}


def test_test_rows_are_neither_trained_on_nor_used_to_choose(tmp_path, tokenizer):
    marked = DatasetDict(
        {name: rows.map(lambda row, name=name: {"text": f"{name} {row['text']}"}) for name, rows in SPLITS.items()}
    )
    own = build(tmp_path, tokenizer, {"mood": marked})
    assert all(text.startswith("train") for text in own.mixture.train["mood"]["text"])
    assert all(text.startswith("validation") for text in own.mixture.validation["mood"]["text"])


def test_a_task_without_test_rows_says_so(tmp_path, tokenizer):
    with pytest.raises(InputError, match="no test rows here"):
        build(tmp_path, tokenizer, MOOD).predict("mood")


def test_test_rows_with_labels_are_scored_by_name_also_after_a_transfer(tmp_path, tokenizer):
    own = build(tmp_path, tokenizer, {"mood": DatasetDict(train=MOOD, test=MOOD.select(range(3)))})
    # As they were given: nothing of them is read before they are asked for.
    assert own.mixture.test == {}
    assert len(own.predict("mood").predictions["mood"]) == 3
    assert "test_mood_accuracy" in own.predict("mood").metrics
    assert len(own.then("mood", tmp_path / "then").predict("mood").predictions["mood"]) == 3
    with pytest.raises(InputError, match="stream"):
        streamed = {"mood": {"train": MOOD, "test": MOOD.to_iterable_dataset()}}
        build(tmp_path, tokenizer, streamed).predict("mood")


def test_two_validation_splits_are_one_too_many(tmp_path, tokenizer):
    build(tmp_path, tokenizer, {"mood": SPLITS}, {"mood": SPLITS})
    build(tmp_path, tokenizer, {"mood": SPLITS}, {"mood": SPLITS["validation"]})
    with pytest.raises(InputError, match="eval_dataset has 2 rows of 'mood', and .* 4 others"):
        build(tmp_path, tokenizer, {"mood": SPLITS}, {"mood": MOOD.select(range(2))})


@pytest.fixture(scope="module")
def one_task(tmp_path_factory, tokenizer):
    return build(tmp_path_factory.mktemp("one"), tokenizer, {"mood": SPLITS})


@pytest.mark.parametrize("name", ["hard", "mood_hard", "validation"])
def test_a_second_set_of_a_task_is_scored_as_the_errors_say(name, one_task, tmp_path, tokenizer):
    """Wherever a further set is named like a task, the error says how it is scored, and that line runs."""
    rows, held = MOOD.select([1, 2, 5]), {"mood": MOOD, name: MOOD}
    calls = (
        lambda: build(tmp_path, tokenizer, MOOD, held),
        lambda: build(tmp_path, tokenizer, one_task.mixture, held, tasks=()),
        lambda: build(tmp_path, tokenizer, None, held),
        lambda: one_task.evaluate(held),
    )
    for call in calls:
        with pytest.raises(InputError, match=f"^eval_dataset has the task '{name}'") as error:
            call()
        line = str(error.value).partition("scored by ")[2].removesuffix(".")
        metrics = eval(line, {"trainer": one_task, "rows": rows})
        expected = one_task.evaluate({"mood": rows})
        renamed = {key.replace("eval_", f"eval_{name}_", 1): value for key, value in expected.items()}
        assert renamed.keys() == metrics.keys()
        taken = ("runtime", "_per_second")
        assert all(metrics[key] == value for key, value in renamed.items() if not key.endswith(taken))
        assert one_task.task_scores(metrics, f"eval_{name}") == one_task.task_scores(expected)
    with pytest.raises(InputError, match=f"^test_dataset has the task '{name}'.*trainer.predict"):
        one_task.predict(held)


def test_the_splits_that_are_left_are_said(one_task, monkeypatch):
    said = []
    monkeypatch.setattr(dataset_forms.logger, "warning_once", said.append)
    one_task.evaluate(SPLITS)
    one_task.predict({"mood": SPLITS})
    one_task.evaluate(DatasetDict(validation=MOOD))
    assert [text.partition("; ")[2].partition(" here")[0] for text in said] == [
        "validation is scored",
        "test is answered",
    ]
    assert all("train, validation, test of 'mood'" in text for text in said)


@pytest.mark.parametrize("named", [False, True])
def test_test_rows_beside_validation_rows_wait_for_predict(named, tmp_path, tokenizer):
    held = DatasetDict(validation=SPLITS["validation"], test=SPLITS["test"])
    own = build(tmp_path, tokenizer, MOOD, {"mood": held} if named else held)
    assert own.mixture.validation["mood"].num_rows == 4
    assert own.predict("mood").predictions == own.predict(SPLITS["test"]).predictions
    alone = build(tmp_path, tokenizer, None, {"mood": held} if named else held)
    assert len(alone.predict("mood").predictions["mood"]) == 3


def test_two_test_splits_are_one_too_many(tmp_path, tokenizer, one_task):
    other = DatasetDict(validation=SPLITS["validation"], test=MOOD.select([7]))
    assert build(tmp_path, tokenizer, {"mood": SPLITS}, {"mood": SPLITS}).test_rows["mood"].num_rows == 3
    with pytest.raises(InputError, match="both have a test split of 'mood'"):
        build(tmp_path, tokenizer, {"mood": SPLITS}, {"mood": other})
    mixture = dataclasses.replace(one_task.mixture, test={"mood": one_task.mixture.train["mood"]})
    with pytest.raises(InputError, match="eval_dataset has a test split of 'mood', and the mixture has test rows"):
        build(tmp_path, tokenizer, mixture, {"mood": other}, tasks=())


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("form", ["splits", "plain_splits"])
def test_a_trainer_without_training_rows_scores_the_validation_split(form, named, tmp_path, tokenizer):
    given = {"mood": FORMS[form]} if named else FORMS[form]
    own = build(tmp_path, tokenizer, None, given)
    assert own.mixture.validation["mood"].num_rows == {"splits": 4, "plain_splits": 8}[form]
    held = DatasetDict(validation=MOOD.select([0]))
    assert build(tmp_path, tokenizer, None, {"mood": held}).mixture.validation["mood"].num_rows == 1
    with pytest.raises(InputError, match="^The validation rows of 'mood' are a stream"):
        build(tmp_path, tokenizer, None, {"mood": MOOD.to_iterable_dataset()})


def unlabelled(value) -> Dataset:
    return Dataset.from_dict({"text": COLUMNS["text"], "label": [value] * 8})


@pytest.mark.parametrize("form", FORMS)
def test_other_rows_are_scored_in_any_form(form, one_task):
    metrics = one_task.evaluate(FORMS[form])
    rows = {"splits": 4}.get(form, 8)
    assert metrics["eval_mood_accuracy"] == one_task.evaluate({"mood": MOOD.select(range(rows))})["eval_mood_accuracy"]


def test_a_name_stands_for_its_rows(one_task):
    assert one_task.evaluate("mood")["eval_mood_loss"] == one_task.evaluate()["eval_mood_loss"]
    with pytest.raises(InputError, match="Did you mean 'mood'"):
        one_task.evaluate("mod")
    assert one_task.predict("mood").predictions == one_task.predict(SPLITS["test"]).predictions
    with pytest.raises(InputError, match="stream"):
        one_task.evaluate(MOOD.to_iterable_dataset())


@pytest.mark.parametrize(
    "rows", [MOOD.remove_columns("label"), *(unlabelled(value) for value in (None, -1, -100, float("nan")))]
)
def test_rows_without_labels_are_answered_and_not_scored(rows, one_task):
    found, expected = one_task.predict(rows), one_task.predict(MOOD)
    assert found.predictions == expected.predictions
    assert found.label_ids is None
    assert not [key for key in found.metrics if "mood" in key or "mtl" in key]
    assert expected.metrics["test_mood_accuracy"] == one_task.evaluate(MOOD)["eval_mood_accuracy"]
    with pytest.raises(InputError, match="none of the 8 rows has a label"):
        one_task.evaluate({"mood": rows})


def test_rows_of_which_some_have_labels_are_answered(one_task):
    part = Dataset.from_dict({"text": COLUMNS["text"], "label": [0, 1, -1, 0, 1, 0, 1, 0]})
    found = one_task.predict(part)
    assert len(found.predictions["mood"]) == 8
    assert "test_mood_accuracy" not in found.metrics
    with pytest.raises(InputError, match="row 2"):
        one_task.evaluate(part)


TEXTS = COLUMNS["text"]


@pytest.mark.parametrize(
    "texts", [TEXTS, tuple(TEXTS), np.array(TEXTS), pd.Series(TEXTS)], ids=lambda rows: type(rows).__name__
)
@pytest.mark.parametrize("named", [False, True])
def test_texts_alone_are_answered(texts, named, one_task):
    given = {"mood": texts} if named else texts
    assert one_task.predict(given).predictions == one_task.predict(MOOD).predictions
    with pytest.raises(InputError, match="item 0 is 'row 0 of it'; expected rows"):
        one_task.evaluate(given)


def test_texts_of_a_task_that_reads_more_are_refused(tmp_path, tokenizer):
    pair = {**CLASSES, "name": "pair", "fields": ["text", "text_pair"]}
    specs = [TaskSpec(**CLASSES, columns={"text": "review"}), TaskSpec(**pair)]
    rows = {
        "mood": MOOD.rename_column("text", "review"),
        "pair": MOOD.map(lambda row: {"text_pair": "b"}),
    }
    args = MultiTaskTrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none", disable_tqdm=True)
    model = build_model([CLASSES, pair], vocab_size=tokenizer.vocab_size)
    own = MultiTaskTrainer(model, args, train_dataset=rows, tasks=specs, processing_class=tokenizer)
    assert own.predict({"mood": TEXTS}).predictions == own.predict({"mood": rows["mood"]}).predictions
    with pytest.raises(InputError, match="a list for 'pair', and item 0 is 'a'; expected rows"):
        own.predict({"mood": TEXTS, "pair": ["a"]})


def test_tasks_with_and_without_labels_are_answered_together(tmp_path, tokenizer):
    own, rows = trainer(tmp_path, tokenizer), datasets()
    whole = own.predict(rows)
    for hidden in rows:
        column = "tags" if hidden == "tags" else "label"
        found = own.predict({**rows, hidden: rows[hidden].remove_columns(column)})
        assert found.predictions == whole.predictions
        for name in rows:
            assert (f"test_{name}_loss" in found.metrics) is (name != hidden)
            if name != hidden:
                assert found.metrics[f"test_{name}_loss"] == pytest.approx(whole.metrics[f"test_{name}_loss"])


@pytest.mark.parametrize(
    ("problem_type", "labels", "count"),
    [
        ("regression", [-1.0, -1.0], 0),
        ("regression", [-1.0, 0.5], 2),
        ("regression", [None, 0.5], 1),
        ("token_classification", [[-100, -100], [0, 1]], 1),
        ("token_classification", [[], [0]], 2),
        ("multi_label_classification", [[], [1]], 2),
        ("multiple_choice", [-1, 0], 1),
        ("single_label_classification", ["", "no"], 2),
        ("question_answering", [{"text": [], "answer_start": []}, None], 1),
    ],
)
def test_what_counts_as_a_label(problem_type, labels, count):
    spec = TaskSpec(name="a", problem_type=problem_type)
    assert _count_labelled(spec, Dataset.from_dict({"label": labels})) == count


@pytest.mark.parametrize("hidden", ["flags", "span", "pick"])
def test_every_problem_type_is_answered_without_labels(hidden, tmp_path, tokenizer):
    tasks = {
        "flags": ("multi_label_classification", {"text": ["a b", "c"], "label": [[0], [1]]}, {"labels": ["p", "q"]}),
        "span": (
            "question_answering",
            {"question": ["who", "what"], "context": ["it is Bob", "a cat"],
             "label": [{"text": ["Bob"], "answer_start": [6]}, {"text": ["cat"], "answer_start": [2]}]},
            {"max_length": 24, "stride": 4},
        ),
        "pick": ("multiple_choice", {"text": ["a", "b"], "choices": [["c", "d"], ["e", "f"]], "label": [0, 1]}, {}),
    }  # fmt: skip
    kind, columns, settings = tasks[hidden]
    rows = Dataset.from_dict(columns)
    row = {"name": hidden, "problem_type": kind, **settings}
    model = build_model([row], vocab_size=tokenizer.vocab_size)
    args = MultiTaskTrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none", disable_tqdm=True)
    own = MultiTaskTrainer(model, args, train_dataset=rows, tasks=[TaskSpec(**row)], processing_class=tokenizer)
    found, whole = own.predict(rows.remove_columns("label")), own.predict(rows)
    assert found.predictions == whole.predictions
    assert f"test_{hidden}_loss" in whole.metrics and f"test_{hidden}_loss" not in found.metrics


def test_a_transform_is_refused_that_rows_would_be_read_without(tmp_path, tokenizer):
    turned = MOOD.with_transform(lambda batch: {**batch, "text": [text.upper() for text in batch["text"]]})
    with pytest.raises(InputError, match=r"'mood' have a transform.*data.map\(function\)"):
        build(tmp_path, tokenizer, {"mood": turned})
    assert build(tmp_path, tokenizer, {"mood": turned.with_format("torch")}).mixture.train["mood"]
