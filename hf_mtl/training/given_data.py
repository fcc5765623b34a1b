"""What a trainer is given, as a model and a mixture of its own: nothing of the caller's is written to."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from datasets import IterableDataset
from transformers import PreTrainedModel, TrainingArguments, enable_full_determinism, set_seed

from ..data.dataset_forms import named_datasets, splits_of
from ..data.fingerprint import fingerprint_rows
from ..data.mixture import Mixture, mixture_from_datasets
from ..data.streams import mixture_from_streams
from ..data.unlabelled import rows_to_score
from ..modeling import InputError, MultiTaskAttentionModel, TaskConfig
from ..tasks import TaskSpec, as_spec
from .arguments import MultiTaskTrainingArguments
from .task_agreement import agree_on_tasks, check_rows_of_mixture, check_same_tasks, check_settings, join_validation


def model_and_mixture(
    model: Any,
    args: TrainingArguments,
    train_dataset: Any,
    eval_dataset: Any,
    tasks: Sequence[TaskConfig | Mapping[str, Any]] | None,
    model_settings: Mapping[str, Any] | None,
) -> tuple[MultiTaskAttentionModel, Mixture]:
    """Return the model, built where an encoder was named, and a mixture that agree on the tasks.

    Args:
        model: See `MultiTaskTrainer`.
        args: See `MultiTaskTrainer`.
        train_dataset: See `MultiTaskTrainer`.
        eval_dataset: See `MultiTaskTrainer`.
        tasks: See `MultiTaskTrainer`.
        model_settings: See `MultiTaskTrainer`.

    Raises:
        InputError: Something that cannot be used, or is said in two ways.
    """
    if not isinstance(args, MultiTaskTrainingArguments):
        raise InputError(
            f"args is {type(args).__name__}; expected MultiTaskTrainingArguments(output_dir=...), which takes what "
            "TrainingArguments takes."
        )
    if not isinstance(model, str):
        if not isinstance(model, PreTrainedModel) and not isinstance(
            getattr(model, "base_model", None), PreTrainedModel
        ):
            raise InputError(
                f"model is {type(model).__name__}; expected a MultiTaskAttentionModel, or an encoder's name."
            )
        check_settings(model, model_settings)
    specs = None if tasks is None else [as_spec(task) for task in tasks]
    if isinstance(train_dataset, Mixture):
        mixture = _own_mixture(train_dataset, eval_dataset, specs)
        written = [spec.name for spec in mixture.specs]
    else:
        names = [] if isinstance(model, str) else list(model.config.task_names)
        mixture = _built_mixture(train_dataset, eval_dataset, specs, names)
        written = [spec.name for spec in specs or ()]
    if isinstance(model, str):
        # As the program does: what is drawn for the new parts follows from the seed.
        enable_full_determinism(args.seed) if args.full_determinism else set_seed(args.seed)
        rows = [spec.to_config() for spec in mixture.specs]
        model = MultiTaskAttentionModel.from_encoder(model, tasks=rows, **(model_settings or {}))
        model.measured_tasks.update(spec.name for spec in mixture.specs)
    check_same_tasks(model, mixture.specs)
    agree_on_tasks(model, mixture.specs, written)
    return model, mixture


def _own_mixture(given: Mixture, eval_dataset: Any, tasks: Sequence[TaskSpec] | None) -> Mixture:
    check_rows_of_mixture(given, tasks or ())
    specs = [as_spec(spec) for spec in given.specs]
    mixture = dataclasses.replace(given, specs=specs, validation=dict(given.validation))
    if eval_dataset is not None:
        names = list(dict.fromkeys(name for spec in specs for name in (spec.source_name, spec.name)))
        datasets = named_datasets(eval_dataset, names, "validation")
        rows = {
            spec.name: rows_to_score(spec, datasets[name])
            for spec in specs
            for name in (spec.name, spec.source_name)
            if name in datasets
        }
        join_validation(mixture, rows)
    return mixture


def _built_mixture(
    train_dataset: Any, eval_dataset: Any, specs: Sequence[TaskSpec] | None, model_tasks: Sequence[str]
) -> Mixture:
    """A mixture of data sets, whose own validation splits stand in where none is given."""
    names = list(dict.fromkeys(spec.source_name for spec in specs)) if specs else list(model_tasks)
    train = named_datasets(train_dataset, names, "train")
    validation = splits_of(train_dataset, list(train))
    if eval_dataset is not None:
        wanted = named_datasets(eval_dataset, list(train), "validation")
        for name in wanted.keys() & validation.keys():
            if fingerprint_rows(wanted[name]) != fingerprint_rows(validation[name]):
                raise InputError(
                    f"eval_dataset has {len(wanted[name])} rows of {name!r}, and train_dataset has a validation "
                    f"split of {len(validation[name])} others. Say which are meant: train_dataset={{{name!r}: data['train']}}"
                    " beside eval_dataset."
                )
        validation = {**validation, **wanted}
    streamed = any(isinstance(rows, IterableDataset) for rows in train.values())
    build = mixture_from_streams if streamed else mixture_from_datasets
    return build(train, validation or None, specs)
