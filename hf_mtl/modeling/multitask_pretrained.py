"""The base of the model, as any Transformers model has one: loading, saving, embeddings, parameters by task."""

import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from safetensors import SafetensorError
from torch import nn
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from .adversary import GradientReversal
from .configuration_multitask import MultiTaskAttentionConfig, current_settings
from .encoder_code import check_model_type, hub_arguments, save_code, with_encoder_code
from .encoder_limits import check_reads_words, check_resizable, check_words
from .encoder_loading import reading_options
from .encoder_reader import EncoderReader
from .encoder_towers import OfTheEncoder
from .errors import CheckpointError, InputError, check_choice
from .modalities import save_processors
from .separate_encoders import SeparateEncoders
from .setting_names import SETTINGS, TASK_VALUES, check_setting_names
from .several_encoders import first_encoder
from .task_config import TaskConfig
from .task_head import TaskHead
from .task_tensors import (
    ModuleWithConstants,
    SharedVectors,
    TaskTensors,
    UnitScaleLinear,
    ZeroStartLinear,
    owner_of,
    owners_by_key,
)

# Names of parameters in earlier versions, as patterns, and what they are called now: PEFT takes modules whose names
# end in "score" for classifiers, and those that it is told to adapt by name ("query") for linear layers.
_OLD_NAMES = {
    r"\bmtl\.(interaction(?:\.layers\.\d+)?)\.query\.task_": r"mtl.\1.queries.task_",
    r"\bmtl\.(interaction(?:\.layers\.\d+)?)\.key\.task_": r"mtl.\1.keys.task_",
    r"\bmtl\.(interaction(?:\.layers\.\d+)?)\.value\.task_": r"mtl.\1.values.task_",
    r"\bmtl\.((?:\w+\.)*gate)\.score\.": r"mtl.\1.scores.",
    r"\bmtl\.((?:\w+\.)*aggregation)\.score\.": r"mtl.\1.scores.",
    r"\bmtl\.((?:\w+\.)*scores)\.task_to_score\.": r"mtl.\1.task_to_scores.",
    r"\bmtl\.((?:\w+\.)*\w*scorer)\.score\.": r"mtl.\1.scores.",
    r"\bmtl\.((?:\w+\.)*)own\.": r"mtl.\1task_experts.",
    r"\bmtl\.(interaction(?:\.layers\.\d+)?)\.branches\.": r"mtl.\1.branch.layers.",
    r"\bmtl\.head_reading\.layer\.": r"mtl.head_reading.branch.layers.",
}

# What a push takes beside a repository.
_PUSH_ARGUMENTS = (
    "commit_description",
    "commit_message",
    "create_pr",
    "path_in_repo",
    "private",
    "replace_card",
    "repo_id",
    "revision",
    "tag",
    "tags",
    "token",
)


class MultiTaskPreTrainedModel(PreTrainedModel):
    """Loads, saves and initializes a model of several tasks, and knows which parameters belong to which task."""

    encoder: nn.Module
    read_encoder: nn.Module
    # The wrapped encoder's origin, and its tokenizer's. Others look at `name_or_path` for a checkpoint of this class.
    encoder_source: str = ""
    # Which of its files are read, and whether code among them is run.
    hub_arguments: Mapping[str, Any] = MappingProxyType({"trust_remote_code": False})
    # Whether somebody said which precision the weights shall have, or they have the one that they were stored in.
    has_given_precision: bool = True

    config: MultiTaskAttentionConfig
    config_class = MultiTaskAttentionConfig
    base_model_prefix = "hf_mtl"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    # The Trainer would otherwise scale the loss once more.
    accepts_loss_kwargs = False
    # Transformers' trainer refuses quantized models without adapters; here parts around a quantized encoder learn.
    is_quantized = False
    # The class has no experts; a model's are its encoder's.
    _can_set_experts_implementation = OfTheEncoder(False, lambda encoder: True)
    # Of custom code Transformers does not trust that it leaves loaded tensors alone, and skips what a model draws of a
    # layer's parts together; this one leaves them alone.
    is_custom_code = OfTheEncoder(True, lambda encoder: encoder is None or encoder.is_custom_code())

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path | None, *args: Any, **kwargs: Any) -> Any:
        """Load a checkpoint; a tensor that is missing, unexpected or of another shape is an `InputError`.

        Takes what `PreTrainedModel.from_pretrained` takes. Weights keep the precision that was saved unless ``dtype``
        says otherwise; half precision that nobody asked for here is trained in float32. With
        ``ignore_mismatched_sizes=True`` nothing is refused. An encoder with code of its own needs
        ``trust_remote_code=True``. Without a name, ``config`` and ``state_dict`` are what is loaded.

        Raises:
            InputError: The checkpoint is that of an encoder, or cannot be read, or an argument cannot be used.
        """
        name = None if pretrained_model_name_or_path is None else str(pretrained_model_name_or_path)
        wants_report = kwargs.pop("output_loading_info", False)
        try:
            # Other shapes are refused below, by name; Transformers would refuse them with a table in its log.
            kwargs = current_settings(kwargs)
            kwargs["key_mapping"] = {**_OLD_NAMES, **(kwargs.get("key_mapping") or {})}
            options = {
                **_checkpoint_arguments(name, kwargs),
                "ignore_mismatched_sizes": True,
                "output_loading_info": True,
            }
            loaded: Any = super().from_pretrained(name, *args, **options)
        except (SafetensorError, RuntimeError) as error:
            raise CheckpointError(f"The checkpoint {name!r} cannot be read: {error}") from error
        model, report = loaded
        # Saved again, tensors have the names of now.
        conversions = model._weight_conversions
        model._weight_conversions = [one for one in conversions if one.source_patterns[0] not in _OLD_NAMES]
        model.hub_arguments = hub_arguments(kwargs)
        model.has_given_precision = any(kwargs.get(key) is not None for key in ("dtype", "torch_dtype"))
        if not kwargs.get("ignore_mismatched_sizes"):
            _refuse_incomplete(name or "state_dict", report, [key for key in kwargs if key in SETTINGS])
        return (model, report) if wants_report else model

    def save_pretrained(
        self, save_directory: str | Path, is_main_process: bool = True, push_to_hub: bool = False, **kwargs: Any
    ) -> None:
        """Save the model, with the code that reads it and an encoder's own; ``push_to_hub=True`` pushes it, as
        `push_to_hub` does, to ``repo_id``, by default a repository of the folder's name.
        """
        folder = Path(save_directory)
        given = {key: kwargs.pop(key) for key in _PUSH_ARGUMENTS if push_to_hub and key in kwargs}
        if is_main_process:
            folder.mkdir(parents=True, exist_ok=True)
            save_code(first_encoder(self.encoder), folder)
            save_processors(self.config.modalities or (), folder)
        super().save_pretrained(save_directory, is_main_process=is_main_process, **kwargs)
        if push_to_hub and is_main_process:
            self._push(folder, given.pop("repo_id", folder.absolute().name), **given)

    def push_to_hub(self, repo_id: str, *, max_shard_size: int | str | None = "50GB", **kwargs: Any) -> Any:
        """Push the whole checkpoint in one commit: weights, code, tokenizer, card, and, as long as the weights are
        those that were loaded, the recipe and the results beside them.

        Args:
            repo_id: ``owner/name``, or a name of the token's owner.
            max_shard_size: As of `save_pretrained`.
            **kwargs: ``commit_message``, ``commit_description``, ``private``, ``token``, ``revision``, ``create_pr``,
                ``tags`` of the card, as of `PreTrainedModel.push_to_hub`; ``tag`` of the commit and ``path_in_repo``.

        Returns:
            `huggingface_hub.CommitInfo`.

        Raises:
            InputError: An unknown argument, or no tokenizer is known.
            HubError: It could not be pushed; the folder that would have been is kept and named.
        """
        for key in kwargs:
            check_choice("argument of push_to_hub", key, _PUSH_ARGUMENTS)
        folder = Path(tempfile.mkdtemp(prefix="push_to_hub-"))
        self.save_pretrained(folder, max_shard_size=max_shard_size)
        commit = self._push(folder, repo_id, **kwargs)
        shutil.rmtree(folder)
        return commit

    def _push(self, folder: Path, repo_id: str, tags: Sequence[str] | str | None = None, **given: Any) -> Any:
        # Most processes push nothing, and need not load what does.
        from .hub_folder import complete_folder
        from .hub_push import Push, push_folder

        push = Push(folder, repo_id, **given)
        complete_folder(self, folder, push.repo_id.rpartition("/")[2], [tags] if isinstance(tags, str) else tags)
        return push_folder(push).commit

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, ModuleWithConstants):
            module.reset_constants()
        if isinstance(module, (TaskTensors, SharedVectors, ZeroStartLinear, UnitScaleLinear)):
            module.reset()
        else:
            super()._init_weights(module)

    @property
    def base_model(self) -> nn.Module:
        """The encoder, which users freeze by this name; the model itself where each task has an encoder of its own."""
        return self if isinstance(self.encoder, SeparateEncoders) else self.encoder

    def get_input_embeddings(self) -> nn.Module:
        """Return the encoder's token embeddings."""
        return cast(Any, self.encoder).get_input_embeddings()

    def resize_token_embeddings(self, new_num_tokens: int | None = None, *args: Any, **kwargs: Any) -> Any:
        """Resize the encoder's token embeddings.

        Raises:
            InputError: The model has weights of word pieces of its own (`lexical_rank`, masked language modelling), or
                several encoders, or one that reads no word pieces.
        """
        reads_words = any(isinstance(head, TaskHead) and head.reads_words for head in self.modules())
        check_resizable(self.encoder, reads_words or self.config.lexical_rank > 0, new_num_tokens)
        return super().resize_token_embeddings(new_num_tokens, *args, **kwargs)

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the encoder's token embeddings."""
        cast(Any, self.encoder).set_input_embeddings(value)
        cast(EncoderReader, self.read_encoder).listen_to(value)

    def has_learned(self, task: str) -> bool:
        """Return whether a task's head has left its start: its bias, which begins at zero, has moved."""
        owners = owners_by_key([task])
        return any(
            bool(tensor.any())
            for name, tensor in self.named_parameters()
            if ".heads." in name and ".bias." in name and owner_of(name, owners) == task
        )

    def take_task(self, task: TaskConfig) -> None:
        """Put a task's values in the place of those it had: label statistics, input fields.

        Args:
            task: A task of the model with the same name, labels and problem type.
        """
        rows = cast(list[dict], self.config.tasks)
        self.config.tasks = [task.to_dict() if row["name"] == task.name else row for row in rows]
        tasks = dict(enumerate(self.config.task_configs))
        for head in self.modules():
            if isinstance(head, TaskHead):
                head.read_tasks({place: tasks[place] for place in head.tasks})

    def set_progress(self, progress: float) -> None:
        """Say how much of a run is over, in [0, 1]: adversaries start weak."""
        for module in self.modules():
            if isinstance(module, GradientReversal):
                module.set_progress(progress)

    @property
    def num_tasks(self) -> int:
        """The number of tasks."""
        return len(self.config.task_names)

    def task_parameters(self, task: str) -> list[nn.Parameter]:
        """Return the parameters that belong to one task alone."""
        check_choice("task", task, self.config.task_names)
        return self.parameters_by_task()[task]

    def parameters_by_task(self) -> dict[str, list[nn.Parameter]]:
        """Return by task the parameters that belong to it alone."""
        by_task: dict[str, list[nn.Parameter]] = {name: [] for name in self.config.task_names}
        owners = owners_by_key(by_task)
        for name, tensor in self.named_parameters():
            if (owner := owner_of(name, owners)) is not None:
                by_task[owner].append(tensor)
        return by_task

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """Return the tokenizer saved beside the checkpoint, or the encoder's own before there is one."""
        check_reads_words(self.encoder)
        # With the encoder's configuration at hand, the checkpoint's own, which names custom code, is not asked for.
        source = self.encoder_source or self.name_or_path or ""
        if not source:
            raise InputError(
                "This model was not loaded from anywhere, so no tokenizer lies beside it; give the encoder's: "
                "predict(rows, tokenizer=tokenizer), MultiTaskTrainer(..., processing_class=tokenizer)."
            )
        tokenizer = AutoTokenizer.from_pretrained(
            source, config=self.config.encoder_config, **{**reading_options(source), **self.hub_arguments}
        )
        check_words(tokenizer, source)
        return tokenizer


def _current_name(name: str) -> str:
    """Return what a parameter is called now, by its name or an earlier one."""
    for old, new in _OLD_NAMES.items():
        name = re.sub(old, new, name)
    return name


def rename_old(module: Any, state_dict: dict[str, Any], prefix: str, *given: Any) -> None:
    """Give the tensors that are loaded into a module the names of now; a hook of `load_state_dict`."""
    for name in [name for name in state_dict if name.startswith(prefix) and _current_name(name) != name]:
        state_dict[_current_name(name)] = state_dict.pop(name)


def _refuse_incomplete(name: str | Path, report: Mapping[str, Any], settings: Iterable[str] = ()) -> None:
    """Raise `CheckpointError` if tensors of a checkpoint were missing, unexpected or of another shape.

    Args:
        name: The checkpoint.
        report: What Transformers says of its tensors.
        settings: Names of settings that were given in the place of those that it holds.
    """
    given = ", ".join(f"{name}=" for name in settings)
    for kind, what in (
        ("missing_keys", "lacks"),
        ("unexpected_keys", "has unexpected"),
        ("mismatched_keys", "has tensors of another shape:"),
    ):
        keys = sorted(key if isinstance(key, str) else key[0] for key in report.get(kind) or ())
        if keys:
            more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            why = (
                f"{given} asks for other parts than it was saved with. Leave it out, or begin from the encoder: "
                "MultiTaskAttentionModel.from_encoder(name, tasks=[...])."
                if given
                else "its config.json and its weights do not belong together. Fetch or save it again."
            )
            raise CheckpointError(f"The checkpoint {str(name)!r} {what} {', '.join(keys[:3])}{more}; {why}")


def _checkpoint_arguments(name: str | None, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return what Transformers' `from_pretrained` is given to load a checkpoint.

    Args:
        name: The checkpoint; None where `arguments` hold a configuration and tensors.
        arguments: What was given.

    Raises:
        InputError: An argument that says nothing of a checkpoint, or a checkpoint of another model.
    """
    check_setting_names(name for name in arguments if name in TASK_VALUES)
    for key in ("encoder", "encoder_kwargs", "system"):
        if key in arguments:
            raise InputError(
                f"{key}= is an argument of from_encoder; a checkpoint holds its encoder and its parts. Leave it out, "
                "or write MultiTaskAttentionModel.from_encoder(name, tasks=[...])."
            )
    if "tasks" in arguments:
        raise InputError(
            "from_pretrained takes no `tasks`: a checkpoint holds its own, with a head for each. To answer some of "
            "them: model.predict(rows, tasks=[...]); to train others: MultiTaskAttentionModel.from_encoder(name, "
            "tasks=[...])."
        )
    if name is not None:
        return with_encoder_code(name, {**arguments, **reading_options(name)})
    if not isinstance(arguments.get("config"), PreTrainedConfig) or arguments.get("state_dict") is None:
        raise InputError("Without a name, from_pretrained needs both config=model.config and state_dict=tensors.")
    check_model_type("config", arguments["config"].model_type, arguments["config"].architectures)
    return dict(arguments)
