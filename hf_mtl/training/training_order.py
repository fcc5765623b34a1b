"""In which order a run trains tasks and parts: all at once, branches before their mixture, one task after another."""

import copy
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..data.mixture import Mixture
from ..modeling.aggregation import partners_of
from ..modeling.configuration_multitask import MultiTaskAttentionConfig
from ..modeling.errors import InputError, check_choice
from ..modeling.interaction_base import reads_lists
from ..modeling.modeling_multitask import MultiTaskAttentionModel
from ..modeling.random_states import kept_random_states
from ..modeling.task_config import TaskConfig
from ..modeling.task_tensors import owner_of, owners_by_key, task_key
from .arguments import MultiTaskTrainingArguments

NOTHING_MIXES = (
    "training_order=staged trains at last what mixes tasks; with task_interaction=none nothing does. Choose an "
    "interaction, e.g. attention_over_heads, or another order."
)


@contextmanager
def everything(model: MultiTaskAttentionModel) -> Iterator[None]:
    """Train what is trained anyway."""
    yield


@contextmanager
def tasks_apart(model: MultiTaskAttentionModel) -> Iterator[None]:
    """Keep every task to itself while the block runs: interactions mix nothing, and what would mix is frozen."""
    interaction = model.mtl.interaction

    def alone(module: nn.Module, given: tuple[Any, ...], mixed: torch.Tensor) -> torch.Tensor:
        return interaction.apart(*given)

    def unpunished(states: torch.Tensor, embeddings: torch.Tensor) -> None:
        """An adversary or penalty of what is not there says nothing."""

    if model.mtl.aggregation.reads_tasks or model.config.conditioning == "task_tokens":
        raise InputError(
            "training_order=staged keeps tasks apart at first; aggregation and task_tokens do not. Leave them out."
        )
    hook = interaction.register_forward_hook(alone)
    interaction.penalties = unpunished  # type: ignore[method-assign]
    try:
        with frozen(mixing_parameters(model)):
            yield
    finally:
        hook.remove()
        del interaction.penalties


@contextmanager
def mixing_alone(model: MultiTaskAttentionModel) -> Iterator[None]:
    """Train only what mixes tasks while the block runs."""
    kept = {id(own) for own in mixing_parameters(model)}
    with frozen([own for own in model.parameters() if id(own) not in kept]):
        yield


@contextmanager
def frozen(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Train none of these parameters while the block runs."""
    thawed = [own for own in parameters if own.requires_grad]
    for own in thawed:
        own.requires_grad_(False)
        own.grad = None
    try:
        yield
    finally:
        for own in thawed:
            own.requires_grad_(True)


def mixing_parameters(model: MultiTaskAttentionModel) -> list[nn.Parameter]:
    """Return the parameters that say how tasks are mixed: of the interaction, and of the gate and the task embeddings
    where nothing else reads them.

    Raises:
        InputError: Nothing mixes tasks.
    """
    parts = model.mtl
    if not parts.interaction.reads_tasks:
        raise InputError(NOTHING_MIXES)
    found = list(parts.interaction.mixing_parameters())
    if not parts.interaction.has_branches:
        found += parts.gate.parameters()
    read_by_others = parts.conditioning.reads_embeddings or parts.aggregation.reads_embeddings
    if not read_by_others and not (parts.interaction.has_branches and parts.gate.reads_embeddings):
        found += parts.task_encoder.parameters()
    return found


@dataclass(frozen=True)
class Stage:
    """A part of a run: a training of its own, from where the one before it ended.

    Args:
        name: Its folder below the run's; the run's own folder if empty.
        tasks: The tasks it trains; all if None.
        trained: What it trains, a context of the model.
    """

    name: str = ""
    tasks: tuple[str, ...] | None = None
    trained: Callable[[MultiTaskAttentionModel], AbstractContextManager[None]] = everything


def joint(names: Sequence[str], first: Sequence[str]) -> list[Stage]:
    """All tasks and parts at once."""
    return [Stage()]


def staged(names: Sequence[str], first: Sequence[str]) -> list[Stage]:
    """Every task for itself, then only what mixes them (the two stages of Pfeiffer et al. 2021, AdapterFusion)."""
    if len(names) < 2:
        raise InputError("training_order=staged needs several tasks.")
    return [Stage("apart", trained=tasks_apart), Stage(trained=mixing_alone)]


def intermediate_transfer(names: Sequence[str], first: Sequence[str]) -> list[Stage]:
    """Some tasks first, then each of the others alone from there (Phang et al. 2018, STILTs)."""
    if not first or len(first) == len(names):
        raise InputError(
            "training_order=intermediate_transfer needs intermediate_tasks, some of the tasks and not all: "
            f"{', '.join(names)}."
        )
    for name in first:
        check_choice("task in intermediate_tasks", name, names)
    check_folder("intermediate", names)
    return [Stage("intermediate", tuple(first)), *(Stage(name, (name,)) for name in names if name not in first)]


def multitask_then_finetune(names: Sequence[str], first: Sequence[str]) -> list[Stage]:
    """All tasks together, then each alone from there (Liu et al. 2019, MT-DNN, section 3)."""
    if len(names) < 2:
        raise InputError("training_order=multitask_then_finetune needs several tasks.")
    check_folder("multitask", names)
    return [Stage("multitask"), *(Stage(name, (name,)) for name in names)]


def check_folder(name: str, tasks: Sequence[str]) -> None:
    """Raise `InputError` if a task has the name of the first stage's folder."""
    if name in tasks:
        raise InputError(
            f"With this training_order the folder {name!r} is the first stage's; rename the task {name!r}."
        )


def model_of(
    model: MultiTaskAttentionModel, tasks: Sequence[str], trained: MultiTaskAttentionModel | None = None
) -> MultiTaskAttentionModel:
    """Return a model of some of a model's tasks, with copies of all its tensors that such a model has.

    Args:
        model: The model.
        tasks: Names of the tasks to keep, in the model's order.
        trained: Another model of some of these tasks whose tensors go before.

    Raises:
        InputError: An unknown task.
    """
    for name in tasks:
        check_choice("task", name, model.config.task_names)
    config = config_of(model.config, tasks)
    with kept_random_states(torch.device("cpu")):
        found = MultiTaskAttentionModel(config)
    found.to(model.device, model.dtype)  # type: ignore[arg-type]
    sources = [own for own in (trained, model) if own is not None]
    tensors = [named_tensors(own) for own in sources]
    trains = {name: own.requires_grad for name, own in model.named_parameters()}
    with torch.no_grad():
        for name, tensor in named_tensors(found).items():
            values = (
                fitting(name, known[name], tensor, own.config, config)
                for own, known in zip(sources, tensors)
                if name in known
            )
            value = next((value for value in values if value is not None), None)
            if value is None:
                raise InputError(
                    f"The model has no tensor {name!r}, which a model of {', '.join(tasks)} needs; merge adapters "
                    "into it first (merge_and_unload)."
                )
            tensor.copy_(value)
    for name, parameter in found.named_parameters():
        parameter.requires_grad_(trains.get(name, True))
    found.encoder_source, found.name_or_path = model.encoder_source, model.name_or_path
    found.hub_arguments, found.has_given_precision = model.hub_arguments, model.has_given_precision
    return found.train(model.training)


def config_of(config: MultiTaskAttentionConfig, tasks: Sequence[str]) -> MultiTaskAttentionConfig:
    """Return the configuration of a model of some of the tasks; what names others is left out."""
    settings = config.to_dict()
    # As it is: the class of an encoder's own code cannot be told from its values.
    settings["encoder_config"] = copy.deepcopy(config.encoder_config)
    settings["tasks"] = [_kept_task(task, tasks) for task in config.task_configs if task.name in tasks]
    for key in ("task_layers", "aggregation_weights"):
        if settings.get(key):
            settings[key] = {name: value for name, value in settings[key].items() if name in tasks}
    found = MultiTaskAttentionConfig.from_dict(settings)
    if max(map(len, partners_of(found))) < 2:
        found.aggregation = "none"
    # Of each part: an encoder may know fewer ways of attention than the model around it.
    encoder = config.encoder_config._attn_implementation
    found._attn_implementation = {"": config._attn_implementation, "encoder_config": encoder}
    return found


def fitting(
    name: str,
    value: torch.Tensor,
    like: torch.Tensor,
    config: MultiTaskAttentionConfig,
    wanted: MultiTaskAttentionConfig,
) -> torch.Tensor | None:
    """Return a tensor in the shape of another: of numbers for pairs of tasks those of the tasks that are wanted.

    Args:
        name: Its name.
        value: The tensor.
        like: What has the shape.
        config: The configuration that it belongs to.
        wanted: The configuration of some of its tasks.
    """
    if value.shape == like.shape:
        return value
    owner = owner_of(name, owners_by_key(wanted.task_names))
    if owner is None or owner not in config.task_names:
        return None
    known, asked = ([own.task_names[place] for place in reads_lists(own)[owner]] for own in (config, wanted))
    return value[[known.index(other) for other in asked]] if set(asked) <= set(known) else None


def left_out(model: MultiTaskAttentionModel, tasks: Sequence[str]) -> list[str]:
    """Return the parts of a model that a model of these tasks has not, since a lone task has nobody to read."""
    if len(tasks) > 1:
        return []
    config = model.config
    names = ["task_interaction", "aggregation"]
    names += ["conditioning"] * (config.conditioning != "separate_encoders")
    return [f"{name}={getattr(config, name)}" for name in names if getattr(config, name) != "none"]


def _kept_task(task: TaskConfig, kept: Sequence[str]) -> dict[str, Any]:
    row = task.to_dict()
    if task.reads is not None:
        row["reads"] = [name for name in task.reads if name in kept]
    return row


def named_tensors(model: MultiTaskAttentionModel) -> dict[str, torch.Tensor]:
    """Return a model's tensors by name; a lone task's encoder has the name that it has among separate ones."""
    found = dict(model.state_dict())
    if model.config.conditioning != "separate_encoders" or model.num_tasks > 1:
        return found
    prefix = f"encoder.encoders.{task_key(model.config.task_names[0])}."
    return {
        prefix + name.removeprefix("encoder.") if name.startswith("encoder.") else name: tensor
        for name, tensor in found.items()
    }


def mixture_of(mixture: Mixture, tasks: Sequence[str]) -> Mixture:
    """Return the rows of some tasks of a mixture.

    Raises:
        InputError: An unknown task, or rows that are read as they come, which several tasks may share.
    """
    for name in tasks:
        check_choice("task", name, [spec.name for spec in mixture.specs])
    if mixture.streams:
        raise InputError("Streams are read for all their tasks; train some of them from rows that are at hand.")

    def kept(rows: dict[str, Any]) -> dict[str, Any]:
        return {name: own for name, own in rows.items() if name in tasks}

    specs = [
        spec if spec.reads is None else replace(spec, reads=[name for name in spec.reads if name in tasks])
        for spec in mixture.specs
        if spec.name in tasks
    ]
    return Mixture(specs, kept(mixture.train), kept(mixture.validation), kept(mixture.test), kept(mixture.dropped))


def arguments_of(
    args: MultiTaskTrainingArguments,
    tasks: Sequence[str],
    every_task: Sequence[str],
    output_dir: str | Path,
    **changes: Any,
) -> MultiTaskTrainingArguments:
    """Return arguments for training some of the tasks in a folder of their own.

    What speaks of other tasks is left out: their scores, and a metric of theirs to choose the best model by. What
    follows from arguments that change follows anew.

    Args:
        args: The arguments of all tasks.
        tasks: The tasks.
        every_task: All tasks.
        output_dir: The folder.
        **changes: Other arguments.
    """

    def kept(scores: Any) -> dict[str, Any] | None:
        return {name: score for name, score in scores.items() if name in tasks} if scores else None

    metric = str(args.metric_for_best_model).removeprefix("eval_")
    owners = sorted((name for name in every_task if metric.startswith(f"{name}_")), key=len)
    if owners and owners[-1] not in tasks:
        changes = {"metric_for_best_model": "mtl_average", **changes}
    if "metric_for_best_model" in changes:
        changes = {"greater_is_better": None, **changes}
    scores = {name: kept(getattr(args, name)) for name in ("target_scores", "single_task_scores")}
    return dataclasses.replace(args, **{**scores, "output_dir": str(output_dir), **changes})


TRAINING_ORDERS: dict[str, Callable[[Sequence[str], Sequence[str]], list[Stage]]] = {
    "joint": joint,
    "staged": staged,
    "intermediate_transfer": intermediate_transfer,
    "multitask_then_finetune": multitask_then_finetune,
}
