"""Tasks are named as users name them; only parameters have a plainer name."""

import pytest
from datasets import Dataset

from hf_mtl import InputError, MultiTaskAttentionModel, MultiTaskTrainer, MultiTaskTrainingArguments, TaskConfig
from hf_mtl.modeling.systems import SYSTEMS
from hf_mtl.modeling.task_config import check_tasks
from hf_mtl.modeling.task_tensors import task_slug
from tests.conftest import build_model, encoder_inputs

NAMES = ["SST-2", "mnli (matched)", "b.c", "20 newsgroups", "train", "keys", "forward", "情感", "Größe"]
TEXTS = ["a good day", "a bad day", "good", "bad"] * 2


def task(name: str) -> dict:
    return {"name": name, "problem_type": "single_label_classification", "labels": ["no", "yes"]}


@pytest.mark.parametrize(
    ("name", "slug"),
    [("SST-2", "sst_2"), ("mnli (matched)", "mnli_matched_"), ("b.c", "b_c"), ("a__b_", "a__b_"), ("情感", "情感")],
)
def test_slugs(name, slug):
    assert task_slug(name) == slug


@pytest.mark.parametrize("settings", [{}, dict(SYSTEMS["individual"].settings), dict(SYSTEMS["cgc"].settings)])
def test_models_answer_by_the_names_that_were_given(settings, tmp_path):
    model = build_model([task(name) for name in NAMES], **settings)
    logits = model(**encoder_inputs()).logits
    assert list(logits) == NAMES
    owned = model.parameters_by_task()
    assert list(owned) == NAMES and all(owned.values())
    model.save_pretrained(tmp_path)
    again = MultiTaskAttentionModel.from_pretrained(tmp_path).eval()
    assert again.config.task_names == NAMES
    for name, scores in again(**encoder_inputs()).logits.items():
        assert (scores - logits[name]).abs().max() < 1e-6, name


def test_a_run_speaks_of_them_by_name(tmp_path, tokenizer):
    names = ["SST-2", "b.c", "情感"]
    data = {
        name: Dataset.from_dict({"text": TEXTS, "label": ["no", "yes"] * 4}).class_encode_column("label")
        for name in names
    }
    args = MultiTaskTrainingArguments(
        output_dir=str(tmp_path),
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        max_steps=2,
        eval_strategy="steps",
        eval_steps=1,
        save_steps=1,
        logging_steps=1,
        metric_for_best_model="SST-2_accuracy",
        single_task_scores={"b.c": 50.0},
    )
    model = build_model([task(name) for name in names], vocab_size=tokenizer.vocab_size)
    trainer = MultiTaskTrainer(model, args, train_dataset=data, eval_dataset=data, processing_class=tokenizer)
    trainer.train()
    metrics = trainer.evaluate()
    assert {f"eval_{name}_accuracy" for name in names} <= metrics.keys()
    assert trainer.state.best_metric == pytest.approx(
        max(entry["eval_SST-2_accuracy"] for entry in trainer.state.log_history if "eval_SST-2_accuracy" in entry)
    )
    assert list(trainer.predict(data).predictions) == names
    assert list(model.predict("a good day", tokenizer=tokenizer)[0]) == names
    assert list(model.predict("a good day", tasks="SST-2", tokenizer=tokenizer)[0]) == ["SST-2"]


@pytest.mark.parametrize("name", ["", " sst", "a\nb", "!!", 3, None, "x" * 101, "MTL", "loss"])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(InputError, match="task name"):
        check_tasks([TaskConfig(**task(name))])


def test_names_that_parameters_could_not_tell_apart_are_refused():
    with pytest.raises(InputError, match="'SST-2' and 'sst_2' are the same in lower case"):
        check_tasks([TaskConfig(**task(name)) for name in ("SST-2", "sst_2")])
