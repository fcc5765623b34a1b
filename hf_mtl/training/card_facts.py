"""A model's card as its trainer knows it: scores, mixture, what was cut, versions."""

import inspect
import platform
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import datasets
import torch
import transformers

from ..balancing.gradient_balancing import GRADIENT_BALANCERS
from ..balancing.loss_weighting import LOSS_WEIGHTINGS
from ..data.features import FeatureDataset
from ..data.mixing import MIXING_STRATEGIES
from ..metrics import METRICS
from ..modeling.errors import InputError
from ..modeling.modalities import TABLE
from ..modeling.model_card_facts import NO_LICENSE, CardFacts, TaskFacts, example_row
from ..modeling.modeling_multitask import MultiTaskAttentionModel
from ..tasks import TaskSpec

# What `create_model_card` takes, and the value of `CardFacts` that each becomes.
_CARD_ARGUMENTS = {
    "language": "languages",
    "license": "license",
    "tags": "tags",
    "model_name": "name",
    "finetuned_from": "base_model",
    "dataset_tags": "datasets",
}
_LISTS = ("languages", "tags", "datasets")
# Of `card_values`: values of `TaskFacts` by task.
_BY_TASK = ("trivial", "tfidf", "test")
_ADAPTER = "These are the weights of an adapter (PEFT); they go on top of the model that `adapter_config.json` names."
_ITS_LICENSE = "{license}, as its owner says. The encoder and the data sets have terms of their own."


def facts_of_trainer(
    trainer: Any, values: Mapping[str, Any], given: Mapping[str, Any] = MappingProxyType({})
) -> CardFacts:
    """Return what a trainer's card says.

    Args:
        trainer: A `MultiTaskTrainer`.
        values: Values of `CardFacts`, and by task of `TaskFacts`, which come before what the trainer knows.
        given: Arguments of `create_model_card`, which come before both.
    """
    folder, model = Path(str(trainer.args.output_dir)), trainer.accelerator.unwrap_model(trainer.model)
    scores, tags = _scores(trainer), trainer.model.model_tags
    facts: dict[str, Any] = {
        "name": folder.absolute().name,
        "checkpoint": str(folder),
        "encoder": f"a {model.config.encoder_config.model_type} encoder",
        "base_model": _hub_name(model.encoder_source),
        "tasks": [_task(trainer, spec, scores.get(spec.name, {}), values) for spec in trainer.mixture.specs],
        "tags": list(tags or ()),
        "training": _training_lines(trainer),
        "data": _data_lines(trainer),
        "environment": _environment(trainer),
    }
    if not isinstance(model, MultiTaskAttentionModel):
        facts |= {"checkpoint": None, "limits": [_ADAPTER]}
    facts.update({key: value for key, value in values.items() if key not in _BY_TASK})
    for key, value in given.items():
        if value is not None:
            name = _CARD_ARGUMENTS[key]
            facts[name] = [value] if name in _LISTS and isinstance(value, str) else value
    license_name = facts.get("license")
    facts.setdefault("license_note", _ITS_LICENSE.format(license=license_name) if license_name else NO_LICENSE)
    return CardFacts(**facts)


def _hub_name(name: str) -> str | None:
    """Return a name if it is one of the Hub's, and no folder or package."""
    is_name = name.count("/") == 1 and ":" not in name and not name.startswith((".", "/", "~"))
    return name if is_name and not Path(name).exists() else None


def _scores(trainer: Any) -> dict[str, dict[str, float]]:
    """Return the scores of the model as it is: of its own step, or of the best one, which is loaded at the end."""
    state, args = trainer.state, trainer.args
    step = state.global_step
    if args.load_best_model_at_end and not trainer.is_in_train and state.best_global_step is not None:
        step = state.best_global_step
    entries = [entry for entry in state.log_history if entry.get("step") == step]
    merged: dict[str, float] = {key: value for entry in entries for key, value in entry.items()}
    return trainer.task_scores(merged)


def _task(trainer: Any, spec: TaskSpec, scores: Mapping[str, float], values: Mapping[str, Any]) -> TaskFacts:
    mixture = trainer.mixture
    by_task: Any = trainer.args.single_task_scores or {}
    single = by_task.get(spec.name) or {}
    return TaskFacts(
        config=spec.to_config(),
        metrics=scores,
        lower_is_better=[name for name in spec.metric_names if not METRICS[name].higher_is_better],
        single_task=single if isinstance(single, Mapping) else {spec.metric_names[0]: float(single)},
        train_rows=len(mixture.train[spec.name]) if spec.name in mixture.train else None,
        validation_rows=len(mixture.validation[spec.name]) if spec.name in mixture.validation else None,
        dataset=None if spec.dataset is None else _hub_name(spec.dataset),
        subset=spec.subset,
        split=spec.splits.get("validation", "validation"),
        example=(example := _example(trainer, spec)),
        answer=_answer(trainer, spec.name, example),
        **{key: values.get(key, {}).get(spec.name, {}) for key in _BY_TASK},
    )


def _example(trainer: Any, spec: TaskSpec) -> dict[str, Any]:
    mask = getattr(trainer.processing_class, "mask_token", None)
    row = example_row(spec.to_config(), **({"mask_token": mask} if mask else {}))
    if TABLE in row:
        usual = trainer.processor.readers[TABLE].usual_cells()
        row[TABLE] = {name: usual[name] for name in row[TABLE]}
    return row


def _answer(trainer: Any, task: str, example: Mapping[str, Any]) -> Any:
    """Return a task's answer to the card's example; None where one process alone cannot ask the model."""
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        return None
    model = trainer.accelerator.unwrap_model(trainer.model)
    try:
        return model.predict(example, tasks=task, tokenizer=trainer.processing_class)[0][task]
    except InputError:
        # The example is not what the task reads; a run is not lost for it.
        return None


def _training_lines(trainer: Any) -> list[str]:
    args = trainer.args
    parts = f" (new parts {args.parts_learning_rate:g})" if args.parts_learning_rate is not None else ""
    lines = [f"{trainer.state.global_step:,} steps, learning rate {args.learning_rate:g}{parts}, seed {args.seed}"]
    if args.mixing_strategy in MIXING_STRATEGIES:
        lines.append(f"Tasks are drawn by `{args.mixing_strategy}` mixing: {_summary(type(trainer.mixing))}")
    if len(trainer.mixture.specs) > 1 or args.loss_weighting != "fixed":
        lines.append(
            f"Losses are weighed by `{args.loss_weighting}`: {_summary(LOSS_WEIGHTINGS[args.loss_weighting])}"
        )
    if args.gradient_balancing:
        kind = GRADIENT_BALANCERS[args.gradient_balancing]
        lines.append(f"Gradients are balanced by `{args.gradient_balancing}`: {_summary(kind)}")
    return lines


def _summary(kind: Callable[..., Any]) -> str:
    """Return the first sentence of a method's documentation, which names its paper."""
    text = " ".join((inspect.getdoc(kind) or "").split("\n\n")[0].split())
    return text.rstrip(".") + "."


def _data_lines(trainer: Any) -> list[str]:
    lines = []
    if dropped := {name: count for name, count in trainer.mixture.dropped.items() if count}:
        counts = ", ".join(f"{name} {count:,}" for name, count in dropped.items())
        lines.append(f"Training rows whose input stands in a held-out split were dropped: {counts}.")
    elif trainer.mixture.dropped:
        lines.append("No training row stands in a held-out split.")
    for what, rows in (("training", trainer.train_dataset), ("validation", trainer.eval_dataset)):
        # Of a stream nobody has counted them.
        if isinstance(rows, FeatureDataset) and (
            cut := {name: count for name, count in rows.truncated.items() if count}
        ):
            counts = ", ".join(f"{name} {count:,}" for name, count in cut.items())
            lines.append(f"Longer than the task's length, and cut there ({what} rows): {counts}.")
    return lines


def _environment(trainer: Any) -> dict[str, str]:
    device = trainer.args.device
    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} ({platform.machine()})"
    processes = f", {trainer.args.world_size} processes" if trainer.args.world_size > 1 else ""
    seconds = [entry["train_runtime"] for entry in trainer.state.log_history if "train_runtime" in entry]
    return {
        "hf_mtl": version("hf_mtl"),
        "Transformers": transformers.__version__,
        "PyTorch": torch.__version__,
        "Datasets": datasets.__version__,
        "hardware": f"{hardware}{processes}",
        **({"time": f"{seconds[-1] / 60:.1f} minutes"} if seconds else {}),
    }
