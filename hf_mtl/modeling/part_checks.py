"""Whether a model can be built from a configuration, said before anything is loaded."""

from collections.abc import Collection

from .aggregation import MERGED, TASK_AGGREGATIONS
from .attention_scorers import ATTENTION_SCORERS
from .configuration_multitask import MultiTaskAttentionConfig, check_label_names
from .encoder_conditioning import TASK_CONDITIONINGS
from .errors import InputError, check_choice, check_types
from .gate import TASK_GATES
from .head import HEAD_READINGS
from .interaction import TASK_INTERACTIONS
from .interaction_mran import RELATIONS
from .pooling import TASK_POOLINGS
from .setting_names import SETTINGS
from .task_config import check_tasks

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


# Settings that are names, and of what.
CHOICES: dict[str, Collection[str]] = {
    "conditioning": TASK_CONDITIONINGS,
    "pooling": TASK_POOLINGS,
    "pooling_scorer": ATTENTION_SCORERS,
    "task_interaction": TASK_INTERACTIONS,
    "attention_scorer": ATTENTION_SCORERS,
    "gate": TASK_GATES,
    "head": HEAD_READINGS,
    "aggregation": TASK_AGGREGATIONS,
    "aggregation_of": MERGED,
}


def check_config(config: MultiTaskAttentionConfig) -> None:
    """Raise `InputError` unless a model can be built from `config`."""
    check_types("", config, SETTINGS)
    if config.output_attentions and config._attn_implementation not in (None, "eager"):
        raise InputError(
            f"output_attentions=True, and attn_implementation={config._attn_implementation!r} returns none; load the "
            "encoder with attn_implementation='eager', or call encoder.set_attn_implementation('eager')."
        )
    check_tasks(config.task_configs)
    if len(config.task_configs) > 1:
        # Any configuration has these, with two labels where nobody says how many.
        check_label_names(None, config.id2label, num_labels=None if config.num_labels == 2 else config.num_labels)
    for name, choices in CHOICES.items():
        check_choice(name, getattr(config, name), choices)
    for relation in config.mran_relations:
        check_choice("relation in mran_relations", relation, RELATIONS)
    for name, least in LEAST_SIZES.items():
        if getattr(config, name) is not None and getattr(config, name) < least:
            raise InputError(f"{name}={getattr(config, name)!r}; expected a whole number >= {least}.")
    for name in ("interaction_dropout", "head_dropout"):
        if not 0 <= getattr(config, name) <= 1:
            raise InputError(f"{name}={getattr(config, name)!r}; expected a number from 0 to 1.")
    for name in ("relation_penalty", "adversarial_weight", "orthogonality_weight"):
        if getattr(config, name) < 0:
            raise InputError(f"{name}={getattr(config, name)!r}; expected a number >= 0.")
