"""The doctor finds what was planted, nothing in a sound run, and changes nothing."""

import copy
import re
from pathlib import Path

import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value
from transformers import BertConfig, BertModel

from hf_mtl import (
    MultiTaskAttentionConfig,
    MultiTaskAttentionModel,
    MultiTaskTrainer,
    MultiTaskTrainingArguments,
    TaskSpec,
)
from hf_mtl.data.mixture import Mixture, mixture_from_datasets
from hf_mtl.inspection.doctor import CHECKS, Diagnosis, Finding, _modules_of
from hf_mtl.inspection.unread_settings import unread_settings
from hf_mtl.modeling.systems import SYSTEMS
from hf_mtl.screen import rough_duration
from tests.conftest import TASKS, build_model, encoder_config
from tests.data.test_streams import streams
from tests.training.test_step_loss import datasets, specs, trainer

BINARY = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes"])})


def found(own: MultiTaskTrainer) -> dict[str, list[Finding]]:
    """The findings by check."""
    by_check: dict[str, list[Finding]] = {}
    for finding in own.doctor().findings:
        by_check.setdefault(finding.check, []).append(finding)
    return by_check


def sentences(labels: list[int], word: str = "row") -> Dataset:
    texts = [f"{word} number {place} of a text" for place in range(len(labels))]
    return Dataset.from_dict({"text": texts, "label": labels}, features=BINARY)


def run_of(tmp_path, tokenizer, rows, validation=None, tasks=None, **arguments) -> MultiTaskTrainer:
    """A run of a tiny model on these data sets (or this mixture)."""
    mixture = rows if isinstance(rows, Mixture) else mixture_from_datasets(rows, validation, tasks)
    model = build_model([spec.to_config().to_dict() for spec in mixture.specs], vocab_size=tokenizer.vocab_size)
    arguments = {"max_steps": 3, "report_to": "none", **arguments}
    args = MultiTaskTrainingArguments(output_dir=str(tmp_path), use_cpu=True, disable_tqdm=True, **arguments)
    return MultiTaskTrainer(model, args, train_dataset=mixture, processing_class=tokenizer)


@pytest.mark.parametrize(
    "settings", [{}, {"pooling": "mean", "task_interaction": "none"}, {"gate": "none", "task_interaction": "none"}]
)
def test_a_sound_run_has_no_finding(tmp_path, tokenizer, settings):
    """Though paths that start closed give most new parts no gradient in the first step."""
    mixture = mixture_from_datasets(datasets(), None, specs())
    model = build_model(
        [spec.to_config().to_dict() for spec in mixture.specs], vocab_size=tokenizer.vocab_size, **settings
    )
    args = MultiTaskTrainingArguments(output_dir=str(tmp_path), use_cpu=True, disable_tqdm=True, max_steps=3)
    own = MultiTaskTrainer(model, args, train_dataset=mixture, processing_class=tokenizer)
    # The two sentence tasks of the fixture read the same texts, which is the doctor's business.
    diagnosis = own.doctor()
    assert [finding.check for finding in diagnosis.findings] == ["same_data"]
    assert diagnosis.step_seconds > 0
    assert diagnosis.plain_seconds is None
    assert diagnosis.total_steps == 3


def test_a_part_that_is_detached(tmp_path, tokenizer):
    own = trainer(tmp_path, tokenizer, max_steps=2)
    assert "gradients" not in found(own)
    own.model.mtl.gate.register_forward_hook(lambda module, inputs, output: _detached(output))
    (finding,) = found(own)["gradients"]
    assert finding.subject.startswith("mtl.") or "encoder" in finding.subject
    assert "requires_grad_(False)" in finding.advice


def _detached(output):
    return tuple(map(_detached, output)) if isinstance(output, tuple) else output.detach()


def test_a_head_that_nothing_reads(tmp_path, tokenizer):
    own = trainer(tmp_path, tokenizer, max_steps=2)
    own.model.mtl.register_parameter("forgotten", torch.nn.Parameter(torch.ones(3)))
    own.model.encoder.spare = torch.nn.Linear(2, 2)
    (finding,) = found(own)["gradients"]
    assert finding.subject == "encoder.spare, mtl"


def test_a_loss_that_is_no_number(tmp_path, tokenizer):
    own = trainer(tmp_path, tokenizer, max_steps=2)
    with torch.no_grad():
        own.model.mtl.heads["regression"].weight.task_stars.fill_(float("nan"))
    assert [finding.subject for finding in found(own)["gradients"]][0] == "stars"


def test_a_task_never_drawn(tmp_path, tokenizer):
    rows = {"large": sentences([0, 1] * 60), "small": sentences([0, 1], "other")}
    own = run_of(tmp_path, tokenizer, rows, max_steps=1, per_device_train_batch_size=4)
    (finding,) = found(own)["never_drawn"]
    assert (finding.subject, finding.what) == ("small", "no row of it is drawn in 1 steps")
    rows = run_of(
        tmp_path, tokenizer, rows, max_steps=1, per_device_train_batch_size=4, mixing_strategy="uniform"
    ).doctor()
    assert not rows.findings


def test_a_task_without_weight(tmp_path, tokenizer):
    tasks = [TaskSpec(name="b", problem_type="single_label_classification", weight=0.0)]
    own = run_of(tmp_path, tokenizer, {"a": sentences([0, 1] * 6), "b": sentences([0, 1] * 6, "other")}, tasks=tasks)
    assert [finding.subject for finding in found(own)["never_drawn"]] == ["b"]


def test_weights_outside_the_optimizer(tmp_path, tokenizer):
    own = trainer(tmp_path, tokenizer, max_steps=2)
    assert "outside_optimizer" not in found(own)
    assert own.optimizer is None
    own.optimizer = torch.optim.SGD(own.model.encoder.parameters(), lr=0.1)
    torch.optim.lr_scheduler.LambdaLR(own.optimizer, lambda step: step / 10)
    (finding,) = found(own)["outside_optimizer"]
    assert finding.subject.startswith("mtl.")
    # Made for a model that was replaced since.
    own.optimizer = torch.optim.SGD(copy.deepcopy(own.model).parameters(), lr=0.1)
    (finding,) = found(own)["outside_optimizer"]
    assert finding.subject.startswith("encoder.")


def test_weights_whose_learning_rate_is_0(tmp_path, tokenizer):
    own = trainer(tmp_path, tokenizer, max_steps=2, parts_learning_rate=0.0)
    (finding,) = found(own)["outside_optimizer"]
    assert "learning rate is 0" in finding.what
    assert finding.subject.startswith("mtl.")


def test_a_frozen_head(tmp_path, tokenizer):
    own = trainer(tmp_path, tokenizer, max_steps=2)
    for parameter in own.model.task_parameters("stars"):
        parameter.requires_grad_(False)
    (finding,) = found(own)["outside_optimizer"]
    assert (finding.subject, finding.what) == ("stars", "all parameters of its own are frozen")


@pytest.mark.parametrize("label", [2, -1])
def test_labels_out_of_range(tmp_path, tokenizer, label):
    """A mixture made by hand was checked by nobody."""
    plain = Features({"text": Value("string"), "label": Value("int64")})
    rows = Dataset.from_dict({"text": ["a first", "a second", "a third"], "label": [0, 1, label]}, features=plain)
    task = TaskSpec(name="a", problem_type="single_label_classification", labels=["no", "yes"])
    own = run_of(tmp_path, tokenizer, Mixture([task], {"a": rows}, {}))
    diagnosis = own.doctor()
    (finding,) = diagnosis.findings
    assert (finding.check, finding.what) == ("labels_out_of_range", "1 training labels are not in 0 to 1")
    # No step is taken that would fail on them.
    assert diagnosis.step_seconds is None


@pytest.mark.parametrize("label", [2, -1, -100])
def test_a_label_out_of_range_everywhere(tmp_path, tokenizer, label):
    plain = Features({"text": Value("string"), "label": Value("int64")})
    rows = Dataset.from_dict({"text": ["a first", "a second"], "label": [label, label]}, features=plain)
    task = TaskSpec(name="a", problem_type="single_label_classification", labels=["no", "yes"])
    findings = found(run_of(tmp_path, tokenizer, Mixture([task], {"a": rows}, {})))
    assert ("labels_out_of_range" in findings) == (label != -100)


def test_a_choice_out_of_range(tmp_path, tokenizer):
    rows = Dataset.from_dict({"text": ["a", "b"], "choices": [["c", "d"], ["e", "f"]], "label": [0, 5]})
    task = TaskSpec(name="a", problem_type="multiple_choice")
    (finding,) = found(run_of(tmp_path, tokenizer, Mixture([task], {"a": rows}, {})))["labels_out_of_range"]
    assert finding.what == "1 training labels are not a place in its row's choices"


def test_a_recurrent_head_is_looked_over(tmp_path, tokenizer):
    mixture = mixture_from_datasets(datasets(), None, specs())
    rows = [spec.to_config().to_dict() for spec in mixture.specs]
    model = build_model(rows, vocab_size=tokenizer.vocab_size, head="recurrent")
    args = MultiTaskTrainingArguments(output_dir=str(tmp_path), use_cpu=True, disable_tqdm=True, max_steps=3)
    assert "gradients" not in found(MultiTaskTrainer(model, args, train_dataset=mixture, processing_class=tokenizer))


def test_a_constant_label(tmp_path, tokenizer):
    tags = Dataset.from_dict({"tokens": [["a", "b"], ["c"]] * 6, "tags": [["O", "O"], ["O"]] * 6})
    tasks = [
        TaskSpec(
            name="tagged", problem_type="token_classification", columns={"label": "tags"}, labels=["O", "B-X", "I-X"]
        )
    ]
    rows = {"a": sentences([1] * 12), "b": sentences([0, 1] * 6, "other"), "tagged": tags}
    own = run_of(tmp_path, tokenizer, rows, {"b": sentences([0] * 6, "third")}, tasks)
    findings = found(own)["constant_label"]
    assert [finding.subject for finding in findings] == ["a", "tagged", "b"]
    assert findings[0].what == "every label of its 12 training rows is 'yes'"
    assert findings[1].what == "every label of its 12 training rows is 'O'"
    assert "validation" in findings[2].what


def test_a_metric_under_which_the_majority_looks_good(tmp_path, tokenizer):
    rows, rare = {"a": sentences([0, 1] * 10)}, {"a": sentences([0] * 19 + [1], "other")}
    (finding,) = found(run_of(tmp_path, tokenizer, rows, rare))["metric_fits"]
    assert finding.what == "95% of the validation rows have one label, and accuracy alone scores it"
    task = TaskSpec(name="a", problem_type="single_label_classification", metrics=["f1_macro"])
    assert "metric_fits" not in found(run_of(tmp_path, tokenizer, rows, rare, [task]))


def test_rows_that_are_cut(tmp_path, tokenizer):
    task = TaskSpec(name="a", problem_type="single_label_classification", max_length=8)
    rows = Dataset.from_dict({"text": ["short", "one two three four five six seven eight"], "label": [0, 1]})
    own = run_of(tmp_path, tokenizer, {"a": rows.cast(BINARY)}, tasks=[task])
    (finding,) = found(own)["truncated"]
    assert finding.what == "1 of 2 training rows (50.0%) are longer than 8 word pieces"


def test_two_tasks_with_one_data_set(tmp_path, tokenizer):
    own_rows, noise = [0, 1] * 10, sentences([0, 1] * 3, "noise")
    rows = {"a": sentences(own_rows), "b": sentences(own_rows), "c": noise}
    (finding,) = found(run_of(tmp_path, tokenizer, rows))["same_data"]
    assert (finding.subject, finding.what) == ("a", "20 of its inputs are those of b")
    tasks = [
        TaskSpec(name=name, problem_type="single_label_classification", source="ab", columns={"label": column})
        for name, column in (("a", "label"), ("b", "other"))
    ]
    columns = sentences(own_rows).add_column("other", own_rows)
    shared = columns.cast_column("other", ClassLabel(names=["no", "yes"]))
    assert "same_data" not in found(run_of(tmp_path, tokenizer, {"ab": shared}, tasks=tasks))


def test_training_rows_that_stand_in_a_validation_split(tmp_path, tokenizer):
    rows = {"a": sentences([0, 1] * 5), "b": sentences([0, 1] * 5, "other")}
    validation = {"a": sentences([0, 1], "other"), "b": sentences([0, 1, 0], "fresh")}
    diagnosis = run_of(tmp_path, tokenizer, rows, validation).doctor()
    assert diagnosis.shared_inputs == {("b", "a"): 2}
    lines = "\n".join(diagnosis.lines())
    assert re.search(r"^  b +a +2$", lines, re.M)
    assert "exclude_overlap: true" in lines


def assert_same(one, other) -> None:
    """Compare weights and states of methods, bit for bit."""
    assert one[1] == other[1]
    assert one[0].keys() == other[0].keys()
    assert all(torch.equal(tensor, other[0][name]) for name, tensor in one[0].items())


METHODS = [
    {},
    {"loss_weighting": "famo"},
    {"loss_weighting": "gradnorm"},
    {"loss_weighting": "random", "gradient_accumulation_steps": 2},
    {"loss_weighting": "uncertainty", "mixing_strategy": "annealed"},
    {"gradient_balancing": "gradvac", "per_device_train_batch_size": 3},
    {"gradient_balancing": "nash_mtl", "per_device_train_batch_size": 3, "learning_rate": 1e-4},
    {"tokens_per_batch": 80},
]


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_the_run_after_it_is_the_run_without_it(tmp_path, tokenizer, method):
    weights = []
    for looked in (False, True):
        torch.manual_seed(7)
        own = trainer(tmp_path / str(looked), tokenizer, max_steps=6, **method)
        if looked:
            diagnosis = own.doctor()
            plain = not {"loss_weighting", "gradient_balancing"} & method.keys() or method == METHODS[3]
            assert (diagnosis.plain_seconds is None) == plain
            assert all(parameter.grad is None for parameter in own.model.parameters())
        own.train()
        weights.append((own.model.state_dict(), own.run_state()))
    assert_same(*weights)


def test_streams_are_looked_over_and_begin_where_they_would(tmp_path, tokenizer):
    weights = []
    for looked in (False, True):
        tasks = [
            {"name": "mood", "problem_type": "single_label_classification", "labels": ["no", "yes"]},
            {"name": "stars", "problem_type": "regression"},
        ]
        model = build_model(tasks, vocab_size=tokenizer.vocab_size)
        args = MultiTaskTrainingArguments(
            output_dir=str(tmp_path / str(looked)),
            use_cpu=True,
            disable_tqdm=True,
            max_steps=5,
            mixing_strategy="uniform",
            gradient_accumulation_steps=2,
        )
        own = MultiTaskTrainer(model, args, train_dataset=streams(), processing_class=tokenizer)
        if looked:
            diagnosis = own.doctor()
            assert not diagnosis.findings
            assert diagnosis.step_seconds > 0
        own.train()
        weights.append((own.model.state_dict(), own.run_state()))
    assert_same(*weights)


def test_settings_that_nothing_reads(tmp_path, tokenizer):
    mixture = mixture_from_datasets(datasets(), None, specs())
    tasks = [spec.to_config().to_dict() for spec in mixture.specs]
    unread = {"pooling": "mean", "lexical_rank": 3, "shared_experts": 8}
    model = build_model(tasks, vocab_size=tokenizer.vocab_size, **unread)
    args = MultiTaskTrainingArguments(output_dir=str(tmp_path), use_cpu=True, disable_tqdm=True, max_steps=3)
    own = MultiTaskTrainer(model, args, train_dataset=mixture, processing_class=tokenizer)
    (finding,) = found(own)["settings"]
    assert finding.subject == "lexical_rank=3, shared_experts=8"
    model.config.task_interaction, model.config.pooling = "mmoe", "task_queries"
    assert "settings" not in found(own)


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_setting_of_a_system_is_read(system, tmp_path):
    """Also of one that was written to a file and read again, where tuples are lists; the model stays as it is."""
    model = build_model(**SYSTEMS[system].settings)
    before, drawn = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    assert unread_settings(model) == {}
    assert torch.equal(torch.get_rng_state(), drawn)
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    model.save_pretrained(tmp_path)
    assert unread_settings(MultiTaskAttentionModel.from_pretrained(tmp_path)) == {}


def test_an_encoder_of_a_class_of_its_own_is_looked_over():
    """Its parts are asked beside the encoder at hand; from the configuration alone it could not be built."""

    class OwnConfig(BertConfig):
        model_type = "nobody_knows_it"

    encoder = BertModel(OwnConfig(**encoder_config().to_dict()), add_pooling_layer=False)
    config = MultiTaskAttentionConfig(encoder_config=encoder.config, tasks=TASKS, shared_experts=8)
    model = MultiTaskAttentionModel(config, encoder=encoder)
    assert unread_settings(model) == {"shared_experts": 8}


def test_what_it_prints():
    finding = Finding("check", "rte", "it is ill", "Cure it.")
    diagnosis = Diagnosis([finding], {("a", "b"): 1200}, 0.5, 0.25, 7200)
    assert diagnosis.lines() == [
        "A step's passes take 0.50 s here, 7,200 steps about 1.0 h.",
        "Without loss weighting and gradient balancing 0.25 s (2.00:1).",
        "Training rows whose input stands in a validation split:",
        "  training  validation   rows",
        "  --------  ----------  -----",
        "  a                  b  1,200",
        "- rte: it is ill. Cure it.",
    ]
    assert Diagnosis([], {}, None, None, 3).lines() == []
    assert [rough_duration(seconds) for seconds in (5.0, 90.0, 9000.0)] == [
        "about 5 s",
        "about 1.5 min",
        "about 2.5 h",
    ]
    assert _modules_of([f"part{place}.weight" for place in range(6)]).endswith("part3 and 2 more")


def test_every_check_has_its_test():
    files = (Path(__file__), Path(__file__).with_name("test_answer_checks.py"))
    text = "".join(path.read_text("utf-8") for path in files)
    assert all(f'"{check.__name__}"' in text for check in CHECKS)
