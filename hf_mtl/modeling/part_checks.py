"""Whether a model can be built from a configuration, said before anything is loaded."""

from collections.abc import Collection, Iterable

from .aggregation import MERGED, TASK_AGGREGATIONS
from .attention_scorers import ATTENTION_SCORERS
from .configuration_multitask import EXAMPLE_TASK, MultiTaskAttentionConfig, check_label_names, check_tasks
from .encoder_code import HUB_ARGUMENTS
from .encoder_conditioning import TASK_CONDITIONINGS
from .errors import InputError, check_choice, check_types
from .gate import TASK_GATES
from .head import HEAD_READINGS
from .interaction import TASK_INTERACTIONS
from .interaction_mran import RELATIONS
from .pooling import TASK_POOLINGS

# Settings that a file or a command line may give a value of the wrong type.
SETTINGS = [name for name in MultiTaskAttentionConfig.__annotations__ if name != "encoder_config"]
# What `from_encoder` passes on to the encoder's `from_pretrained`.
ENCODER_ARGUMENTS = (
    "attn_implementation",
    "config",
    "device_map",
    "disable_mmap",
    "dtype",
    "experts_implementation",
    "ignore_mismatched_sizes",
    "key_mapping",
    "low_cpu_mem_usage",
    "quantization_config",
    "torch_dtype",
    "tqdm_class",
    "use_safetensors",
    "variant",
    "weights_only",
    *HUB_ARGUMENTS,
)
SEVERAL_DEVICES = (
    "Save the model (model.save_pretrained(folder)) and write MultiTaskAttentionModel.from_pretrained(folder, "
    "device_map=...), which places all of its parts."
)
_LOAD_YOURSELF = (
    "Load the encoder with it and give it loaded: encoder = AutoModel.from_pretrained(name, {name}=...), then "
    "MultiTaskAttentionModel.from_encoder(encoder, tasks=[...])."
)
_DIVIDED = f"It would divide an encoder alone among devices. {SEVERAL_DEVICES}"
_NO_EFFECT = "Transformers takes it without any effect; leave it out."
_OTHER_FORMAT = "Transformers 5 reads weights of PyTorch alone; leave it out, and convert other ones before."
# What `from_pretrained` of Transformers takes and `from_encoder` does not, with the way to go.
REFUSED_ARGUMENTS = {
    "adapter_kwargs": _LOAD_YOURSELF,
    "adapter_name": _LOAD_YOURSELF,
    "allow_all_kernels": _LOAD_YOURSELF,
    "device_mesh": _DIVIDED,
    "distributed_config": _DIVIDED,
    "from_flax": _OTHER_FORMAT,
    "from_tf": _OTHER_FORMAT,
    "fusion_config": _LOAD_YOURSELF,
    "generation_config": "No task generates text; leave it out.",
    "gguf_file": _LOAD_YOURSELF,
    "kernel_config": _LOAD_YOURSELF,
    "load_in_4bit": "Write quantization_config=BitsAndBytesConfig(load_in_4bit=True).",
    "load_in_8bit": "Write quantization_config=BitsAndBytesConfig(load_in_8bit=True).",
    "max_memory": _DIVIDED,
    "mirror": _NO_EFFECT,
    "offload_buffers": _DIVIDED,
    "offload_folder": _DIVIDED,
    "offload_state_dict": _NO_EFFECT,
    "output_loading_info": "An encoder whose weights are incomplete is refused, so there is nothing to report. To "
    "have the report, load the encoder with it and give it loaded: encoder, info = AutoModel.from_pretrained(name, "
    "output_loading_info=True), then MultiTaskAttentionModel.from_encoder(encoder, tasks=[...]).",
    "proxies": "They are read from the environment, where HTTPS_PROXY names one.",
    "resume_download": _NO_EFFECT,
    "state_dict": "Load the encoder from it and give it loaded: encoder = AutoModel.from_config(config), "
    "encoder.load_state_dict(state_dict), then MultiTaskAttentionModel.from_encoder(encoder, tasks=[...]).",
    "tp_plan": _DIVIDED,
    "tp_size": _DIVIDED,
    "use_auth_token": "Write token=...",
    "use_kernels": _LOAD_YOURSELF,
}
TASK_VALUES = ("num_labels", "id2label", "label2id", "problem_type", "labels")
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
    "task_conditioning": TASK_CONDITIONINGS,
    "pooling": TASK_POOLINGS,
    "pooling_scorer": ATTENTION_SCORERS,
    "task_interaction": TASK_INTERACTIONS,
    "attention_scorer": ATTENTION_SCORERS,
    "gate": TASK_GATES,
    "head": HEAD_READINGS,
    "aggregation": TASK_AGGREGATIONS,
    "aggregation_of": MERGED,
}


def check_setting_names(names: Iterable[str], others: Iterable[str] = ()) -> None:
    """Raise `InputError` unless all are settings that `MultiTaskAttentionConfig` itself declares, `tasks` aside.

    Args:
        names: What was given.
        others: Names that the caller takes beside settings.
    """
    taken = set(others)
    for name in names:
        if name in ENCODER_ARGUMENTS and name not in taken:
            raise InputError(
                f"{name!r} is no setting of the model's parts: it says how an encoder is loaded. Write "
                f"from_encoder(name, tasks, {name}=...), or for a trainer that is given an encoder's name "
                f"model_settings={{{name!r}: ...}}."
            )
        if name in REFUSED_ARGUMENTS:
            raise InputError(f"{name}= cannot be given here. {REFUSED_ARGUMENTS[name].replace('{name}', name)}")
        if name in TASK_VALUES:
            raise InputError(
                f"{name!r} is no setting of the model's parts: each task has its own. Write tasks=[{EXAMPLE_TASK!r}]."
            )
        check_choice("setting", name, [*(key for key in SETTINGS if key != "tasks"), *sorted(taken)])


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
