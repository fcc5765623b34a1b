"""Words without a tag (-100, -1, None) train nothing and are not scored, by the model and by the baselines."""

import pytest
from datasets import Dataset

from hf_mtl import MultiTaskTrainer, MultiTaskTrainingArguments, TaskSpec
from hf_mtl.data.mixture import mixture_from_datasets
from hf_mtl.tables import baseline_scores
from hf_mtl.training.scoring import score_answers
from tests.conftest import build_model

WORDS = ["anna", "met", "bob", "in", "oslo"]
TAGS = ["B-PER", "O", "B-PER", "O", "B-LOC"]
HOLES = [[None, *TAGS[1:]], [*TAGS[:2], None, *TAGS[3:]], TAGS, [None] * 4 + ["B-LOC"]]


def specs(**settings):
    return [TaskSpec(name="names", problem_type="token_classification", **settings)]


def rows(tags):
    return Dataset.from_dict({"tokens": [WORDS] * len(tags), "label": tags})


def test_they_count_nowhere(tmp_path, tokenizer):
    mixture = mixture_from_datasets({"names": rows(HOLES)}, {"names": rows(HOLES)}, specs(balance_classes=True))
    (spec,) = mixture.specs
    # 14 tags: 6 O, 4 B-LOC, 4 B-PER.
    assert spec.labels == ["O", "B-LOC", "B-PER"]
    assert spec.class_weights == pytest.approx([14 / (3 * count) for count in (6, 4, 4)])
    model = build_model([spec.to_config().to_dict()], vocab_size=tokenizer.vocab_size)
    args = MultiTaskTrainingArguments(
        output_dir=str(tmp_path), use_cpu=True, disable_tqdm=True, max_steps=2, per_device_train_batch_size=4
    )
    trainer = MultiTaskTrainer(model, args, train_dataset=mixture, processing_class=tokenizer)
    batch = trainer.data_collator([trainer.train_dataset[index] for index in range(4)])
    output = trainer.model(
        **{key: value.to(trainer.args.device) if key != "routing" else value for key, value in batch.items()}
    )
    assert output.task_label_counts.tolist() == [14.0]
    trainer.train()
    assert 0 <= trainer.evaluate()["eval_names_span_f1"] <= 100


def test_scores_are_those_of_the_tagged_words():
    mixture = mixture_from_datasets({"names": rows(HOLES)}, {"names": rows(HOLES)}, specs(metrics=["token_accuracy"]))
    by_name = {spec.name: spec for spec in mixture.specs}
    wrong = ["O", "O", "O", "O", "B-LOC"]
    answers = {"names": [{"tags": tags} for tags in (TAGS, TAGS, TAGS, wrong)]}
    # Where the last answer is wrong, nothing is tagged.
    assert score_answers(by_name, mixture.validation, answers)["names"] == {"token_accuracy": 100.0}
    trivial, linear, _ = baseline_scores(mixture)["names"]
    assert trivial["token_accuracy"] == pytest.approx(100 * 6 / 14)
    assert linear["token_accuracy"] == 100.0
