"""All problem types at once: tasks read off data sets' features, trained, scored and answered."""

import pytest
import torch
from datasets import ClassLabel, Dataset, Features, List, Value

from hf_mtl import MultiTaskTrainer, MultiTaskTrainingArguments
from hf_mtl.metrics import task_score
from tests.conftest import assert_answers_close, build_model, randomise

NAMES = ["Ann", "Bob", "Cleo", "Dan", "Eve", "Fay", "Gus", "Hal"]
PLACES = ["Rome", "Oslo", "Bern", "Lima"]
TEXT, CLASS = Value("string"), ClassLabel(names=["no", "yes"])


def datasets() -> dict[str, Dataset]:
    """Eight rows per task, of data sets as the Hub has them."""
    texts = [f"{name} went to {PLACES[index % 4]} and stayed a while." for index, name in enumerate(NAMES)]
    words = [text.split() for text in texts]
    tags = [[1, 0, 0, 2, 0, 0, 0, 0][: len(row)] for row in words]
    index = range(8)
    long = [f"It rained for days, again and again. {text} Nobody knew why." for text in texts]
    answers = [{"text": [name], "answer_start": [long[at].index(name)]} for at, name in enumerate(NAMES)]
    bio = ClassLabel(names=["O", "B-PER", "B-LOC"])
    return {
        "travel": Dataset.from_dict(
            {"text": texts, "label": [at % 2 for at in index]}, Features({"text": TEXT, "label": CLASS})
        ),
        "pairs": Dataset.from_dict(
            {"premise": texts, "hypothesis": texts[::-1], "label": [at // 4 for at in index]},
            Features({"premise": TEXT, "hypothesis": TEXT, "label": CLASS}),
        ),
        "topics": Dataset.from_dict(
            {"text": texts, "labels": [[0], [1], [0, 1], [], [0], [1], [], [0, 1]]},
            Features({"text": TEXT, "labels": List(ClassLabel(names=["trip", "rest"]))}),
        ),
        "rating": Dataset.from_dict({"text": texts, "label": [at / 2 for at in index]}),
        "entities": Dataset.from_dict(
            {"tokens": words, "ner_tags": tags}, Features({"tokens": List(TEXT), "ner_tags": List(bio)})
        ),
        "who": Dataset.from_dict({"question": ["Who went?"] * 8, "context": long, "answers": answers}),
        "pick": Dataset.from_dict(
            {
                "question": texts,
                "choices": [["by car", "by train", "on foot"][: 2 + at % 2] for at in index],
                "label": [at % 2 for at in index],
            }
        ),
    }


TYPES = {
    "travel": "single_label_classification",
    "pairs": "single_label_classification",
    "topics": "multi_label_classification",
    "rating": "regression",
    "entities": "token_classification",
    "who": "question_answering",
    "pick": "multiple_choice",
}


@pytest.fixture
def own(tmp_path, tokenizer) -> MultiTaskTrainer:
    """A trainer that wraps a tiny encoder, saved in a folder, for the tasks of the data."""
    encoder = tmp_path / "encoder"
    build_model(vocab_size=tokenizer.vocab_size).encoder.save_pretrained(encoder)
    tokenizer.save_pretrained(encoder)
    rows = datasets()
    arguments = MultiTaskTrainingArguments(
        output_dir=str(tmp_path / "run"),
        use_cpu=True,
        disable_tqdm=True,
        num_train_epochs=1,
        logging_steps=1,
        per_device_train_batch_size=14,
        per_device_eval_batch_size=5,
        learning_rate=1e-3,
    )
    return MultiTaskTrainer(
        str(encoder),
        arguments,
        train_dataset=rows,
        eval_dataset={name: own.select(range(5)) for name, own in rows.items()},
    )


def test_problem_types_are_read_off_the_features(own):
    assert {name: spec.problem_type for name, spec in own.specs.items()} == TYPES
    assert own.model.config.task_names == list(TYPES)
    assert own.specs["pairs"].input_fields == ("text", "text_pair")
    assert own.specs["entities"].labels == ["O", "B-PER", "B-LOC"]
    assert own.specs["topics"].labels == ["trip", "rest"]


def test_an_epoch_trains_every_task_and_every_task_is_scored(own):
    start = {name: tensor.clone() for name, tensor in own.model.state_dict().items()}
    own.train()
    assert own.state.global_step == 4
    drawn = {key for entry in own.state.log_history for key in entry if key.startswith("loss_")}
    assert drawn == {f"loss_{name}" for name in TYPES}
    for name, tensor in own.model.state_dict().items():
        if name.startswith("mtl.heads.") and ".task_to_token." not in name:
            assert not torch.equal(tensor, start[name]), name
    metrics = own.evaluate()
    scores = own.task_scores(metrics)
    assert scores.keys() == TYPES.keys()
    assert metrics["eval_mtl_average"] == pytest.approx(sum(map(task_score, scores.values())) / len(TYPES))
    assert all(f"eval_{name}_loss" in metrics for name in TYPES)
    assert all(0 <= score <= 100 or name == "rating" for name, found in scores.items() for score in found.values())


@pytest.mark.parametrize("name", TYPES)
def test_evaluation_decodes_what_predict_answers(own, name):
    randomise(own.model)
    answers = own.evaluation_loop(own.get_eval_dataloader(), description="").predictions[name]
    rows = own.mixture.validation[name].remove_columns("label")
    expected = [answer[name] for answer in own.model.predict(list(rows), tasks=[name], batch_size=2)]
    assert len(answers) == 5
    assert_answers_close(answers, expected, 1e-4)
