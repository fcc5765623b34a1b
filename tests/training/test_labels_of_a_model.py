"""A model's labels are met by name, whatever order the data set has them in."""

import pytest
from datasets import ClassLabel, Dataset, Features, Value

from hf_mtl import InputError, MultiTaskTrainer, MultiTaskTrainingArguments, TaskSpec
from tests.conftest import build_model

MOOD = [{"name": "mood", "problem_type": "single_label_classification", "labels": ["bad", "good"]}]


def rows(names, labels):
    features = Features({"text": Value("string"), "label": ClassLabel(names=names)})
    return Dataset.from_dict({"text": [f"text {place}" for place in range(len(labels))], "label": labels}, features)


def trainer_of(tmp_path, tokenizer, train, **settings):
    args = MultiTaskTrainingArguments(output_dir=str(tmp_path), use_cpu=True, disable_tqdm=True, report_to=[])
    model = build_model(MOOD, vocab_size=tokenizer.vocab_size)
    return MultiTaskTrainer(model, args, train_dataset={"mood": train}, processing_class=tokenizer, **settings)


def labels_of(data):
    return [data[index]["entries"][0]["labels"] for index in range(len(data))]


@pytest.mark.parametrize("tasks", [None, [TaskSpec(name="mood", problem_type=MOOD[0]["problem_type"])]])
def test_data_in_another_order(tmp_path, tokenizer, tasks):
    """Rows say good, bad, good; the model's ids of these are 1, 0, 1."""
    other = rows(["good", "bad"], [0, 1, 0])
    trainer = trainer_of(tmp_path, tokenizer, other, eval_dataset={"mood": other}, tasks=tasks)
    assert labels_of(trainer.train_dataset) == labels_of(trainer.eval_dataset) == [1, 0, 1]
    same = trainer.evaluate({"mood": rows(["bad", "good"], [1, 0, 1])})
    assert trainer.evaluate()["eval_mood_accuracy"] == same["eval_mood_accuracy"]


def test_other_names_are_listed_beside_the_model_s(tmp_path, tokenizer):
    with pytest.raises(InputError, match=r"negative, positive.*bad, good"):
        trainer_of(tmp_path, tokenizer, rows(["negative", "positive"], [0, 1]))
