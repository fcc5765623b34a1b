"""What the Trainer of Transformers takes and would have no effect here is refused by name."""

import dataclasses

import pytest
import torch
from transformers import TrainingArguments

from hf_mtl import InputError, MultiTaskTrainer, MultiTaskTrainingArguments
from hf_mtl.training.ignored_arguments import IGNORED_ARGUMENTS, IGNORED_OF_TRAINER, refuse_ignored_arguments
from tests.conftest import build_model
from tests.training.test_step_loss import datasets, trainer

OTHER_VALUES = {
    "label_smoothing_factor": 0.5,
    "include_for_metrics": ["inputs"],
    "length_column_name": "size",
    "train_sampling_strategy": "group_by_length",
    "label_names": ["label"],
    "optim_target_modules": ["query"],
    "liger_kernel_config": {"rope": True},
}


def test_every_name_is_one_that_transformers_takes():
    assert IGNORED_ARGUMENTS.keys() <= {item.name for item in dataclasses.fields(TrainingArguments)}


@pytest.mark.parametrize("name", IGNORED_ARGUMENTS)
def test_an_argument_without_effect_is_refused(name, tmp_path):
    args = MultiTaskTrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    refuse_ignored_arguments(args)
    # Set rather than given: some values need hardware or packages to be constructed with.
    setattr(args, name, OTHER_VALUES.get(name, not getattr(args, name)))
    with pytest.raises(InputError, match=f"^{name}=.*expected the default"):
        MultiTaskTrainer("no-such-encoder", args, train_dataset=datasets())


@pytest.mark.parametrize("name", IGNORED_OF_TRAINER)
def test_what_is_given_to_the_trainer_without_effect_is_refused(name, tmp_path):
    args = MultiTaskTrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    with pytest.raises(InputError, match=f"no `{name}`"):
        MultiTaskTrainer("no-such-encoder", args, train_dataset=datasets(), **{name: lambda *given: None})


def test_a_tokenizer_goes_by_its_new_name(tmp_path, tokenizer):
    args = MultiTaskTrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    with pytest.raises(InputError, match="processing_class=tokenizer"):
        MultiTaskTrainer("no-such-encoder", args, train_dataset=datasets(), tokenizer=tokenizer)


@pytest.mark.parametrize(
    ("given", "message"),
    [("bert", r"is 'bert'; .*AutoTokenizer.from_pretrained\('bert'\)"), (object(), "is a object; .*AutoTokenizer")],
)
def test_what_is_no_tokenizer_is_refused(given, message, tmp_path):
    args = MultiTaskTrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    with pytest.raises(InputError, match=f"processing_class {message}"):
        MultiTaskTrainer("no-such-encoder", args, train_dataset=datasets(), processing_class=given)


def test_an_optimizer_class_that_is_given_is_used(tmp_path, tokenizer):
    tasks = [{"name": "mood", "problem_type": "single_label_classification", "labels": ["no", "yes"]}]
    args = MultiTaskTrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none", learning_rate=1e-3)
    own = MultiTaskTrainer(
        build_model(tasks, vocab_size=tokenizer.vocab_size),
        args,
        train_dataset={"mood": datasets()["mood"]},
        processing_class=tokenizer,
        optimizer_cls_and_kwargs=(torch.optim.SGD, {"momentum": 0.5}),
    )
    optimizer = own.create_optimizer()
    assert isinstance(optimizer, torch.optim.SGD)
    assert {(group["lr"], group["momentum"]) for group in optimizer.param_groups} == {(1e-3, 0.5), (1e-2, 0.5)}


@pytest.mark.slow
def test_noise_on_embeddings_reaches_the_encoder(tmp_path, tokenizer):
    weights = []
    for alpha in (None, 50.0):
        own = trainer(tmp_path, tokenizer, max_steps=1, learning_rate=1e-2, neftune_noise_alpha=alpha)
        own.train()
        weights.append(torch.cat([tensor.detach().flatten() for tensor in own.model.encoder.parameters()]))
    assert not torch.equal(*weights)
