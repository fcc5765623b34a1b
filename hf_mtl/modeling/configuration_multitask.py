"""What a checkpoint knows about itself: the encoder's configuration, the parts by name and the ordered tasks."""

import copy
import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from .encoder_code import MODEL_TYPE, EncoderConfigOfCode, names_code
from .errors import InputError, check_choice, check_types, nearest
from .multitask_output import NOT_PREDICTIONS
from .problem_types import PROBLEM_TYPES, ProblemType, problem_type_with

LONGEST_NAME = 100

# What Transformers calls labels of which it knows the number alone.
MADE_UP_LABEL = re.compile(r"LABEL_\d+")

# "mtl" names the mean over tasks (eval_mtl_average) and "loss" the total (eval_loss).
RESERVED_TASK_NAMES = ("mtl", "loss")

# Of messages that say what to write.
EXAMPLE_TASK = {"name": "mood", "problem_type": problem_type_with("class"), "labels": ["bad", "good"]}

# What settings of a task that are sizes must be at least.
LEAST_OF_TASK = {"max_length": 1, "stride": 0, "max_answer_length": 1, "num_best": 1}


def task_slug(name: str) -> str:
    """Return what stands for a task's name in the names of parameters: lower case, other characters as ``_``."""
    return re.sub(r"\W+", "_", name.casefold())


def _check_problem_type(name: str, problem_type: Any) -> None:
    try:
        check_choice(f"problem type of task {name!r}:", problem_type, PROBLEM_TYPES)
    except InputError as error:
        raise InputError(
            f"{error} One that another package adds is known once that package is imported; on the command line, "
            "--import PACKAGE."
        ) from None


@dataclass(kw_only=True)
class TaskConfig:
    """One task as a checkpoint stores it.

    Args:
        name: The task's name, as in ``"SST-2"``; keys logits, answers and metrics. Parameters have its `task_slug`.
        problem_type: A name of `PROBLEM_TYPES`.
        labels: Class, flag or tag names in id order; None for regression, question answering and multiple choice.
        fields: Input fields read from a row; by default those the problem type needs.
        max_length: Longest input in word pieces, special ones included; longer ones are cut (question answering:
            split into windows). By default 128, of question answering 384.
        stride: Word pieces two neighbouring windows of a context share (question answering).
        reads: Names of the tasks this one may attend to; None for all that are trained together.
        threshold: Probability from which a flag is set (multi-label).
        class_weights: Weight of each label's loss (multi-label: of its positive rows), in label order.
        label_mean: Regression labels are trained as (label - label_mean) / label_scale and decoded back.
        label_scale: See `label_mean`.
        max_answer_length: Longest answer in word pieces (question answering).
        num_best: How many answers `predict` lists (question answering).
        null_answer: Whether "no answer" is an answer (question answering); None for whether training rows have none.
    """

    name: str
    problem_type: str
    labels: list[str] | None = None
    fields: list[str] | None = None
    # Until `__post_init__`, which knows the problem type.
    max_length: int = cast(int, None)
    stride: int = 64
    reads: list[str] | None = None
    threshold: float = 0.5
    class_weights: list[float] | None = None
    label_mean: float = 0.0
    label_scale: float = 1.0
    max_answer_length: int = 30
    num_best: int = 3
    null_answer: bool | None = None

    def __new__(cls, *args: Any, **values: Any) -> "TaskConfig":
        """Remember which values were given: a default that was meant differs from one that was left."""
        task = super().__new__(cls)
        object.__setattr__(task, "_given", frozenset(values))
        return task

    def __post_init__(self) -> None:
        if "max_length" not in vars(self)["_given"]:
            known = PROBLEM_TYPES.get(str(self.problem_type))
            self.max_length = known.max_length if known else ProblemType.max_length

    @property
    def given(self) -> dict[str, Any]:
        """The values that were given when the task was made, by key; defaults that were left are not among them."""
        named = vars(self)["_given"]
        return {item.name: getattr(self, item.name) for item in dataclasses.fields(self) if item.name in named}

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> "TaskConfig":
        """Build a task from a mapping; an unknown key raises `InputError` naming the nearest known one."""
        known = [field.name for field in dataclasses.fields(cls)]
        for key in row:
            if key not in known:
                raise InputError(
                    f"Unknown key {key!r} in task {row.get('name', '?')!r}.{nearest(key, known)} "
                    f"Known keys: {', '.join(known)}."
                )
        for key in ("name", "problem_type"):
            if key not in row:
                raise InputError(f"A task needs {key!r}; found {dict(row)!r}.")
        return cls(**row)

    def to_dict(self) -> dict[str, Any]:
        """Return the task as JSON-ready values."""
        return dataclasses.asdict(self)

    @property
    def problem(self) -> ProblemType:
        """The row of its problem type: what is true of all tasks of it."""
        return PROBLEM_TYPES[self.problem_type]

    @property
    def input_fields(self) -> tuple[str, ...]:
        """The fields a row must have for this task."""
        return tuple(self.fields) if self.fields else self.problem.fields

    @property
    def label_names(self) -> list[str]:
        """The names of the labels in id order; none where the problem type has none."""
        return self.labels or []

    @property
    def num_outputs(self) -> int:
        """Scores per row (or per token, or per choice): classes, flags, tags; 2 for span ends; else 1."""
        return len(self.label_names) if self.problem.num_outputs is None else self.problem.num_outputs

    def check_name_and_type(self) -> None:
        """Raise `InputError` for an invalid name, problem type, field, or value of the wrong type."""
        name: Any = self.name
        is_name = isinstance(name, str) and name == name.strip() and name.isprintable() and len(name) <= LONGEST_NAME
        if not is_name or not task_slug(name).strip("_"):
            raise InputError(
                f"Invalid task name {name!r}; expected a text of at most {LONGEST_NAME} characters on one line, with "
                "a letter or digit and no space around it, e.g. 'SST-2'."
            )
        if task_slug(name) in RESERVED_TASK_NAMES:
            raise InputError(f"The task name {self.name!r} is reserved; choose another one.")
        _check_problem_type(self.name, self.problem_type)
        check_types(f" of task {self.name!r}", self, [item.name for item in dataclasses.fields(self)])
        for name, least in LEAST_OF_TASK.items():
            if getattr(self, name) < least:
                raise InputError(
                    f"{name}={getattr(self, name)!r} of task {self.name!r}; expected a whole number >= {least}."
                )
        for field in self.fields or ():
            check_choice(
                f"input field of task {self.name!r}:", field, self.problem.fields + self.problem.optional_fields
            )

    def check(self) -> None:
        """Raise `InputError` unless a head can be built for this task."""
        self.check_name_and_type()
        if self.problem.has_label_names:
            if not self.labels:
                raise InputError(f"Task {self.name!r} ({self.problem_type}) needs its `labels`, e.g. ['no', 'yes'].")
            if len(set(self.labels)) != len(self.labels):
                raise InputError(f"Task {self.name!r} has a label twice: {self.labels!r}.")
        if self.class_weights is not None:
            if not self.problem.has_label_names:
                raise InputError(f"`class_weights` make no sense for task {self.name!r} ({self.problem_type}).")
            if len(self.class_weights) != self.num_outputs or min(self.class_weights) < 0:
                raise InputError(
                    f"Task {self.name!r} has {self.num_outputs} labels; found class_weights={self.class_weights!r}; "
                    "expected one number >= 0 for each label."
                )
        if self.label_scale <= 0:
            raise InputError(f"Task {self.name!r} has label_scale={self.label_scale!r}; expected a number > 0.")


def check_tasks(tasks: list[TaskConfig]) -> None:
    """Raise `InputError` unless the tasks fit together: at least one, unique names, `reads` that exist."""
    if not tasks:
        raise InputError("A multitask model needs at least one task; found none.")
    names = [task.name for task in tasks]
    by_slug: dict[str, str] = {}
    for task in tasks:
        task.check()
        if names.count(task.name) > 1:
            raise InputError(f"The task name {task.name!r} stands twice; names must be unique.")
        other = by_slug.setdefault(task_slug(task.name), task.name)
        if other != task.name:
            raise InputError(
                f"The task names {other!r} and {task.name!r} are the same in lower case with '_' for other "
                "characters, which is how parameters are named; choose another one."
            )
        for other in task.reads or ():
            check_choice(f"task in `reads` of task {task.name!r}:", other, names)


def _task_values(task: Any) -> Any:
    """A task's values, of which a model keeps those of a `TaskConfig`; what is no task is refused with the others."""
    if not isinstance(task, TaskConfig):
        return task
    return {name: copy.copy(getattr(task, name)) for name in TaskConfig.__dataclass_fields__}


def _only_labels(tasks: Any) -> list[str] | None:
    """The labels of the only task there is."""
    if not isinstance(tasks, list) or len(tasks) != 1 or not isinstance(tasks[0], Mapping):
        return None
    labels = tasks[0].get("labels")
    return labels if isinstance(labels, list) and all(isinstance(name, str) for name in labels) else None


def check_label_names(
    labels: list[str] | None, id2label: Any, label2id: Any = None, num_labels: int | None = None
) -> None:
    """Raise `InputError` for names or a number of labels that are not those of the only task.

    Args:
        labels: Of the only task; None where there are several.
        id2label: What was given, as the two that follow; names that Transformers makes up say nothing.
        label2id: See `id2label`.
        num_labels: See `id2label`.
    """
    by_name = {index: name for name, index in (label2id or {}).items()}
    for key, names in (("id2label", id2label or {}), ("label2id", by_name)):
        given = [names[index] for index in sorted(names, key=int)]
        if given != (labels or []) and not all(MADE_UP_LABEL.fullmatch(str(name)) for name in given):
            raise InputError(f"{key} has the labels {given!r}, and {_labels_said(labels)}. Leave {key} out.")
    if num_labels is not None and num_labels != len(labels or []):
        raise InputError(f"num_labels={num_labels!r}, and {_labels_said(labels)}. Leave num_labels out.")


def _labels_said(labels: list[str] | None) -> str:
    return "each task has its own `labels`" if labels is None else f"the task has `labels`: {labels!r}"


class MultiTaskAttentionConfig(PreTrainedConfig):
    """Configuration of a `MultiTaskAttentionModel`.

    Args:
        encoder_config: Configuration of the wrapped encoder (any model type).
        tasks: Ordered list of tasks, each a `TaskConfig` or its values, as which it is kept; a list, since JSON
            dictionaries are written sorted and the order is what task indices mean.
        task_conditioning: What the encoder is told of the task: a name of `TASK_CONDITIONINGS`.
        conditioning_size: Width of what a task's embedding is projected to, of `modulation`.
        pooling: How token states become one state a task: a name of `TASK_POOLINGS`.
        pooling_scorer: How `task_queries` scores tokens: a name of `ATTENTION_SCORERS`.
        pooling_floor: Share of its attention that each task spreads evenly over all tokens.
        pooling_dropout: Dropout on the pooling's attention weights.
        pooling_entropy: Weight of the entropy of a task's attention to tokens, which the loss rewards.
        lexical_rank: Rank of a weight for each word piece and task; 0 for none.
        task_layers: Of `task_layer` pooling, the layer that a task reads by its name, from 1; the last by default.
        task_interaction: How task states read each other: a name of `TASK_INTERACTIONS`.
        attention_scorer: How attention scores tasks: a name of `ATTENTION_SCORERS`.
        interaction_heads: Attention heads of the interaction (of a `multi_head` scorer).
        interaction_size: Width to which attention of tasks projects what it reads; None for the hidden size.
        interaction_dropout: Dropout on the interaction's attention weights.
        self_attention_prior: Share of its attention a task gives to itself when all scores are equal.
        signed_attention: Whether cross-task attention may have negative weights.
        task_affinities: Whether attention of tasks has a learned number for each pair of them.
        task_dropout: Probability with which, in training, attention of tasks does not see another task.
        attention_top_k: How many tasks attention of tasks reads at most, those of the highest scores; 0 for all.
        relation_penalty: Weight of the squared scores of cross-task attention in the loss.
        adversarial_weight: Weight of the discriminator's loss, of `shared_private`.
        orthogonality_weight: Weight of the overlap of shared and private states, of `shared_private`.
        interaction_layers: How many interactions of the kind follow one another.
        inducing_points: Of `induced_attention`.
        shared_experts: Experts that tasks share, of `omoe`, `mmoe`, `cgc`, `ple`.
        task_experts: Experts of each task's own, of `cgc` and `ple`.
        expert_layers: Layers of `ple`.
        expert_size: Inner size of an expert or branch; by default a quarter of the hidden size.
        mran_relations: Which modules `mran` has, of task_task, feature_feature and task_feature.
        feature_groups: Into how many features `mran` cuts a state.
        gate: What lets a mixed state pass: a name of `TASK_GATES`.
        gate_size: Inner size of the gate.
        gate_bias: The gate's bias at the start; sigmoid(-2) is 0.12.
        head: What a head reads beyond its task's state: a name of `HEAD_READINGS`.
        head_dropout: Dropout on what a head reads.
        aggregation: How answers of tasks that share a label space become one: a name of `TASK_AGGREGATIONS`.
        aggregation_of: What is merged, "logits" or "probabilities".
        aggregation_weights: Weights of the tasks in it by name; 1 where it is silent.
    """

    model_type = MODEL_TYPE
    keys_to_ignore_at_inference = NOT_PREDICTIONS
    sub_configs_defaults = {"encoder_config": SubConfigSpec(config_class=AutoConfig, model_type="bert")}

    encoder_config: PreTrainedConfig | dict | None = None
    tasks: list[dict] | None = None
    task_conditioning: str = "none"
    conditioning_size: int = 64
    pooling: str = "task_queries"
    pooling_scorer: str = "general"
    pooling_floor: float | int = 0.0
    pooling_dropout: float | int = 0.0
    pooling_entropy: float | int = 0.0
    lexical_rank: int = 0
    task_layers: dict[str, int] | None = None
    task_interaction: str = "cross_task_attention"
    attention_scorer: str = "multi_head"
    interaction_heads: int = 4
    interaction_size: int | None = None
    interaction_dropout: float | int = 0.0
    self_attention_prior: float | int = 0.9
    signed_attention: bool = False
    task_affinities: bool = False
    task_dropout: float | int = 0.0
    attention_top_k: int = 0
    relation_penalty: float | int = 0.0
    adversarial_weight: float | int = 0.05
    orthogonality_weight: float | int = 0.01
    interaction_layers: int = 1
    inducing_points: int = 16
    shared_experts: int = 4
    task_experts: int = 1
    expert_layers: int = 2
    expert_size: int | None = None
    mran_relations: list[str] | tuple[str, ...] = ("task_task", "feature_feature", "task_feature")
    feature_groups: int = 8
    gate: str = "information_gate"
    gate_size: int = 128
    gate_bias: float | int = -2.0
    head: str = "linear"
    head_dropout: float | int = 0.1
    aggregation: str = "none"
    aggregation_of: str = "logits"
    aggregation_weights: dict[str, float] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        if names_code(self.encoder_config):
            # Its class is known once the code is run, which a configuration does not do.
            self.encoder_config = EncoderConfigOfCode(cast(dict, self.encoder_config))
        elif isinstance(self.encoder_config, PreTrainedConfig):
            # Transformers would reset what a loaded encoder computes with.
            kwargs.setdefault("attn_implementation", self.encoder_config._attn_implementation)
            kwargs.setdefault("experts_implementation", self.encoder_config._experts_implementation)
        if isinstance(self.tasks, (list, tuple)):
            self.tasks = [_task_values(task) for task in self.tasks]
        if (labels := _only_labels(self.tasks)) is not None:
            check_label_names(labels, self.id2label, self.label2id, kwargs.get("num_labels"))
            # Names by which Transformers speaks of the labels of a model of one task.
            self.id2label = dict(enumerate(labels))
            self.label2id = {name: index for index, name in enumerate(labels)}
        if kwargs.get("output_attentions") and kwargs.get("attn_implementation") is None:
            # The others return none.
            kwargs["attn_implementation"] = "eager"
        super().__post_init__(**kwargs)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Build a configuration from its values.

        Raises:
            InputError: They are those of an encoder.
        """
        model_type = config_dict.get("model_type", cls.model_type)
        if model_type != cls.model_type:
            raise InputError(
                f"A configuration of model_type {model_type!r} is not a multitask model's. "
                "AutoConfig.from_pretrained(name) reads it; MultiTaskAttentionModel.from_encoder(name, tasks=[...]) "
                "wraps its model."
            )
        return super().from_dict(config_dict, **kwargs)

    @property
    def task_configs(self) -> list[TaskConfig]:
        """The tasks as `TaskConfig` objects, in order."""
        return [TaskConfig.from_dict(task) for task in self.tasks or ()]

    @property
    def task_names(self) -> list[str]:
        """The tasks' names, in order."""
        return [task["name"] for task in self.tasks or ()]

    @property
    def hidden_size(self) -> int:
        """Width of the encoder's token states."""
        return self.encoder_config.get_text_config().hidden_size

    @property
    def num_hidden_layers(self) -> int:
        """Layers of the encoder."""
        return self.encoder_config.get_text_config().num_hidden_layers

    @property
    def num_attention_heads(self) -> int:
        """Attention heads of the encoder."""
        return self.encoder_config.get_text_config().num_attention_heads

    @property
    def vocab_size(self) -> int:
        """Vocabulary of the encoder."""
        return self.encoder_config.get_text_config().vocab_size

    @vocab_size.setter
    def vocab_size(self, value: int) -> None:
        self.encoder_config.get_text_config().vocab_size = value


__all__ = ["MultiTaskAttentionConfig"]
