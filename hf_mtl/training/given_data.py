"""The model and the mixture that a trainer makes of what it is given: nothing of the caller's is written to."""

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, IterableDataset
from torch import nn
from transformers import (
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    TrainingArguments,
    enable_full_determinism,
    set_seed,
)

from ..data.collator import MultiTaskCollator
from ..data.dataset_forms import check_names, named_datasets, splits_of
from ..data.fingerprint import fingerprint_rows
from ..data.mixture import Mixture, mixture_from_datasets, mixture_from_streams
from ..data.table_columns import with_measured_columns
from ..data.unlabelled import rows_to_score
from ..modeling.configuration_multitask import MultiTaskAttentionConfig, current_settings
from ..modeling.errors import InputError
from ..modeling.modeling_multitask import MultiTaskAttentionModel
from ..modeling.setting_names import ENCODER_ARGUMENTS, check_setting_names
from ..modeling.several_encoders import first_encoder
from ..modeling.task_config import TaskConfig
from ..tasks import TaskSpec, as_spec, tasks_by_source
from .ignored_arguments import refuse_ignored_arguments
from .task_agreement import (
    agree_with_model,
    check_rows_of_mixture,
    check_settings,
    join_validation,
)


def model_and_mixture(
    model: Any,
    args: TrainingArguments,
    train_dataset: Any,
    eval_dataset: Any,
    tasks: TaskConfig | Mapping[str, Any] | Sequence[TaskConfig | Mapping[str, Any]] | None,
    model_settings: Mapping[str, Any] | None,
    exclude_overlap: bool | None = False,
) -> tuple[MultiTaskAttentionModel, Mixture]:
    """Return the model, built where an encoder was named, and a mixture that agree on the tasks.

    Args:
        model: See `MultiTaskTrainer`.
        args: See `MultiTaskTrainer`.
        train_dataset: See `MultiTaskTrainer`.
        eval_dataset: See `MultiTaskTrainer`.
        tasks: See `MultiTaskTrainer`.
        model_settings: See `MultiTaskTrainer`.
        exclude_overlap: See `MultiTaskTrainer`.

    Raises:
        InputError: Something that cannot be used, or is said in two ways.
    """
    refuse_ignored_arguments(args)
    if isinstance(model, Path):
        model = str(model)
    is_encoder = isinstance(model, str | Mapping | PreTrainedConfig)
    model_settings = current_settings(model_settings or {})
    loading = ["encoder_kwargs", "system", *ENCODER_ARGUMENTS] if is_encoder else []
    check_setting_names(model_settings, loading)
    if not is_encoder:
        model_type = getattr(getattr(model, "config", None), "model_type", None)
        if model_type != MultiTaskAttentionConfig.model_type:
            raise InputError(
                f"model is {type(model).__name__}; expected an encoder's name (model='bert-base-uncased'), or a model "
                "made of one: MultiTaskAttentionModel.from_encoder(name, tasks=[...])."
            )
        check_settings(model, model_settings)
        _check_adapters(model)
    listed = [tasks] if isinstance(tasks, (TaskConfig, Mapping)) else tasks
    specs = None if listed is None else [as_spec(task) for task in listed]
    if exclude_overlap is not False and (train_dataset is None or isinstance(train_dataset, Mixture)):
        raise InputError(
            f"exclude_overlap={exclude_overlap!r} speaks of training rows that the trainer parts from held-out ones; "
            "for a Mixture give it to load_mixture or mixture_from_datasets."
        )
    if isinstance(train_dataset, Mixture):
        mixture = _own_mixture(train_dataset, eval_dataset, specs)
        written = [spec.name for spec in mixture.specs]
    elif train_dataset is None:
        mixture = _held_mixture(model, eval_dataset, specs)
        written = [spec.name for spec in specs or ()]
    else:
        labels = {} if is_encoder else {task.name: task.labels for task in model.config.task_configs}
        mixture = _built_mixture(train_dataset, eval_dataset, specs, labels, exclude_overlap)
        written = [spec.name for spec in specs or ()]
    if is_encoder:
        # As the program does: what is drawn for the new parts follows from the seed.
        enable_full_determinism(args.seed) if args.full_determinism else set_seed(args.seed)
        model = _wrapped(model, mixture, model_settings)
    _check_encoder(model, args)
    return model, agree_with_model(model, mixture, written)


def _wrapped(encoder: Any, mixture: Mixture, settings: Mapping[str, Any]) -> MultiTaskAttentionModel:
    """A model around an encoder for the tasks of a mixture."""
    tasks = [spec.to_config() for spec in mixture.specs]
    encoder = with_measured_columns(encoder, mixture.specs, mixture.train)
    model = MultiTaskAttentionModel.from_encoder(encoder, tasks=tasks, **settings)
    model.measured_tasks.update(spec.name for spec in mixture.specs)
    return model


def _check_adapters(model: nn.Module) -> None:
    """Raise `InputError` for DoRA on layers of zeros, which have no direction that it could scale: 0 / 0."""
    mark = ".lora_magnitude_vector."
    layers = [
        name.partition(mark)[0].rpartition("base_model.model.")[2]
        for name, magnitudes in model.named_parameters()
        if mark in name and not magnitudes.all()
    ]
    if layers:
        raise InputError(
            f"DoRA scales the directions of weights, and those of {', '.join(layers)} start at zero: every logit "
            f"would be NaN. Leave them out: LoraConfig(..., use_dora=True, exclude_modules={layers})."
        )


def _check_encoder(model: MultiTaskAttentionModel, args: TrainingArguments) -> None:
    """Raise `InputError` for activation checkpointing of an encoder that has none."""
    encoder, parts = first_encoder(model.encoder), model.modules()
    if args.activation_checkpointing and all(getattr(part, "gradient_checkpointing", None) is None for part in parts):
        raise InputError(
            f"activation_checkpointing=True, and a {type(encoder).__name__} has no activation checkpointing; leave it "
            "out, or save memory by gradient_accumulation_steps."
        )


def collator_and_rows(collator: Any, train_dataset: Any) -> tuple[MultiTaskCollator | None, Any]:
    """Return the collator and the training rows; rows in the third place, where they once stood, are no collator.

    Raises:
        InputError: Something that makes no batches of several tasks is given as the collator.
    """
    if collator is None or isinstance(collator, MultiTaskCollator):
        return collator, train_dataset
    if callable(collator):
        raise InputError(
            f"data_collator is a {type(collator).__name__}; batches carry the routing of their rows to the tasks' "
            "heads, which only a MultiTaskCollator makes. Leave it out: rows are padded to the longest of a batch. "
            "For another length write MultiTaskCollator(processor, pad_to_multiple_of=8); change rows before they "
            "are given."
        )
    if train_dataset is not None:
        raise InputError(
            f"data_collator is a {type(collator).__name__}, and train_dataset is given too; as in Transformers the "
            "third argument is the collator. Write train_dataset=... and eval_dataset=... by name."
        )
    warnings.warn(
        "The third argument is the collator now, as in Transformers; write train_dataset=... The rows are taken for "
        "train_dataset until version 0.2.",
        FutureWarning,
        stacklevel=3,
    )
    return None, collator


def check_tokenizer(given: Any) -> None:
    """Raise `InputError` for something that is no tokenizer, where one is given."""
    if given is not None and not isinstance(given, PreTrainedTokenizerBase):
        what = repr(given) if isinstance(given, (str, Path)) else f"a {type(given).__name__}"
        name = repr(str(given)) if isinstance(given, (str, Path)) else "..."
        raise InputError(
            f"processing_class is {what}; expected a tokenizer: AutoTokenizer.from_pretrained({name}). Left out, it "
            "is the one beside the model."
        )


def _own_mixture(given: Mixture, eval_dataset: Any, tasks: Sequence[TaskSpec] | None) -> Mixture:
    check_rows_of_mixture(given, tasks or ())
    specs = given.specs
    mixture = dataclasses.replace(given, validation=dict(given.validation))
    if eval_dataset is not None:
        sources = list(tasks_by_source(specs))
        names = list(dict.fromkeys([*sources, *(spec.name for spec in specs)]))
        datasets = _validation_sets(eval_dataset, sources if len(sources) == 1 else names)
        check_names(datasets, names, "validation")
        for name in splits_of(eval_dataset, sources, "test"):
            if any(spec.name in given.test for spec in specs if name in (spec.source_name, spec.name)):
                raise InputError(
                    f"eval_dataset has a test split of {name!r}, and the mixture has test rows of it. Leave it out: "
                    f'eval_dataset={{"{name}": data["validation"]}}; answer it with trainer.predict({{"{name}": '
                    'data["test"]}).'
                )
        rows = {
            spec.name: rows_to_score(spec, datasets[name])
            for spec in specs
            for name in (spec.source_name, spec.name)
            if name in datasets
        }
        join_validation(mixture, rows)
    return mixture


def _held_mixture(model: Any, eval_dataset: Any, specs: Sequence[TaskSpec] | None) -> Mixture:
    """Rows to score alone, of a model that exists; its tasks without rows are there too."""
    if isinstance(model, str | Mapping | PreTrainedConfig):
        raise InputError(
            f"train_dataset is missing, from which the tasks of a new model on {model!r} would follow; give it, or a "
            "model to evaluate."
        )
    labels = {task.name: task.labels for task in model.config.task_configs}
    held = Mixture([], {}, {})
    if eval_dataset is not None:
        names = _names_of(specs, labels)
        rows = _validation_sets(eval_dataset, names)
        check_names(rows, names, "validation")
        held = mixture_from_datasets(rows, None, specs, labels)
    by_name = {spec.name: spec for spec in [*(specs or ()), *held.specs]}
    others = [as_spec(task) for task in model.config.task_configs if task.name not in by_name]
    return dataclasses.replace(held, specs=[*by_name.values(), *others], train={}, validation=held.train)


def _built_mixture(
    train_dataset: Any,
    eval_dataset: Any,
    specs: Sequence[TaskSpec] | None,
    labels: Mapping[str, list[str] | None],
    exclude_overlap: bool | None = False,
) -> Mixture:
    """A mixture of data sets, whose own validation splits stand in where none is given.

    Labels are met by the names that the model has for them.
    """
    train = named_datasets(train_dataset, _names_of(specs, labels), "train")
    validation = _at_hand(splits_of(train_dataset, list(train), "validation"))
    if eval_dataset is not None:
        wanted = _validation_sets(eval_dataset, list(train))
        for name in wanted.keys() & validation.keys():
            if fingerprint_rows(wanted[name]) != fingerprint_rows(validation[name]):
                raise InputError(
                    f"eval_dataset has {len(wanted[name])} rows of {name!r}, and train_dataset has a validation split "
                    f"of {len(validation[name])} others. To score those of eval_dataset, write train_dataset="
                    f"{{{name!r}: data['train']}}."
                )
        validation = {**validation, **wanted}
    if any(isinstance(rows, IterableDataset) for rows in train.values()):
        if exclude_overlap is not False:
            raise InputError(
                f"exclude_overlap={exclude_overlap!r} needs training rows at hand, and some are streams; leave it out."
            )
        return mixture_from_streams(train, validation or None, specs, labels)
    return mixture_from_datasets(train, validation or None, specs, labels, exclude_overlap)


def _names_of(specs: Sequence[TaskSpec] | None, labels: Mapping[str, list[str] | None]) -> list[str]:
    """The names that data sets may have: sources of the tasks that are given, and the model's other tasks."""
    written = {spec.name for spec in specs or ()}
    sources = [spec.source_name for spec in specs or ()]
    return list(dict.fromkeys([*sources, *(name for name in labels if name not in written)]))


def _validation_sets(given: Any, names: Sequence[str]) -> dict[str, Dataset]:
    return _at_hand(named_datasets(given, names, "validation"))


def _at_hand(datasets: Mapping[str, Dataset | IterableDataset]) -> dict[str, Dataset]:
    """Data sets to score, which must be in memory."""
    rows_at_hand = {name: rows for name, rows in datasets.items() if isinstance(rows, Dataset)}
    for name in datasets.keys() - rows_at_hand.keys():
        raise InputError(
            f"The validation rows of {name!r} are a stream; take as many as are wanted: eval_dataset={{{name!r}: "
            "Dataset.from_list(list(stream.take(1000)))}."
        )
    return rows_at_hand
