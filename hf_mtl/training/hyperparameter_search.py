"""A Trainer that searches for arguments: runs from the same start, each with other values."""

from collections.abc import Callable, Mapping
from typing import Any, cast

from transformers.trainer_utils import BestRun, HPSearchBackend

from ..modeling.errors import InputError, check_choice
from .arguments import MultiTaskTrainingArguments
from .balanced_step import SET_BY_BALANCING
from .derived_arguments import DERIVED, Adjusted
from .task_trainer import TaskTrainer

# What is read when a trainer is made, and not by each of its runs.
_OF_THE_TRAINER = ("gradient_balancing", "gradient_balancing_options", "output_dir", "use_cpu", "torch_compile")


class SearchingTrainer(TaskTrainer):
    """A Trainer whose `hyperparameter_search` knows the arguments of a mixture and follows the best model's metric."""

    _before_search: dict[str, Any]

    def hyperparameter_search(
        self,
        hp_space: Callable[[Any], Mapping[str, Any]] | None = None,
        compute_objective: Callable[[dict[str, float]], float] | None = None,
        n_trials: int = 20,
        direction: str | list[str] | None = None,
        backend: str | HPSearchBackend | None = None,
        hp_name: Callable[[Any], str] | None = None,
        **kwargs: Any,
    ) -> BestRun | list[BestRun]:
        """Search for values of arguments; see `Trainer.hyperparameter_search`.

        Args:
            hp_space: A function of a trial that returns values by the names of arguments, those of a mixture too. What
                a trial does not name it has as before the search, and so have the arguments after it.
            compute_objective: A function of the metrics; by default `metric_for_best_model` (mtl_average, the mean of
                the tasks' scores, where there is none). Transformers' default would add up all scores.
            n_trials: How many runs.
            direction: "maximize" or "minimize"; of the default objective it follows from the metric, and of another
                one it is "minimize" where it is left out, as in Transformers.
            backend: As of Transformers' method.
            hp_name: As of Transformers' method.
            **kwargs: As of Transformers' method.

        Raises:
            InputError: No `model_init`, no validation rows, an unknown argument, or a direction against the metric.
        """
        if self.model_init is None:
            raise InputError("A search begins every run from a new model; give a function: model_init=..., no model.")
        if self.eval_dataset is None:
            raise InputError("A search compares scores; give eval_dataset={task: Dataset}.")
        if n_trials < 1:
            raise InputError(f"n_trials={n_trials!r}; expected a whole number >= 1.")
        if compute_objective is None:
            direction, compute_objective = self._direction(direction), self._followed_score
        self._before_search = dict(vars(self.args))
        try:
            return super().hyperparameter_search(
                cast(Any, hp_space),
                compute_objective,
                n_trials,
                cast(Any, direction or "minimize"),
                backend,
                hp_name,
                **kwargs,
            )
        finally:
            vars(self.args).update(self._before_search)

    def _followed(self) -> str:
        return str(self.args.metric_for_best_model or "mtl_average").removeprefix("eval_")

    def _followed_score(self, metrics: dict[str, float]) -> float:
        return metrics[f"eval_{self._followed()}"]

    def _direction(self, given: str | list[str] | None) -> str:
        rises = self.args.greater_is_better is not False
        follows = "maximize" if rises else "minimize"
        if given not in (None, follows):
            raise InputError(
                f"direction={given!r}, and of {self._followed()} {'more' if rises else 'less'} is better; write "
                f"{follows!r}, or leave it out."
            )
        return follows

    def _hp_search_setup(self, trial: Any) -> None:
        if self.hp_search_backend is None or trial is None:
            return super()._hp_search_setup(trial)
        space, values = self.hp_space, {}
        vars(self.args).update(self._before_search)
        following = {name for name, value in vars(self.args).items() if name in DERIVED or isinstance(value, Adjusted)}

        def checked(trial: Any) -> Mapping[str, Any]:
            values.update(space(trial))
            for name in values:
                check_choice("argument of the search:", name, MultiTaskTrainingArguments.__dataclass_fields__)
                if name in _OF_THE_TRAINER or (self.balancer is not None and name in SET_BY_BALANCING):
                    raise InputError(
                        f"A search cannot try values of {name}: a trainer has it from when it is made. Search with a "
                        "trainer for each."
                    )
            # Transformers casts a value to the type of the one before, which of these says that it follows.
            return {name: value for name, value in values.items() if name not in following}

        self.hp_space = checked  # type: ignore[assignment]
        try:
            super()._hp_search_setup(trial)
        finally:
            self.hp_space = space
        for name in following & values.keys():
            setattr(self.args, name, values[name])
        self.args.check_values()
        self.args.check_derived()
        return None
