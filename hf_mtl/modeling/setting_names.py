"""Names of settings, and of what loads an encoder: which are taken, and what to write in place of the others."""

from collections.abc import Iterable

from .configuration_multitask import MultiTaskAttentionConfig
from .encoder_code import HUB_ARGUMENTS
from .errors import InputError, check_choice
from .task_config import EXAMPLE_TASK

# Settings that a file or a command line may give a value of the wrong type.
_NO_SETTINGS = ("encoder_config", "encoder_width", "encoder_axis", "encoder_layers", "modalities")
SETTINGS = [name for name in MultiTaskAttentionConfig.__annotations__ if name not in _NO_SETTINGS]
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
