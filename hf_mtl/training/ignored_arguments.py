"""Arguments of Transformers' Trainer that several tasks cannot be served with: refused by name, with the way to go."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from transformers import TrainingArguments
from transformers.trainer_optimizer import is_optimizer_factory

from ..modeling.errors import InputError, nearest
from ..tasks import TaskSpec

_DECODED = (
    "An evaluation decodes answers and scores them by each task's `metrics`; for other scores read "
    "trainer.predict({task: data}).predictions, the decoded answers by task."
)
_OWN_LOSS = (
    "For another loss override compute_loss in a subclass of MultiTaskTrainer; self.labels_of_batch(inputs) returns "
    "the labels by task. An example is in docs/transformers.md, under 'A loss of one's own'."
)
_FULL_PRECISION = "Evaluations run in the precision of training; write bf16=True (or fp16=True)."

# Of `TrainingArguments`: values other than the default have no effect here.
IGNORED_ARGUMENTS: dict[str, str] = {
    "label_smoothing_factor": "The tasks' losses are those of their problem types. " + _OWN_LOSS,
    "prediction_loss_only": "Leave it out: an evaluation always answers, and logs eval_<task>_loss too.",
    "eval_do_concat_batches": "Leave it out. " + _DECODED,
    "batch_eval_metrics": "Leave it out. " + _DECODED,
    "include_for_metrics": "Leave it out. " + _DECODED,
    "bf16_full_eval": _FULL_PRECISION,
    "fp16_full_eval": _FULL_PRECISION,
    "dataloader_drop_last": "Leave it out: every step is whole, and an epoch is rounded up to whole steps.",
    "dataloader_in_order": "Leave it out: which rows make up a step is fixed.",
    "train_sampling_strategy": "Rows are drawn by mixing_strategy, and rows of similar length share a batch by "
    "length_grouping=True (the default).",
    "length_column_name": "Lengths are those of the tokenised rows; leave it out.",
    "label_names": "Labels are columns of the data sets; name them in the tasks: TaskSpec(columns={'label': ...}).",
    "use_liger_kernel": "Its kernels are for language models; leave it out.",
    "liger_kernel_config": "Its kernels are for language models; leave it out.",
    "optim_target_modules": "Only optimizers that choose their own parameters read it; leave it out.",
    "use_cache": "Encoders keep no cache; leave it out.",
    "average_tokens_across_devices": "The loss of a step is that of the rows of all processes; leave it out.",
    "eval_accumulation_steps": "Leave it out: logits go to the processor's memory after every batch.",
    "eval_use_gather_object": "Leave it out: answers of all processes are gathered as objects.",
}

# Of `accelerator_config`: rows of a batch are not divided after they are routed to their tasks' heads.
_IGNORED_OF_ACCELERATOR = {
    "split_batches": "per_device_train_batch_size says how many rows a process has in a batch",
    "dispatch_batches": "every process reads its own batches",
}

# Optimizers that choose which parameters they train, and how, by themselves.
_OWN_GROUPS = ("adalomo", "apollo", "galore", "lomo")
_RATES = (
    "Here the encoder learns at learning_rate, everything behind it at parts_learning_rate, a task's own parameters "
    "at the learning_rate of its row"
)

# Of the trainer itself.
IGNORED_OF_TRAINER: dict[str, str] = {
    "compute_loss_func": "Weigh tasks by TaskSpec(weight=...) or loss_weighting. " + _OWN_LOSS,
    "preprocess_logits_for_metrics": _DECODED,
    "tokenizer": "It goes by the name that Transformers has for it now: processing_class=tokenizer.",
}


def refuse_ignored_arguments(args: TrainingArguments) -> None:
    """Raise `InputError` for an argument that would have no effect."""
    optimizer = str(getattr(args.optim, "value", args.optim))
    if optimizer.startswith(_OWN_GROUPS):
        raise InputError(
            f"optim={optimizer!r} chooses its parameters by itself. {_RATES}; write another, such as adamw_torch, or "
            "give an optimizer that is built: optimizers=(optimizer, None)."
        )
    for name, why in _IGNORED_OF_ACCELERATOR.items():
        if getattr(args.accelerator_config, name, None):
            raise InputError(f"accelerator_config has {name}=True, which batches cannot follow: {why}. Leave it out.")
    for item in dataclasses.fields(TrainingArguments):
        if item.name in IGNORED_ARGUMENTS:
            value = getattr(args, item.name)
            default = item.default if item.default_factory is dataclasses.MISSING else item.default_factory()
            if value != default:
                raise InputError(
                    f"{item.name}={value!r} would have no effect; expected the default {default!r}. "
                    f"{IGNORED_ARGUMENTS[item.name]}"
                )


def check_optimizer(given: tuple[Any, dict[str, Any]] | None) -> None:
    """Raise `InputError` for an optimizer that chooses its parameters, or options that would have no effect."""
    if given is None:
        return
    optimizer_class, options = given
    if is_optimizer_factory(optimizer_class):
        raise InputError(
            f"optimizer_cls_and_kwargs has {optimizer_class.__name__}, which chooses its parameters by itself. "
            f"{_RATES}: give an optimizer's class, or an optimizer that is built: optimizers=(optimizer, None)."
        )
    for name, advice in (("lr", "write learning_rate=..."), ("params", "leave it out"), ("model", "leave it out")):
        if name in options:
            raise InputError(
                f"optimizer_cls_and_kwargs has {name}={options[name]!r}, which would have no effect. {_RATES}; "
                f"{advice}."
            )


def check_built_optimizer(
    optimizer: torch.optim.Optimizer | None, model: nn.Module, args: TrainingArguments, specs: Iterable[TaskSpec]
) -> None:
    """Raise `InputError` for an optimizer that trains another model, or rates beside it, which it would not read.

    Args:
        optimizer: One that is built, or None.
        model: The model of the run.
        args: Its arguments.
        specs: Its tasks.
    """
    if optimizer is None:
        return
    trained = {id(tensor) for group in optimizer.param_groups for tensor in group["params"]}
    if not any(id(tensor) in trained for tensor in model.parameters()):
        raise InputError(
            f"The {type(optimizer).__name__} of `optimizers` holds no parameter of the model. Build the model first, "
            "model = MultiTaskAttentionModel.from_encoder(...), then the optimizer of model.parameters(), and give "
            "both."
        )
    rates = [f"TaskSpec(name={spec.name!r}, learning_rate=...)" for spec in specs if spec.learning_rate is not None]
    if vars(args)["parts_learning_rate"] is not None:
        rates.append("parts_learning_rate")
    if rates:
        raise InputError(
            f"{rates[0]} would have no effect: the {type(optimizer).__name__} of `optimizers` is built, with rates of "
            "its own groups. Leave one of both out."
        )


def refuse_ignored_of_trainer(given: Mapping[str, Any], taken: Iterable[str] = ()) -> None:
    """Raise `InputError` for something given to the trainer that would have no effect.

    Args:
        given: By the names of arguments.
        taken: The names that the trainer takes.
    """
    for name, advice in IGNORED_OF_TRAINER.items():
        if given.get(name) is not None:
            raise InputError(f"MultiTaskTrainer takes no `{name}`: it would have no effect. {advice}")
    if given.get("model_init") is not None and any(part is not None for part in given.get("optimizers") or ()):
        raise InputError(
            "`optimizers` are of one model, and `model_init` makes a new one for every run. Give "
            "optimizer_cls_and_kwargs=(class, options), or a model instead of model_init."
        )
    taken = [name for name in taken if name not in ("self", "unknown")]
    for name in given:
        if name not in taken and name not in IGNORED_OF_TRAINER:
            raise InputError(f"MultiTaskTrainer takes no `{name}`.{nearest(name, taken)} It takes {', '.join(taken)}.")


def refuse_ignore_keys(given: list[str] | None) -> None:
    """Raise `InputError` for names of outputs that an evaluation is to leave out; it returns none."""
    if given is not None:
        raise InputError(
            f"ignore_keys={given!r} would have no effect: predictions are decoded answers by task, without other "
            "outputs of the model. Leave it out."
        )
