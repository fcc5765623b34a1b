"""Whether a model can be built from a configuration, said before anything is loaded."""

from .attention_scorers import ATTENTION_SCORERS
from .configuration_multitask import MultiTaskAttentionConfig, check_choice, check_tasks, check_types
from .errors import InputError
from .head_reading import HEAD_READINGS
from .task_aggregation import MERGED, TASK_AGGREGATIONS
from .task_attention import TASK_POOLINGS
from .task_conditioning import TASK_CONDITIONINGS
from .task_gate import TASK_GATES
from .task_interaction import TASK_INTERACTIONS

# Settings that a file or a command line may give a value of the wrong type.
SETTINGS = [name for name in MultiTaskAttentionConfig.__annotations__ if name != "encoder_config"]
# What settings that are sizes must be at least.
LEAST_SIZES = {
    "interaction_heads": 1,
    "interaction_layers": 1,
    "inducing_points": 1,
    "feature_groups": 1,
    "gate_size": 1,
    "expert_size": 2,
    "lexical_rank": 0,
    "interaction_size": 1,
    "attention_top_k": 0,
    "conditioning_size": 1,
}


def check_config(config: MultiTaskAttentionConfig) -> None:
    """Raise `InputError` unless a model can be built from `config`."""
    check_types("", config, SETTINGS)
    check_tasks(config.task_configs)
    check_choice("task_conditioning", config.task_conditioning, TASK_CONDITIONINGS)
    check_choice("aggregation", config.aggregation, TASK_AGGREGATIONS)
    check_choice("aggregation_of", config.aggregation_of, MERGED)
    check_choice("pooling", config.pooling, TASK_POOLINGS)
    check_choice("task_interaction", config.task_interaction, TASK_INTERACTIONS)
    check_choice("gate", config.gate, TASK_GATES)
    check_choice("attention_scorer", config.attention_scorer, ATTENTION_SCORERS)
    check_choice("head", config.head, HEAD_READINGS)
    check_choice("pooling_scorer", config.pooling_scorer, ATTENTION_SCORERS)
    for name, least in LEAST_SIZES.items():
        if getattr(config, name) is not None and getattr(config, name) < least:
            raise InputError(f"{name}={getattr(config, name)!r}; expected a whole number >= {least}.")
    for name in ("interaction_dropout", "head_dropout"):
        if not 0 <= getattr(config, name) <= 1:
            raise InputError(f"{name}={getattr(config, name)!r}; expected a number from 0 to 1.")
    for name in ("relation_penalty", "adversarial_weight", "orthogonality_weight"):
        if getattr(config, name) < 0:
            raise InputError(f"{name}={getattr(config, name)!r}; expected a number >= 0.")
