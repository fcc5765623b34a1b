"""Arguments that name tasks or metrics are checked against the tasks before any long work."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from transformers.trainer_utils import IntervalStrategy, SchedulerType

from ..modeling.errors import InputError, check_choice
from ..tasks import TaskSpec, tasks_by_source
from .arguments import MultiTaskTrainingArguments
from .scoring import AVERAGE, RELATIVE, WORST

# Schedules that wait for a metric to stop getting better.
_FOLLOWING = (SchedulerType.REDUCE_ON_PLATEAU, SchedulerType.GREEDY)


def check_arguments(
    args: MultiTaskTrainingArguments,
    specs: Sequence[TaskSpec],
    evaluated: Collection[str],
    mixing_name: str,
    has_own_metrics: bool = False,
) -> None:
    """Raise `InputError` for arguments that the tasks or their validation rows cannot serve.

    Args:
        args: The arguments.
        specs: The tasks.
        evaluated: Names of the tasks with validation rows.
        mixing_name: The mixing strategy.
        has_own_metrics: Whether a function of the caller's computes further metrics, under any name.
    """
    args.check_derived()
    scheduler_options(args)
    by_name = {spec.name: spec for spec in specs}
    for name in ("target_scores", "single_task_scores"):
        _check_scores(name, getattr(args, name) or {}, by_name)
    if evaluated and args.metric_for_best_model is not None and not has_own_metrics:
        _check_best_metric(args, [by_name[name] for name in evaluated])
    never = args.eval_strategy == IntervalStrategy.NO
    if mixing_name == "dev_gap":
        for names in tasks_by_source(specs).values():
            for name in names:
                if never or name not in evaluated or name not in (args.target_scores or {}):
                    raise InputError(
                        f"mixing_strategy=dev_gap follows the score of task {name!r} and needs its validation rows, "
                        "its entry in target_scores, and an eval_strategy."
                    )
    for spec in specs:
        if spec.patience is not None and (never or spec.name not in evaluated):
            raise InputError(
                f"Task {spec.name!r} has a patience; that needs its validation rows and an eval_strategy."
            )


def _check_scores(name: str, given: Mapping[str, Any], specs: Mapping[str, TaskSpec]) -> None:
    for task, score in given.items():
        check_choice(f"task in {name}:", task, specs)
        scores = score if isinstance(score, Mapping) and name == "single_task_scores" else {None: score}
        for metric, value in scores.items():
            if metric is not None:
                check_choice(f"metric of task {task!r} in {name}:", metric, specs[task].metric_names)
            number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
            if not number or (value == 0 and name == "single_task_scores"):
                raise InputError(f"{name} of {task!r} is {value!r}; expected a number other than 0, such as 71.5.")


def _check_best_metric(args: MultiTaskTrainingArguments, specs: Sequence[TaskSpec]) -> None:
    given = str(args.metric_for_best_model).removeprefix("eval_")
    relative = any(spec.name in (args.single_task_scores or {}) for spec in specs)
    metrics = [AVERAGE, WORST, "loss", *([RELATIVE] if relative else [])]
    metrics += [f"{spec.name}_{metric}" for spec in specs for metric in [*spec.metric_names, "loss"]]
    if given == RELATIVE and not relative:
        raise InputError('metric_for_best_model=mtl_relative needs single_task_scores, such as {"rte": 66.4}.')
    check_choice("metric_for_best_model", given, metrics)


def scheduler_options(args: MultiTaskTrainingArguments) -> Any:
    """Return `lr_scheduler_kwargs`, with the direction of the metric where the schedule follows one.

    Raises:
        InputError: They give another direction.
    """
    options = args.lr_scheduler_kwargs
    if args.lr_scheduler_type not in _FOLLOWING:
        return options
    mode = "max" if args.greater_is_better else "min"
    given = dict(options) if isinstance(options, dict) else {}
    if given.get("mode", mode) != mode:
        raise InputError(
            f"lr_scheduler_kwargs say mode={given['mode']!r}, and of metric_for_best_model="
            f"{args.metric_for_best_model!r} {'more' if mode == 'max' else 'less'} is better; write mode={mode!r}, or "
            "leave it out."
        )
    return {**given, "mode": mode}
