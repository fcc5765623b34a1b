"""The model: one pretrained encoder, one state a task, attention across tasks, a gate, a head a task."""

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import numpy as np
import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers import initialization as init

from .batch_tensors import moved
from .checkpoint_report import OLD_NAMES, refuse_incomplete, rename_old
from .configuration_multitask import MultiTaskAttentionConfig, TaskConfig
from .encoder_arguments import (
    bare_encoder,
    check_encoder,
    check_loaded,
    checkpoint_arguments,
    follow_mode,
    on_one_device,
    read_tasks,
    split_arguments,
)
from .encoder_code import carries_code, hub_arguments, save_code
from .encoder_limits import check_words
from .encoder_loading import build_encoder, load_encoder, reading_options
from .encoder_reader import (
    EncodedTokens,
    EncoderReader,
    SeparateEncoders,
    SeparateReader,
    first_encoder,
)
from .errors import CheckpointError, InputError, check_choice
from .input_rows import Rows, TaskNames
from .interaction_adversary import GradientReversal
from .multitask_module import MultiTaskModule, Routing, TaskParts
from .multitask_output import MultiTaskOutput
from .part_checks import SETTINGS, check_config
from .pipeline_multitask import Answerer, tokenizer_of
from .plain_inputs import Positions, check_routing, plain_entries, read_inputs
from .pooling import TASK_POOLINGS
from .random_states import kept_random_states
from .step_loss import batch_losses, with_penalties
from .task_head import Answer, TaskHead
from .task_logits import logits_by_task
from .task_tensors import (
    Carried,
    ModuleWithConstants,
    SharedVectors,
    TaskTensors,
    UnitScaleLinear,
    ZeroStartLinear,
    owner_of,
    owners_by_key,
    picked,
)


class MultiTaskAttentionModel(PreTrainedModel):
    """One pretrained encoder with a head for each of several tasks, which read each other through a gate.

    At the start it computes what hard sharing computes (an encoder with one linear head a task); what it does beyond
    that, it learned.

    Args:
        config: The encoder's configuration, the parts by name, the tasks.
        encoder: A loaded encoder; built with fresh weights from the configuration if None.

    Raises:
        InputError: No tasks, a name given twice, or an unknown part.
    """

    # Where a wrapped encoder came from; its tokenizer lies there until the model is saved. Not `name_or_path`, where
    # others look for a checkpoint of this class.
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
    # The Trainer would otherwise scale the loss once more by the accumulated batches.
    accepts_loss_kwargs = False

    def __init__(self, config: MultiTaskAttentionConfig, encoder: PreTrainedModel | None = None) -> None:
        if encoder is not None:
            check_loaded(config, encoder)
            config.encoder_config = encoder.config
            config._attn_implementation = encoder.config._attn_implementation
        super().__init__(config)
        check_config(config)
        pooling = TASK_POOLINGS[config.pooling]
        for module in encoder.modules() if encoder is not None else ():
            # What was done to a loaded encoder (adapters, other embeddings) is not drawn anew.
            module._is_hf_initialized = True  # type: ignore[assignment]
        first = encoder or build_encoder(cast(PreTrainedConfig, config.encoder_config), pooling.reads_pooler)
        self.encoder: nn.Module = first
        self.mtl = MultiTaskModule(config, first)
        if encoder is not None:
            self.mtl.to(device=encoder.device, dtype=encoder.dtype)
            self.encoder_source = str(encoder.name_or_path or "")
            self.hub_arguments = {"trust_remote_code": carries_code(encoder.config)}
        if self.mtl.conditioning.separate_encoders:
            others = {name: copy.deepcopy(first) for name in config.task_names[1:]}
            self.encoder = SeparateEncoders({config.task_names[0]: first, **others})
            self.read_encoder: nn.Module = SeparateReader(self.encoder, pooling.reads_layers)
        else:
            self.read_encoder = EncoderReader(first, pooling.reads_layers, self.mtl.conditioning.reads_embeddings)
        # Tasks whose label statistics come from rows: other rows' may take their place until the head has learned.
        self.measured_tasks: set[str] = set()
        self.register_load_state_dict_pre_hook(rename_old)
        self.post_init()
        if self.device.type != "meta":
            with kept_random_states(self.device):
                self.mtl.conditioning.check(first, cast(EncoderReader, self.read_encoder))

    @classmethod
    def from_encoder(
        cls,
        encoder: str | Path | PreTrainedModel,
        tasks: Sequence[TaskConfig | Mapping[str, Any]] | Mapping[str, Any],
        encoder_kwargs: Mapping[str, Any] | None = None,
        *,
        system: str | None = None,
        **arguments: Any,
    ) -> "MultiTaskAttentionModel":
        """Wrap a pretrained encoder.

        Args:
            encoder: A Hub name, a folder, or ``package:<module>/<folder>``; or an encoder that is loaded, which keeps
                its precision, attention, device and mode (of a model with a head, its encoder is taken).
            tasks: The tasks in order, or by name.
            encoder_kwargs: What loads the encoder, under one name; the same as giving it directly.
            system: A name of `SYSTEMS`, whose settings stand where none are given.
            **arguments: Settings of `MultiTaskAttentionConfig`, such as ``pooling="mean"``; what `from_pretrained`
                takes, such as ``dtype``, ``attn_implementation``, ``device_map``, ``revision``, ``subfolder``,
                ``token``, ``cache_dir``, ``trust_remote_code``; values of the encoder's configuration.

        Raises:
            InputError: The encoder cannot be found or lacks weights, or a setting, argument or task cannot be used.
        """
        check_encoder(encoder)
        values = read_tasks(tasks)
        settings, loading = split_arguments(encoder, system, encoder_kwargs, arguments)
        attention: dict[str, Any] = {"attn_implementation": loading.get("attn_implementation")}
        check_config(config := MultiTaskAttentionConfig(tasks=values, **attention, **settings))
        pooler = TASK_POOLINGS[config.pooling].reads_pooler
        if isinstance(encoder, (str, Path)):
            loaded = load_encoder(str(encoder), pooler, **on_one_device(loading))
        else:
            loaded = bare_encoder(encoder, pooler)
        model = cls(MultiTaskAttentionConfig(encoder_config=loaded.config, tasks=config.tasks, **settings), loaded)
        if isinstance(encoder, (str, Path)):
            model.hub_arguments = hub_arguments(loading)
        follow_mode(model, loaded)
        return model

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
            kwargs["key_mapping"] = {**OLD_NAMES, **(kwargs.get("key_mapping") or {})}
            options = {
                **checkpoint_arguments(name, kwargs),
                "ignore_mismatched_sizes": True,
                "output_loading_info": True,
            }
            loaded: Any = super().from_pretrained(name, *args, **options)
        except (SafetensorError, RuntimeError) as error:
            raise CheckpointError(f"The checkpoint {name!r} cannot be read: {error}") from error
        model, report = loaded
        # Saved again, tensors have the names of now.
        model._weight_conversions = [
            one for one in model._weight_conversions if one.source_patterns[0] not in OLD_NAMES
        ]
        model.hub_arguments = hub_arguments(kwargs)
        model.has_given_precision = any(kwargs.get(key) is not None for key in ("dtype", "torch_dtype"))
        if not kwargs.get("ignore_mismatched_sizes"):
            refuse_incomplete(name or "state_dict", report, [key for key in kwargs if key in SETTINGS])
        return (model, report) if wants_report else model

    def save_pretrained(self, save_directory: str | Path, is_main_process: bool = True, **kwargs: Any) -> None:
        """Save the model, with the code that reads it and an encoder's own."""
        if is_main_process:
            Path(save_directory).mkdir(parents=True, exist_ok=True)
            save_code(first_encoder(self.encoder), Path(save_directory))
        super().save_pretrained(save_directory, is_main_process=is_main_process, **kwargs)

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, ModuleWithConstants):
            module.reset_constants()
        if isinstance(module, (TaskTensors, SharedVectors, ZeroStartLinear, UnitScaleLinear)):
            module.reset()
        elif isinstance(module, nn.RNNBase):
            for tensor in module.parameters():
                init.uniform_(tensor, -(module.hidden_size**-0.5), module.hidden_size**-0.5)
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
            InputError: The model has weights of word pieces of its own (`lexical_rank`), or several encoders.
        """
        if isinstance(self.encoder, SeparateEncoders):
            raise InputError("Separate encoders cannot be resized; resize the encoder before it is wrapped.")
        if self.config.lexical_rank and new_num_tokens not in (None, self.config.vocab_size):
            raise InputError(
                "A model with `lexical_rank` has a weight for each word piece; resize the encoder's vocabulary before "
                "it is wrapped."
            )
        return super().resize_token_embeddings(new_num_tokens, *args, **kwargs)

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the encoder's token embeddings."""
        cast(Any, self.encoder).set_input_embeddings(value)
        cast(EncoderReader, self.read_encoder).listen_to(value)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | Mapping[str, torch.Tensor | None] | None = None,
        task_ids: torch.Tensor | None = None,
        start_positions: torch.Tensor | None = None,
        end_positions: torch.Tensor | None = None,
        output_hidden_states: bool | int | Sequence[int] | None = None,
        output_attentions: bool | None = None,
        output_task_attentions: bool = False,
        return_dict: bool | None = None,
        routing: Routing | None = None,
        asked: torch.Tensor | None = None,
        output_logits: bool = True,
    ) -> MultiTaskOutput | tuple[Any, ...]:
        """Answer rows for tasks.

        Args:
            input_ids: (B, L) word pieces, or (B, choices, L) of multiple choice; or give `inputs_embeds`.
            attention_mask: As `input_ids`, 1 at tokens and 0 at padding; all ones if None.
            token_type_ids: As `input_ids`, segments, for encoders that take them.
            position_ids: As `input_ids`, for encoders that take them.
            inputs_embeds: (B, L, D) or (B, choices, L, D), see `input_ids`.
            labels: Labels by task name, (B,) or of the shape of the task's logits without classes, (B, flags), (B, 2)
                for the first and last piece of an answer; -100 (of numbers also NaN) where a row has none. A tensor
                alone in a model of one task, or beside `task_ids`.
            task_ids: (B,) the index of each row's task: rows are then answered for it alone. Labels by task name then
                are those of the task's rows alone, in row order.
            start_positions: (B,) the first pieces of answers: with `end_positions` question answering's labels.
            end_positions: (B,) the last pieces of answers.
            output_hidden_states: Whether to return the encoder's hidden states, or the numbers of those to return; by
                default as the configuration says.
            output_attentions: Whether to return the encoder's attentions, likewise.
            output_task_attentions: Whether to return what pooling, interaction and gate weigh.
            return_dict: Whether to return a `MultiTaskOutput` (else a tuple), likewise.
            routing: Internal, of the collator: by problem type the entries to answer: ``rows``, ``tasks`` and, for a
                loss, ``labels``.
            asked: Internal, (B, A) beside `routing`: the tasks each row is answered for; entries then hold ``slots``,
                the places of their tasks among them. Other tasks are not computed where no part reads them.
            output_logits: Internal: whether to return logits and task states, which a training step does not read.

        Raises:
            InputError: Inputs or `task_ids` of other shapes, or labels whose task is open.
            LabelError: Labels of another shape or type than their tasks', or a label that its task does not have (both
                an `InputError` and an `IndexError`). On an accelerator no label's value is read: there, as in a
                compiled graph, the loss fails as a plain model's does.
        """
        rows = read_inputs(input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)
        positions = Positions(start_positions, end_positions)
        is_plain = routing is None
        check_routing(routing, asked, (labels, task_ids, *positions))
        if routing is None:
            routing = plain_entries(self._heads(), rows, task_ids, labels, positions)
        placed = all("slots" in entries for entries in routing.values())
        if asked is None or not placed or self.mtl.reads_all(asked) is None:
            asked, routing = None, {name: {**own, "slots": own["tasks"]} for name, own in routing.items()}

        inputs, entries = self.mtl.conditioning.rows_by_task(rows.inputs, routing, asked)
        told = self.mtl.conditioning(self.mtl.task_encoder(), inputs.tasks)
        flags = self._flags(output_hidden_states, output_attentions)
        tokens = self.read_encoder(Carried(self.encoder), inputs, told, flags)
        parts = self.mtl(tokens, entries, asked)

        output: dict[str, Any] = {
            "hidden_states": tokens.hidden_states or None,
            "attentions": tokens.attentions or None,
        }
        if any("labels" in entries for entries in routing.values()):
            output.update(batch_losses(self._heads(), parts.logits, routing, self.config.task_names))
            if (penalties := self.mtl.penalties(tokens, parts.states)) is not None:
                output.update(with_penalties(output, penalties, entries))
        if output_logits:
            # A row that is a choice alone has one score.
            is_one_choice = is_plain and rows.choices is None
            single = {
                name
                for name, head in self._heads().items()
                if head.has_one_score or (is_one_choice and head.inputs == "choices")
            }
            is_dense = is_plain and task_ids is None
            output["logits"] = logits_by_task(parts.logits, routing, self._heads(), single, is_dense)
            output["task_states"], output["entry_logits"] = parts.gated, None if is_dense else parts.logits
        if output_task_attentions:
            output.update(self._weights(parts, tokens))
        as_output = self.config.return_dict if return_dict is None else return_dict
        return MultiTaskOutput(**output) if as_output else MultiTaskOutput(**output).to_tuple()

    def _heads(self) -> dict[str, TaskHead]:
        return cast(dict[str, TaskHead], dict(self.mtl.heads.items()))

    def _flags(self, hidden_states: bool | int | Sequence[int] | None, attentions: bool | None) -> dict[str, Any]:
        """What the encoder is asked for beside its last states: by the call or, where it says nothing, the config."""
        flags = {
            "output_hidden_states": self.config.output_hidden_states if hidden_states is None else hidden_states,
            "output_attentions": self.config.output_attentions if attentions is None else attentions,
        }
        # A lone 0 asks for nothing, as in Transformers' own models.
        return {name: value for name, value in flags.items() if value}

    def has_learned(self, task: str) -> bool:
        """Whether a task's head has left its start: its bias, which begins at zero, has moved."""
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

    def _weights(self, parts: TaskParts, tokens: EncodedTokens) -> dict[str, Any]:
        pooling = self.mtl.pooling.weights(tokens)
        if pooling is not None and tokens.tasks is not None:
            of_tasks = picked(pooling, tokens.tasks)  # (rows, 1, L)
            pooling = of_tasks.reshape(parts.gated.shape[0], -1, of_tasks.shape[-1])
        return {
            "pooling_weights": pooling,
            "interaction_weights": self.mtl.interaction.weights(parts.states, self.mtl.task_encoder()),
            "gates": parts.gates,
        }

    @property
    def num_tasks(self) -> int:
        """How many tasks the model has."""
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

    def entry_logits(self, batch: Mapping[str, Any]) -> list[np.ndarray]:
        """Return each entry's logits in the order in which the features list them.

        Args:
            batch: What `MultiTaskProcessor.collate` returned.
        """
        # Weights that are fetched when they are read lie nowhere; what fetches them moves the inputs too.
        inputs = batch if self.device.type == "meta" else moved(batch, self.device)
        return self.ordered_logits(self(**inputs).entry_logits, batch["routing"])

    @staticmethod
    def ordered_logits(logits: Mapping[str, torch.Tensor], routing: Routing) -> list[np.ndarray]:
        """Return the logits of a batch's entries in the order in which its features list them."""
        found: dict[int, np.ndarray] = {}
        for name, scores in logits.items():
            found.update(zip(routing[name]["order"].tolist(), scores.float().cpu().numpy()))
        return [found[order] for order in sorted(found)]

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """Return the tokenizer saved beside the checkpoint, or the encoder's own before there is one."""
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

    def predict(
        self,
        rows: Rows,
        tasks: TaskNames | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        batch_size: int = 32,
        progress: Callable[[int], object] | None = None,
    ) -> list[dict[str, Answer]]:
        """Return every task's decoded answer for every row, from one encoder pass a batch.

        An answer whose input was longer than the task's `max_length` has ``"truncated": True``, one of tags also
        ``"words_read"``, how many of its words were read; the others are tagged as outside. A context is read whole,
        in windows; only a question is cut.

        Args:
            rows: Texts, or mappings of input fields such as ``{"question": ..., "context": ...}``: in a list, a data
                set, a pandas table, as a mapping of columns, or a single one. Other columns are left out; one whose
                name is like that of a field which the row lacks is refused.
            tasks: The tasks to answer, or one of them; by default all whose input fields a row has.
            tokenizer: The encoder's tokenizer; by default the one saved beside the checkpoint, which is read once.
            batch_size: Rows in one pass.
            progress: Called with the number of rows answered since the last call.

        Raises:
            InputError: An unknown task, or a row that cannot be answered; no row is encoded before all are checked.
        """
        answerer = Answerer(self, tokenizer_of(self) if tokenizer is None else tokenizer)
        return answerer.answer(rows, tasks, batch_size, progress)


__all__ = ["MultiTaskAttentionModel", "MultiTaskOutput"]
