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
from ..modeling.encoder_conditioning import TASK_CONDITIONINGS
from ..modeling.errors import InputError, check_choice
from ..modeling.modeling_multitask import MultiTaskAttentionModel
from ..modeling.random_states import kept_random_states
from ..modeling.task_config import TaskConfig
from ..modeling.task_parents import rows_of_others, without_tasks
from ..modeling.task_tensors import owner_of, owners_by_key, task_key
from .arguments import MultiTaskTrainingArguments

NOTHING_MIXES = (
    "training_order=staged trains at last what mixes tasks; with task_interaction=none nothing does. Choose an "
    "interaction, e.g. attention_over_heads, or another order."
)


@contextmanager
def _everything(model: MultiTaskAttentionModel) -> Iterator[None]:
    """Train what is trained anyway."""
    yield


@contextmanager
def tasks_apart(model: MultiTaskAttentionModel) -> Iterator[None]:
    """Keep every task to itself while the block runs: interactions mix nothing, and what would mix is frozen."""
    interaction = model.mtl.interaction

    def unmixed(module: nn.Module, given: tuple[Any, ...], mixed: torch.Tensor) -> torch.Tensor:
        return interaction.apart(*given)

    def unpunished(*given: Any) -> None:
        """An adversary or penalty of what is not there says nothing."""

    def unmeasured(*given: Any) -> dict[str, torch.Tensor]:
        return {}

    reads_answers = model.mtl.aggregation.reads_tasks or model.mtl.task_parents.reads_tasks
    if reads_answers or model.config.conditioning == "task_tokens":
        raise InputError(
            "training_order=staged keeps tasks apart at first; aggregation, task_parents and task_tokens do not. "
            "Leave them out."
        )
    hook = interaction.register_forward_hook(unmixed)
    interaction.penalties = unpunished  # type: ignore[method-assign, assignment]
    interaction.measurements = unmeasured  # type: ignore[method-assign, assignment]
    try:
        with _frozen(_mixing_parameters(model)):
            yield
    finally:
        hook.remove()
        del interaction.penalties, interaction.measurements


@contextmanager
def _mixing_alone(model: MultiTaskAttentionModel) -> Iterator[None]:
    """Train only what mixes tasks while the block runs."""
    kept = {id(parameter) for parameter in _mixing_parameters(model)}
    with _frozen([parameter for parameter in model.parameters() if id(parameter) not in kept]):
        yield


@contextmanager
def _frozen(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Train none of these parameters while the block runs."""
    thawed = [parameter for parameter in parameters if parameter.requires_grad]
    for parameter in thawed:
        parameter.requires_grad_(False)
        parameter.grad = None
    try:
        yield
    finally:
        for parameter in thawed:
            parameter.requires_grad_(True)


def _mixing_parameters(model: MultiTaskAttentionModel) -> list[nn.Parameter]:
    """Return the parameters that say how tasks are mixed: of the interaction, and of the gate and the task embeddings
    where nothing else reads them.

    Raises:
        InputError: Nothing mixes tasks.
    """
    parts = model.mtl
    if not parts.interaction.reads_tasks:
        raise InputError(NOTHING_MIXES)
    parameters = list(parts.interaction.mixing_parameters())
    if not parts.interaction.has_branches:
        parameters += parts.gate.parameters()
    read_by_others = parts.conditioning.reads_embeddings or parts.aggregation.reads_embeddings
    if not read_by_others and not (parts.interaction.has_branches and parts.gate.reads_embeddings):
        parameters += parts.task_encoder.parameters()
    return parameters


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
    trained: Callable[[MultiTaskAttentionModel], AbstractContextManager[None]] = _everything


def joint(names: Sequence[str], first: Sequence[str]) -> list[Stage]:
    """All tasks and parts at once."""
    return [Stage()]


def staged(names: Sequence[str], first: Sequence[str]) -> list[Stage]:
    """Every task for itself, then only what mixes them (the two stages of Pfeiffer et al. 2021, AdapterFusion)."""
    if len(names) < 2:
        raise InputError("training_order=staged needs several tasks.")
    return [Stage("apart", trained=tasks_apart), Stage(trained=_mixing_alone)]


def intermediate_transfer(names: Sequence[str], first: Sequence[str]) -> list[Stage]:
    """Some tasks first, then each of the others alone from there (Phang et al. 2018, STILTs)."""
    if not first or len(first) == len(names):
        raise InputError(
            "training_order=intermediate_transfer needs intermediate_tasks, some of the tasks and not all: "
            f"{', '.join(names)}."
        )
    for name in first:
        check_choice("task in intermediate_tasks", name, names)
    _check_folder("intermediate", names)
    return [Stage("intermediate", tuple(first)), *(Stage(name, (name,)) for name in names if name not in first)]


def multitask_then_finetune(names: Sequence[str], first: Sequence[str]) -> list[Stage]:
    """All tasks together, then each alone from there (Liu et al. 2019, MT-DNN, section 3)."""
    if len(names) < 2:
        raise InputError("training_order=multitask_then_finetune needs several tasks.")
    _check_folder("multitask", names)
    return [Stage("multitask"), *(Stage(name, (name,)) for name in names)]


def _check_folder(name: str, tasks: Sequence[str]) -> None:
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
    config = _config_of(model.config, tasks)
    with kept_random_states(torch.device("cpu")):
        model_of_tasks = MultiTaskAttentionModel(config)
    model_of_tasks.to(model.device, model.dtype)  # type: ignore[arg-type]
    sources = [source for source in (trained, model) if source is not None]
    tensors = [_named_tensors(source) for source in sources]
    trains = {name: source.requires_grad for name, source in model.named_parameters()}
    with torch.no_grad():
        for name, tensor in _named_tensors(model_of_tasks).items():
            values = (
                _fit_tensor(name, tensors_of_source[name], tensor, source.config, config)
                for source, tensors_of_source in zip(sources, tensors)
                if name in tensors_of_source
            )
            value = next((value for value in values if value is not None), None)
            if value is None:
                raise InputError(
                    f"The model has no tensor {name!r}, which a model of {', '.join(tasks)} needs; merge adapters "
                    "into it first (merge_and_unload)."
                )
            tensor.copy_(value)
    for name, parameter in model_of_tasks.named_parameters():
        parameter.requires_grad_(trains.get(name, True))
    model_of_tasks.encoder_source, model_of_tasks.name_or_path = model.encoder_source, model.name_or_path
    model_of_tasks.hub_arguments, model_of_tasks.has_given_precision = model.hub_arguments, model.has_given_precision
    return model_of_tasks.train(model.training)


def _config_of(config: MultiTaskAttentionConfig, tasks: Sequence[str]) -> MultiTaskAttentionConfig:
    """Return the configuration of a model of some of the tasks; what names others is left out."""
    settings = config.to_dict()
    # As it is: the class of an encoder's own code cannot be told from its values.
    settings["encoder_config"] = copy.deepcopy(config.encoder_config)
    settings["tasks"] = [_kept_task(task, tasks) for task in config.task_configs if task.name in tasks]
    others = set(config.task_names) - set(tasks)
    for key in ("task_layers", "task_parents", "aggregation_weights"):
        if settings.get(key):
            settings[key] = without_tasks(settings[key], others)
    smaller = MultiTaskAttentionConfig.from_dict(settings)
    if max(map(len, partners_of(smaller))) < 2:
        smaller.aggregation = "none"
    # Of each part: an encoder may know fewer ways of attention than the model around it.
    encoder = config.encoder_config._attn_implementation
    smaller._attn_implementation = {"": config._attn_implementation, "encoder_config": encoder}
    return smaller


def _fit_tensor(
    name: str,
    value: torch.Tensor,
    like: torch.Tensor,
    config: MultiTaskAttentionConfig,
    wanted: MultiTaskAttentionConfig,
) -> torch.Tensor | None:
    """Return a tensor in the shape of another: of what a task has for each task that it reads, or for each output of
    its parents, that of the tasks that are wanted.

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
    before, after = (rows_of_others(name, owner, one) for one in (config, wanted))
    return value[[before.index(other) for other in after]] if set(after) <= set(before) else None


def left_out(model: MultiTaskAttentionModel, tasks: Sequence[str]) -> list[str]:
    """Return the parts of a model that a model of these tasks has not: a lone task has nobody to read, a child not
    parents that are left out.
    """
    config = model.config
    parents = config.task_parents or {}
    given = {name: parents[name] for name in tasks if name in parents}
    others = set(config.task_names) - set(tasks)
    lost = [f"task_parents={given}"] if without_tasks(given, others) != given else []
    if len(tasks) > 1:
        return lost
    names = ["task_interaction", "aggregation"]
    # The lone task's own encoder is all of that part; what others share beside it stays behind.
    names += ["conditioning"] * (config.conditioning != "separate_encoders")
    return [*(f"{name}={getattr(config, name)}" for name in names if getattr(config, name) != "none"), *lost]


def _kept_task(task: TaskConfig, kept: Sequence[str]) -> dict[str, Any]:
    row = task.to_dict()
    if task.reads is not None:
        row["reads"] = [name for name in task.reads if name in kept]
    return row


def _named_tensors(model: MultiTaskAttentionModel) -> dict[str, torch.Tensor]:
    """Return a model's tensors by name; a lone task's encoder has the name that it has among separate ones."""
    tensors = dict(model.state_dict())
    if model.num_tasks > 1 or TASK_CONDITIONINGS[model.config.conditioning].several_encoders is None:
        return tensors
    prefix = f"encoder.encoders.{task_key(model.config.task_names[0])}."
    return {
        prefix + name.removeprefix("encoder.") if name.startswith("encoder.") else name: tensor
        for name, tensor in tensors.items()
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
        return {name: task_rows for name, task_rows in rows.items() if name in tasks}

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
