"""A checkpoint's knowledge of itself: the encoder's configuration, the parts by name and the ordered tasks."""

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from .encoder_code import MODEL_TYPE, EncoderConfigOfCode, names_code
from .errors import InputError

# Read, so that Transformers knows the type of such encoders.
from .table_config import TableConfig as TableConfig
from .task_config import TaskConfig

# Fields of the model's output that a stock Trainer is not to take for predictions: all but the loss and the logits.
_NOT_PREDICTIONS = [
    "hidden_states",
    "attentions",
    "task_losses",
    "task_loss_sums",
    "task_label_counts",
    "task_row_counts",
    "task_penalty_sums",
    "part_measurements",
    "task_states",
    "pooling_weights",
    "interaction_weights",
    "gates",
    "entry_logits",
]
# What Transformers calls labels of which it knows the number alone.
# The pipeline of a checkpoint, and the task that Transformers calls it by.
_PIPELINE_TASK = "multi-task"
_PIPELINE = {"impl": "pipeline_multitask.MultiTaskPipeline", "pt": ["AutoModel"], "type": "text"}

_MADE_UP_LABEL = re.compile(r"LABEL_\d+")
# Settings by their names in earlier versions.
OLD_SETTINGS = {"task_conditioning": "conditioning"}
# How `task_tokens` entered before these were settings: at the place of a text's first token, with a given scale.
_FIRST_TASK_TOKENS = {"task_token_position": 0, "task_token_scale": 0.02}


def current_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings by the names of now; one that has its old name is read with a warning.

    Raises:
        InputError: Both names are given, with two values.
    """
    current = {OLD_SETTINGS.get(name, name): value for name, value in settings.items()}
    for old, new in OLD_SETTINGS.items():
        if old in settings:
            if settings.get(new, settings[old]) != settings[old]:
                raise InputError(
                    f"{old}={settings[old]!r} is the old name of {new}={settings[new]!r}; leave {old} out."
                )
            message = f"{old} is called {new} now; the old name will not be read in version 0.2."
            warnings.warn(message, FutureWarning, stacklevel=3)
    return current


def _as_computed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a saved model's settings with those that came later, as the model computed without them."""
    is_saved_model = settings.get("architectures") and settings.get("conditioning") == "task_tokens"
    return {**_FIRST_TASK_TOKENS, **settings} if is_saved_model else dict(settings)


def _task_values(task: Any) -> Any:
    """A task's values, of which a model keeps those of a `TaskConfig`; what is no task is refused with the others."""
    return task.with_settings().to_config().to_dict() if isinstance(task, TaskConfig) else task


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
        if given != (labels or []) and not all(_MADE_UP_LABEL.fullmatch(str(name)) for name in given):
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
        tower: Of a model of several encoders the one that is wrapped, by its name in it, such as `vision_model`; the
            `encoder_config` is then that of the whole model.
        encoder_width: Width of the token states, where the encoder's configuration does not say it; measured.
        encoder_axis: Axis of the width in what the encoder returns, from the end; measured.
        encoder_layers: Layers of the `tower`; read of it.
        modalities: What is read beside texts: a list of ``{"name": "image", "processor": {...}}``; of several encoders
            the first is that of `encoder_config`, each of the others has its ``config``, ``tower``, ``width`` and
            ``axis`` beside. Made by `from_encoder`, which takes encoders by modality.
        conditioning: What the encoder is told of the task: a name of `TASK_CONDITIONINGS`.
        conditioning_size: Width of what a task's embedding is projected to, of `modulation`, `hyper_adapters` and
            `conditional_attention`; of `projected_attention_layers` that of the attention beside a layer.
        conditioning_heads: Heads of the attention beside a layer, of `projected_attention_layers`.
        adapter_size: Inner size of an adapter, of `hyper_adapters`.
        attention_blocks: Blocks of `conditional_attention`; behind the last one the first comes again.
        attention_block_size: Tokens of a block of `conditional_attention`.
        task_token_position: The one of a text's positions, from 0, at which `task_tokens` stand; None for the first
            from 1 on whose embedding is of ordinary norm, which becomes the setting.
        task_token_scale: Scale of the entries of `task_tokens`; None for that of the encoder's word embeddings, which
            becomes the setting.
        pooling: How token states become one state per task: a name of `TASK_POOLINGS`.
        pooling_scorer: How `task_queries` and `dynamic_queries` score tokens: a name of `ATTENTION_SCORERS`.
        pooling_floor: Share of its attention that each task spreads evenly over all tokens.
        pooling_dropout: Dropout on the pooling's attention weights.
        pooling_entropy: Weight of the entropy of a task's attention to tokens, which the loss rewards.
        lexical_rank: Rank of a weight for each word piece and task; 0 for none.
        task_layers: Of `task_layer` pooling, the layer that a task reads by its name, from 1; the last by default.
        task_interaction: How task states read each other: a name of `TASK_INTERACTIONS`.
        branch: The tasks' own networks of `attention_over_heads`: a name of `TASK_BRANCHES`.
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
        parameter_penalty: Weight of the squares of MRAN's matrices in the loss.
        relation_norm: Norm behind each relation of MRAN: `layer`, or the paper's `batch`.
        relation_mixing: Whether vectors of MRAN `read` each other, or each is multiplied (`rescale`), as the paper
            writes it of scorers of one head.
        trace_norm: Weight of the trace norm of the tasks' heads, side by side; each task's part joins its loss.
        adversarial_weight: Weight of the discriminator's loss, of `shared_private` and `private_encoders`.
        orthogonality_weight: Weight of the overlap of shared and private states, likewise.
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
        task_parents: By task the task, or the tasks, whose answers to a row are an input of its state.
        detach_parents: Whether a child's loss does not reach its parents through their answers.
        aggregation: How answers of tasks that share a label space become one: a name of `TASK_AGGREGATIONS`.
        aggregation_of: What is merged, "logits" or "probabilities".
        aggregation_weights: Weights of the tasks in it by name; 1 where it is silent.
    """

    model_type = MODEL_TYPE
    keys_to_ignore_at_inference = _NOT_PREDICTIONS
    sub_configs_defaults = {"encoder_config": SubConfigSpec(config_class=AutoConfig, model_type="bert")}

    encoder_config: PreTrainedConfig | dict | None = None
    tasks: list[dict] | None = None
    tower: str | None = None
    encoder_width: int | None = None
    encoder_axis: int = -1
    encoder_layers: int | None = None
    modalities: list[dict] | None = None
    conditioning: str = "none"
    conditioning_size: int = 64
    task_token_position: int | None = None
    task_token_scale: float | int | None = None
    conditioning_heads: int = 4
    adapter_size: int = 24
    attention_blocks: int = 8
    attention_block_size: int = 16
    pooling: str = "task_queries"
    pooling_scorer: str = "general"
    pooling_floor: float | int = 0.0
    pooling_dropout: float | int = 0.0
    pooling_entropy: float | int = 0.0
    lexical_rank: int = 0
    task_layers: dict[str, int] | None = None
    task_interaction: str = "cross_task_attention"
    branch: str = "layer"
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
    parameter_penalty: float | int = 0.0
    relation_norm: str = "layer"
    relation_mixing: str = "read"
    trace_norm: float | int = 0.0
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
    task_parents: dict[str, str | list[str]] | None = None
    detach_parents: bool = True
    aggregation: str = "none"
    aggregation_of: str = "logits"
    aggregation_weights: dict[str, float] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        old = {key: kwargs.pop(key) for key in OLD_SETTINGS if key in kwargs}
        # A value that is the default may not have been given.
        beside = {OLD_SETTINGS[key]: getattr(self, OLD_SETTINGS[key]) for key in old}
        given = {name: value for name, value in beside.items() if value != getattr(type(self), name)}
        for name, value in current_settings({**given, **old}).items():
            setattr(self, name, value)
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
        # A checkpoint of an earlier version; its names are nobody's to change.
        current = {OLD_SETTINGS.get(name, name): value for name, value in config_dict.items()}
        return super().from_dict(_as_computed(current), **current_settings(kwargs))

    @property
    def custom_pipelines(self) -> dict[str, Any]:
        """The pipeline beside a checkpoint's code, which ``pipeline(model=..., trust_remote_code=True)`` finds."""
        # Where the package is imported, Transformers has its pipeline, and under that name would ask for trust in the
        # checkpoint's code.
        is_package = not __name__.startswith("transformers_modules.")
        return {f"{_PIPELINE_TASK} of the checkpoint" if is_package else _PIPELINE_TASK: dict(_PIPELINE)}

    @custom_pipelines.setter
    def custom_pipelines(self, value: Any) -> None:
        """Leave it as it is: what a file says was written by this class."""

    def to_dict(self) -> dict[str, Any]:
        """Return the values, those of its pipeline among them; of an encoder's folder on this machine, nothing."""
        values = {**super().to_dict(), "custom_pipelines": {_PIPELINE_TASK: dict(_PIPELINE)}}
        encoder = values.get("encoder_config")
        if isinstance(encoder, dict):
            is_folder = Path(str(encoder.get("_name_or_path", ""))).is_absolute()
            # The model's own says which of its weights are quantized.
            left_out = {"_name_or_path": is_folder, "quantization_config": "quantization_config" in values}
            values["encoder_config"] = {key: value for key, value in encoder.items() if not left_out.get(key)}
        return values

    @property
    def task_configs(self) -> list[TaskConfig]:
        """The tasks as `TaskConfig` objects, in order, with their settings' defaults in place of what is not given."""
        return [TaskConfig.from_dict(task).with_settings() for task in self.tasks or ()]

    @property
    def task_names(self) -> list[str]:
        """The tasks' names, in order."""
        return [task["name"] for task in self.tasks or ()]

    @property
    def hidden_size(self) -> int:
        """Width of the encoder's token states."""
        if self.encoder_width is None and self.tower is not None:
            raise InputError(
                f"The width of tower={self.tower!r} is not known before its weights are; say encoder_width."
            )
        return self.encoder_width or self.encoder_config.get_text_config().hidden_size

    @property
    def num_hidden_layers(self) -> int:
        """Layers of the encoder."""
        return self.encoder_layers or self.encoder_config.get_text_config().num_hidden_layers

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
