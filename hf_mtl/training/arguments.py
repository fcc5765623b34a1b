"""Training arguments: those of Transformers, and what several tasks add."""

import dataclasses
import math
import sys
import warnings
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from transformers import TrainingArguments
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
from transformers.utils.logging import get_logger

from ..balancing.gradient_balancing import BALANCED_PARAMETERS, GRADIENT_BALANCERS
from ..balancing.loss_weighting import LOSS_WEIGHTINGS
from ..data.batch_forms import BATCH_FORMS
from ..data.image_augmentation import read_transforms
from ..data.mixing import MIXING_STRATEGIES
from ..modeling.errors import InputError, check_choice, nearest
from ..modeling.step_loss import LOSS_REDUCTIONS
from .derived_arguments import DERIVED, Adjusted, AdjustedCount, AdjustedText, following, json_mapping

logger = get_logger(__name__)

_POSITIVE = (
    "mixing_temperature",
    "mixing_cap",
    "learning_rate",
    "per_device_train_batch_size",
    "tasks_per_step",
    "loss_weighting_learning_rate",
    "loss_weighting_temperature",
    "loss_smoothing",
    "tokens_per_batch",
    "global_batch_size",
    "gradient_accumulation_steps",
    "per_device_eval_batch_size",
    "num_train_epochs",
)

# Where Transformers' Trainer writes to when it is given no arguments.
_DEFAULT_FOLDER = "tmp_trainer"

# Names of arguments in earlier versions.
OLD_NAMES = {"temperature": "mixing_temperature"}

_MOST_POWER = 10.0


@dataclass
class MultiTaskTrainingArguments(TrainingArguments):
    """`TrainingArguments` with the settings of a mixture; an epoch draws as many rows as the tasks have together."""

    mixing_strategy: str = field(
        default="proportional", metadata={"help": f"How often each task is drawn: {', '.join(MIXING_STRATEGIES)}."}
    )
    mixing_temperature: float = field(
        default=2.0, metadata={"help": "Of temperature mixing: 1 is proportional, large values approach uniform."}
    )
    temperature: float | None = field(default=None, metadata={"help": "The old name of --mixing_temperature."})
    mixing_power: float = field(
        default=0.5, metadata={"help": "Of power mixing: 1 is proportional, 0.5 the square root, 0 uniform."}
    )
    mixing_cap: int = field(default=2**19, metadata={"help": "Of capped mixing: rows of a task that count at most."})
    target_scores: dict[str, Any] | str | None = field(
        default=None, metadata={"help": 'Of dev_gap mixing: scores to reach, e.g. {"rte": 70, "cola": 40}.'}
    )
    batch_form: str = field(
        default="mixed",
        metadata={
            "help": "mixed: a batch holds rows of any tasks; one_task: of one; k_tasks: a step's rows are of "
            "--tasks_per_step tasks."
        },
    )
    tasks_per_step: int = field(default=2, metadata={"help": "Of the batch form k_tasks."})
    tokens_per_batch: int | None = field(
        default=None,
        metadata={
            "help": "Word pieces of a device's batch at most, padding, choices and windows included, instead of a "
            "number of rows."
        },
    )
    global_batch_size: int | None = field(
        default=None,
        metadata={
            "help": "Rows of an optimizer step over all processes; gradient_accumulation_steps follows from it, so "
            "that another number of processes takes the same steps."
        },
    )
    loss_weighting: str = field(
        default="fixed", metadata={"help": f"Where task weights come from: {', '.join(LOSS_WEIGHTINGS)}."}
    )
    loss_weighting_learning_rate: float = field(
        default=0.025, metadata={"help": "Learning rate of task weights that are learned."}
    )
    loss_weighting_temperature: float | None = field(
        default=None, metadata={"help": "Of the loss weightings uw_so (default 10), dwa (2) and stch (0.5)."}
    )
    loss_smoothing: float = field(
        default=0.05,
        metadata={"help": "Share of a step's loss in the running means that loss weightings read; 1 keeps no memory."},
    )
    gradnorm_alpha: float = field(
        default=1.5, metadata={"help": "Of gradnorm: how strongly tasks that learn slowly are favoured."}
    )
    gradient_balancing: str | None = field(
        default=None,
        metadata={"help": f"How the tasks' gradients become one: {', '.join(GRADIENT_BALANCERS)}; by default a sum."},
    )
    gradient_balancing_options: dict[str, Any] | str | None = field(
        default=None, metadata={"help": 'The method\'s own settings, e.g. {"c": 0.2} of cagrad.'}
    )
    balanced_parameters: str = field(
        default="all",
        metadata={"help": f"Which shared parameters gradient balancing looks at: {BALANCED_PARAMETERS}."},
    )
    loss_reduction: str = field(
        default="rows",
        metadata={"help": "rows: a task counts by its rows in the step; tasks: every task counts the same."},
    )
    parts_learning_rate: float | None = field(
        default=None,
        metadata={"help": "Learning rate of everything but the encoder; by default 10 times --learning_rate."},
    )
    length_grouping: bool = field(
        default=True, metadata={"help": "Whether rows of similar length share a batch (less padding)."}
    )
    image_augmentation: list[Any] | str | None = field(
        default=None,
        metadata={
            "help": "What becomes of the images of training rows whenever they are drawn: transforms of "
            'torchvision.transforms.v2 by name, e.g. [{"RandomCrop": {"size": 36, "padding": 4}}].'
        },
    )
    single_task_scores: dict[str, Any] | str | None = field(
        default=None,
        metadata={
            "help": 'Scores of single-task models, e.g. {"rte": 66.4}; with them eval_mtl_relative is reported, the '
            "mean relative improvement in per cent."
        },
    )
    metric_for_best_model: str | None = field(
        default="mtl_average",
        metadata={"help": "mtl_average (mean of the tasks' scores), mtl_worst, mtl_relative, or <task>_<metric>."},
    )

    def __post_init__(self) -> None:
        self.restore()
        self.check_values()
        if self.ddp_find_unused_parameters is None:
            # A step may hold no row of a task; Transformers would say False under activation checkpointing.
            self.ddp_find_unused_parameters = True
        super().__post_init__()
        self.dataloader_pin_memory = self.dataloader_pin_memory and torch.cuda.is_available()
        # Rows are features with routing, which no signature of the model names.
        self.remove_unused_columns = False
        # From here on, when the devices are known, accumulation follows from the rows of a step.
        self._is_set_up = True
        self.check_derived()

    def check_values(self) -> None:
        """Raise `InputError` for a value that no run could use; JSON texts become mappings."""
        self._read_old_names()
        check_choice("mixing_strategy", self.mixing_strategy, MIXING_STRATEGIES)
        check_choice("batch_form", self.batch_form, BATCH_FORMS)
        check_choice("loss_weighting", self.loss_weighting, LOSS_WEIGHTINGS)
        check_choice("loss_reduction", self.loss_reduction, LOSS_REDUCTIONS)
        for name in _POSITIVE:
            if getattr(self, name) is not None and not float(getattr(self, name)) > 0:
                raise InputError(f"{name}={getattr(self, name)!r}; expected a number > 0.")
        self.image_augmentation = read_transforms(self.image_augmentation)
        self.target_scores = json_mapping("target_scores", self.target_scores, 'scores by task such as {"rte": 70}')
        self.single_task_scores = json_mapping(
            "single_task_scores", self.single_task_scores, 'scores by task such as {"rte": 70}'
        )
        self.gradient_balancing_options = json_mapping(
            "gradient_balancing_options", self.gradient_balancing_options, 'settings such as {"c": 0.2}'
        )
        if self.gradient_balancing is not None:
            check_choice("gradient_balancing", self.gradient_balancing, GRADIENT_BALANCERS)
        if self.loss_smoothing > 1:
            raise InputError(f"loss_smoothing={self.loss_smoothing!r}; expected a number in (0, 1].")
        self._check_numbers()
        _check_report_to(self.report_to)
        self._check_followed_metric()

    def _read_old_names(self) -> None:
        for old, new in OLD_NAMES.items():
            given, value = getattr(self, old), getattr(self, new)
            if given is None:
                continue
            if value not in (MultiTaskTrainingArguments.__dataclass_fields__[new].default, given):
                raise InputError(f"{old}={given!r} is the old name of {new}={value!r}; leave {old} out.")
            warnings.warn(
                f"{old} is called {new} now; the old name will not be read in version 0.2.",
                FutureWarning,
                stacklevel=5,
            )
            setattr(self, new, given)
            setattr(self, old, None)

    def adjust(self, **values: Any) -> None:
        """Set values that a run follows from others; `restore` puts back those that were given.

        Args:
            **values: By the names of arguments.
        """
        for name, value in values.items():
            given = vars(self)[name]
            adjusted: Any = AdjustedText(value) if isinstance(value, str) else AdjustedCount(value)
            adjusted.given = given.given if isinstance(given, Adjusted) else given
            vars(self)[name] = adjusted

    def restore(self) -> None:
        """Put back the values that were given before `adjust`; those that were changed since stay."""
        for name, value in list(vars(self).items()):
            if isinstance(value, Adjusted):
                vars(self)[name] = value.given

    def check_derived(self) -> None:
        """Raise `InputError` for a value that was given and contradicts those that it would follow from."""
        self._check_followed_metric()
        for name, derive in DERIVED.items():
            value, derived = vars(self).get(name), derive(self)
            default = self.__dataclass_fields__[name].default
            if name == "parts_learning_rate" or derived is None or value in (default, derived):
                continue
            source = "metric_for_best_model" if name == "greater_is_better" else "global_batch_size"
            raise InputError(
                f"{name}={value!r} contradicts {source}={getattr(self, source)!r}, from which {derived!r} follows; "
                f"leave {name} out ({name}={default!r})."
            )

    def _check_numbers(self) -> None:
        if not math.isfinite(self.mixing_power) or abs(self.mixing_power) > _MOST_POWER:
            raise InputError(f"mixing_power={self.mixing_power!r}; expected a number from 0 to 1.")
        if self.parts_learning_rate is not None and not self.parts_learning_rate >= 0:
            raise InputError(f"parts_learning_rate={self.parts_learning_rate!r}; expected a number >= 0.")
        for name in ("seed", "data_seed"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise InputError(f"{name}={value!r}; expected a whole number >= 0.")

    def _check_followed_metric(self) -> None:
        # Transformers would write "loss" in its place.
        kind = getattr(self.lr_scheduler_type, "value", self.lr_scheduler_type)
        following = {
            f"lr_scheduler_type={kind!r}": kind in ("reduce_lr_on_plateau", "greedy"),
            "load_best_model_at_end=True": self.load_best_model_at_end,
        }
        for what in (name for name, follows in following.items() if follows and self.metric_for_best_model is None):
            raise InputError(
                f"metric_for_best_model=None beside {what}, which follows a metric; leave it out (mtl_average, the "
                "mean of the tasks' scores), or name one, such as mtl_worst or <task>_loss."
            )

    def _accumulation(self) -> int | None:
        if self.global_batch_size is None or not vars(self).get("_is_set_up"):
            return None
        rows = self.global_batch_size
        # A process uses one device, however many it sees.
        per_pass = self.per_device_train_batch_size * self.world_size
        if rows < per_pass or rows % per_pass:
            raise InputError(
                f"global_batch_size={rows} is no multiple of {self.per_device_train_batch_size} rows per device on "
                f"{self.world_size} processes; choose one, or another per_device_train_batch_size."
            )
        return rows // per_pass


def adopt_arguments(args: TrainingArguments | None) -> MultiTaskTrainingArguments:
    """Return the arguments of a run: those that were given, as the object that they are.

    Plain `TrainingArguments` keep their values and have those of a mixture at their defaults beside them: the object
    becomes a `MultiTaskTrainingArguments`. Without any, outputs go to the folder of Transformers' own default. A
    process that sees several GPUs uses one of them.

    Raises:
        InputError: Something else was given.
    """
    if args is None:
        args = MultiTaskTrainingArguments(output_dir=_DEFAULT_FOLDER)
    if isinstance(args, MultiTaskTrainingArguments):
        args.restore()
        _use_one_device(args)
        return args
    if type(args) is not TrainingArguments:
        raise InputError(
            f"args is a {type(args).__name__}; expected TrainingArguments, or MultiTaskTrainingArguments with the "
            "settings of a mixture beside them."
        )
    for item in dataclasses.fields(MultiTaskTrainingArguments):
        if item.name not in vars(args):
            vars(args)[item.name] = item.default
    vars(args)["_is_set_up"] = True
    if args.ddp_find_unused_parameters is None:
        args.ddp_find_unused_parameters = True
    _use_one_device(args)
    args.__class__ = MultiTaskTrainingArguments
    adopted = cast(MultiTaskTrainingArguments, args)
    adopted.check_values()
    adopted.check_derived()
    return adopted


def _use_one_device(args: TrainingArguments) -> None:
    """Say what to type to use all GPUs, over which Transformers would scatter the rows of a batch (`nn.DataParallel`),
    away from their routing to the tasks.
    """
    if args.n_gpu > 1:
        logger.warning(
            f"This process sees {args.n_gpu} GPUs and uses one of them. To use all, start one process for each: "
            f"torchrun --nproc_per_node {args.n_gpu} {sys.argv[0] or 'train.py'}"
        )
        args._n_gpu = 1


def _check_report_to(given: Any) -> None:
    """Raise `InputError` for what Transformers would meet when the trainer is built."""
    if given in ("all", "none", ["all"], ["none"]):
        return
    for name in given if isinstance(given, (list, tuple)) else [given]:
        if name not in INTEGRATION_TO_CALLBACK:
            raise InputError(
                f"report_to={given!r}; expected none (`report_to: none` reports to nobody), all, or of "
                f"{', '.join(INTEGRATION_TO_CALLBACK)}.{nearest(str(name), INTEGRATION_TO_CALLBACK)}"
            )


for _name, _derive in DERIVED.items():
    _default = MultiTaskTrainingArguments.__dataclass_fields__[_name].default
    setattr(MultiTaskTrainingArguments, _name, following(_name, _derive, _default))
