"""Evaluation scores what `predict` answers, and test rows choose nothing."""

import copy
import pickle
from multiprocessing.reduction import ForkingPickler

import pytest
import torch
from datasets import Dataset

from hf_mtl import MultiTaskTrainer, MultiTaskTrainingArguments, TaskSpec
from hf_mtl.data.mixture import Mixture
from tests.conftest import build_model, randomise
from tests.training.test_step_loss import TEXTS, datasets, trainer

FIELDS = {"mood": "text", "stars": "text", "tags": "tokens"}


def held_out() -> dict[str, Dataset]:
    return {name: rows.select(range(2, 9)) for name, rows in datasets().items()}


def close(first, second) -> bool:
    """Compare decoded answers, numbers to 1e-4."""
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(close(first[key], second[key]) for key in first)
    if isinstance(first, list):
        return len(first) == len(second) and all(map(close, first, second))
    return first == pytest.approx(second, abs=1e-4) if isinstance(first, float) else first == second


def predicted(own: MultiTaskTrainer) -> dict[str, list]:
    """What `predict` answers for the trainer's validation rows, by task."""
    found = {}
    for name, rows in own.mixture.validation.items():
        given = [{FIELDS[name]: row[FIELDS[name]]} for row in rows]
        answers = own.model.eval().predict(given, tasks=[name], tokenizer=own.processing_class, batch_size=3)
        found[name] = [answer[name] for answer in answers]
    return found


def evaluated(own: MultiTaskTrainer) -> dict[str, list]:
    return own.evaluation_loop(own.get_eval_dataloader(), description="").predictions


@pytest.mark.parametrize("name", FIELDS)
def test_evaluation_decodes_what_predict_answers(tmp_path, tokenizer, name):
    """Also where the model was built before the data were seen, whose labels' mean and scale it has not."""
    own = trainer(tmp_path, tokenizer, validation=held_out(), per_device_eval_batch_size=4)
    randomise(own.model)
    found, expected = evaluated(own)[name], predicted(own)[name]
    assert len(found) == 7
    assert close(found, expected), f"{found[:2]} is not {expected[:2]}"


def test_what_collates_rows_to_score_can_be_sent_to_a_worker(tmp_path, tokenizer):
    loader = trainer(tmp_path, tokenizer, validation=held_out()).get_eval_dataloader()
    sent_rows, sent_collate = pickle.loads(pickle.dumps((loader.dataset, loader.collate_fn)))
    batch = loader.collate_fn([loader.dataset[index] for index in range(3)])
    sent = ForkingPickler.loads(ForkingPickler.dumps(sent_collate([sent_rows[index] for index in range(3)])))
    assert [name for name, _ in sent.entries] == [name for name, _ in batch.entries]
    assert sent["input_ids"].equal(batch["input_ids"])


def test_the_batches_of_an_evaluation_are_what_the_model_takes(tmp_path, tokenizer):
    own = trainer(tmp_path, tokenizer, validation=held_out())
    for batch in own.get_eval_dataloader():
        assert torch.isfinite(own.model(**batch).loss)


def test_a_regression_wrapped_by_the_trainer_is_decoded_to_the_labels_scale(tmp_path, tokenizer):
    """Labels around 1000 with a model that answers 0 in standard units: their mean is the answer."""
    rows = {"price": Dataset.from_dict({"text": TEXTS, "label": [1000.0 + index for index in range(24)]})}
    spec = TaskSpec(name="price", problem_type="regression")
    arguments = MultiTaskTrainingArguments(output_dir=str(tmp_path), use_cpu=True, disable_tqdm=True)
    encoder = tmp_path / "encoder"
    build_model(vocab_size=tokenizer.vocab_size).encoder.save_pretrained(encoder)
    tokenizer.save_pretrained(encoder)
    own = MultiTaskTrainer(
        str(encoder),
        arguments,
        train_dataset=rows,
        eval_dataset={"price": rows["price"].select(range(4))},
        tasks=[spec],
    )
    with torch.no_grad():
        for tensor in own.model.mtl.heads.parameters():
            tensor.zero_()
    answers = evaluated(own)["price"]
    assert [answer["value"] for answer in answers] == pytest.approx([1011.5] * 4)
    assert own.model.predict(TEXTS[:1])[0]["price"]["value"] == pytest.approx(1011.5)


def test_test_rows_choose_nothing(tmp_path, tokenizer):
    """The same run, its test rows relabelled, picks the same checkpoint by the same scores."""
    found = []
    for flip in (0, 1):
        first = trainer(tmp_path / str(flip), tokenizer, validation=held_out())
        test = {"mood": Dataset.from_dict({"text": TEXTS[:6], "label": [(index + flip) % 2 for index in range(6)]})}
        mixture = Mixture(first.mixture.specs, first.mixture.train, first.mixture.validation, test)
        arguments = MultiTaskTrainingArguments(
            output_dir=str(tmp_path / str(flip)),
            use_cpu=True,
            disable_tqdm=True,
            max_steps=3,
            eval_strategy="steps",
            eval_steps=1,
            save_strategy="steps",
            save_steps=1,
            load_best_model_at_end=True,
            learning_rate=1e-3,
            per_device_train_batch_size=8,
        )
        own = MultiTaskTrainer(
            copy.deepcopy(first.model), arguments, train_dataset=mixture, processing_class=tokenizer
        )
        own.train()
        scores = own.evaluate(own.features_of(test), metric_key_prefix="test")
        means = [entry["eval_mtl_average"] for entry in own.state.log_history if "eval_mtl_average" in entry]
        found.append((own.state.best_metric, means, own.model.state_dict(), scores["test_mood_accuracy"]))
    assert found[0][:2] == found[1][:2]
    assert all(torch.equal(tensor, found[1][2][name]) for name, tensor in found[0][2].items())
    assert found[0][3] == pytest.approx(100 - found[1][3])
