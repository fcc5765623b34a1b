"""The model: one pretrained encoder, one state per task, attention across tasks, a gate, a head per task."""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from .answer_forms import AnswerForm
from .answering import Answerer, decoded_rows, tokenizer_of
from .batch_tensors import moved
from .configuration_multitask import MultiTaskAttentionConfig
from .encoder_assembly import encoder_and_reader
from .encoder_limits import check_texts
from .encoder_loading import build_encoder
from .encoder_modules import main_input
from .encoder_needs import check_needs, check_parts
from .encoder_reader import EncoderReader
from .encoder_tensors import EncodedTokens, EncoderInputs
from .handler import EndpointHandler
from .input_rows import Rows, TaskNames
from .masked_language import MaskedLanguageHead
from .multitask_module import MultiTaskModule, Routing, TaskParts, check_config
from .multitask_output import MultiTaskOutput, logits_by_task
from .multitask_pretrained import MultiTaskPreTrainedModel, rename_old
from .pipeline_multitask import MultiTaskPipeline
from .plain_inputs import Positions, check_routing, plain_entries
from .plain_rows import WordInputs, read_inputs
from .pooling import TASK_POOLINGS
from .problem_heads import TASK_HEADS
from .step_loss import batch_losses, measurement_sums, with_penalties
from .task_config import TaskConfig
from .task_head import Answer, TaskHead
from .task_tensors import Carried, pick_tasks
from .trunks import TrunkReader


class MultiTaskAttentionModel(MultiTaskPreTrainedModel):
    """One pretrained encoder with a head for each of several tasks, which read each other through a gate.

    At the start it computes what hard sharing computes (an encoder with one linear head per task); what it does beyond
    that, it learned.

    Args:
        config: The encoder's configuration, the parts by name, the tasks.
        encoder: A loaded encoder, or several by modality; built with fresh weights from the configuration if None.

    Raises:
        InputError: No tasks, a name given twice, or an unknown part.
    """

    def __init__(
        self,
        config: MultiTaskAttentionConfig,
        encoder: PreTrainedModel | Mapping[str, PreTrainedModel] | None = None,
    ) -> None:
        others = dict(encoder) if isinstance(encoder, Mapping) else {}
        encoder = others.pop(next(iter(others))) if isinstance(encoder, Mapping) else encoder
        if encoder is not None:
            from .encoder_arguments import follow_loaded, take_loaded

            take_loaded(config, encoder)
        super().__init__(config)
        check_config(config)
        pooling = TASK_POOLINGS[config.pooling]
        loaded = [] if encoder is None else [encoder, *others.values()]
        for module in (module for one in loaded for module in one.modules()):
            # What was done to a loaded encoder (adapters, other embeddings) is not drawn anew.
            module._is_hf_initialized = True  # type: ignore[assignment]
        whole = cast(PreTrainedConfig, config.encoder_config)
        first = encoder or build_encoder(whole, pooling.reads_pooler, config.tower)
        if config.tower is None:
            # What is beside a decoder has a copy of the whole model's.
            config.encoder_config = first.config
        unreadable = check_needs(config, first)
        self.encoder, self.main_input_name = first, main_input(first)
        self.mtl = MultiTaskModule(config, first)
        self.encoder, self.read_encoder = encoder_and_reader(config, first, others, self.mtl.conditioning)
        # Tasks whose label statistics come from rows: other rows' may take their place until the head has learned.
        self.measured_tasks: set[str] = set()
        self.register_load_state_dict_pre_hook(rename_old)
        if encoder is not None:
            follow_loaded(self, encoder)
        self.post_init()
        if unreadable is not None:
            # What is wrong with a setting was said before.
            raise unreadable
        if not isinstance(self.read_encoder, TrunkReader):
            check_parts(config, self.mtl.conditioning, first, cast(EncoderReader, self.read_encoder))

    @classmethod
    def from_encoder(
        cls,
        encoder: str | Path | PreTrainedModel | PreTrainedConfig | Mapping[str, Any],
        tasks: Sequence[TaskConfig | Mapping[str, Any]] | Mapping[str, Any],
        encoder_kwargs: Mapping[str, Any] | None = None,
        *,
        system: str | None = None,
        **arguments: Any,
    ) -> "MultiTaskAttentionModel":
        """Wrap a pretrained encoder.

        Args:
            encoder: A Hub name, a folder, or ``package:<module>/<folder>``; or an encoder that is loaded, which keeps
                its precision, attention, device and mode (of a model with a head, its encoder is taken); or, with
                fresh weights, a configuration. Or several by modality, ``{"text": ..., "image": ..., "audio": ...,
                "table": ...}``, each of these or a mapping: ``{"name": ..., "tower": ...}``, ``{"model_type":
                "resnet", ..., "processor": {...}}``.
            tasks: The tasks in order, or by name.
            encoder_kwargs: What loads the encoder, under one name; the same as giving it directly.
            system: A name of `SYSTEMS`, whose settings stand where none are given.
            **arguments: Settings of `MultiTaskAttentionConfig`, such as ``pooling="mean"``; what `from_pretrained`
                takes, such as ``dtype``, ``attn_implementation``, ``device_map``, ``revision``, ``subfolder``,
                ``token``, ``cache_dir``, ``trust_remote_code``; values of the encoder's configuration.

        Raises:
            InputError: The encoder cannot be found or lacks weights, or a setting, argument or task cannot be used.
        """
        # Imported here, since a checkpoint that answers needs none of it.
        from .encoder_wrapping import EncoderRequest

        request = EncoderRequest(encoder, tasks, encoder_kwargs, system, arguments)
        check_config(request.config)
        return request.model(cls)

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
        asked_tasks: torch.Tensor | None = None,
        output_logits: bool = True,
        **encoder_inputs: Any,
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
            asked_tasks: Internal, (B, A) beside `routing`: the tasks each row is answered for; entries then hold
                ``slots``, the places of their tasks among them. Other tasks are not computed where no part reads them.
            output_logits: Internal: whether to return logits and task states, which a training step does not read.
            **encoder_inputs: What else the encoder's `forward` takes, by its names: ``pixel_values``, ``bbox``, ...; B
                is the first axis, or that of ``grid_thw``.

        Raises:
            InputError: An input that the encoder does not take, texts that are too long for it, inputs or `task_ids`
                of other shapes, or labels whose task is open.
            LabelError: Labels of another shape or type than their tasks', or a label that its task does not have (both
                an `InputError` and an `IndexError`). On an accelerator no label's value is read: there, as in a
                compiled graph, the loss fails as a plain model's does.
        """
        words = WordInputs(input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)
        rows = read_inputs(words, encoder_inputs, cast(EncoderReader, self.read_encoder).accepted)
        check_texts(self.encoder, rows.inputs, attention_mask)
        positions = Positions(start_positions, end_positions)
        is_plain, answerable = routing is None, self._answerable(rows.inputs)
        check_routing(routing, asked_tasks, (labels, task_ids, *positions))
        if routing is None:
            routing = plain_entries(self._heads(), rows, task_ids, labels, positions, answerable)
        placed = all("slots" in entries for entries in routing.values())
        if asked_tasks is None or not placed or self.mtl.reads_all(asked_tasks) is None:
            asked_tasks = None
            routing = {name: {**entries, "slots": entries["tasks"]} for name, entries in routing.items()}

        inputs, entries = self.mtl.conditioning.rows_by_task(rows.inputs, routing, asked_tasks)
        conditions = self.mtl.conditioning(self.mtl.task_encoder(), inputs.tasks)
        flags = self._flags(output_hidden_states, output_attentions)
        tokens = self.read_encoder(Carried(self.encoder), inputs, conditions, flags)
        parts = self.mtl(tokens, self._with_words(entries), asked_tasks)

        output: dict[str, Any] = {
            "hidden_states": tokens.hidden_states or None,
            "attentions": tokens.attentions or None,
        }
        if any("labels" in entries for entries in routing.values()):
            output.update(batch_losses(self._heads(), parts.logits, routing, self.config.task_names))
            if (penalties := self.mtl.penalties(tokens, parts.states)) is not None:
                output.update(with_penalties(output, penalties, entries))
            if self.training and (measured := self.mtl.measurements(tokens, parts.states)):
                output["part_measurements"] = measurement_sums(measured, entries, output["task_row_counts"])
        if output_logits:
            # A row that is a choice alone has one score.
            single = self._types_with_one_score(of_choice=is_plain and rows.choices is None)
            is_dense = is_plain and task_ids is None and len(answerable) == self.num_tasks
            output["logits"] = logits_by_task(parts.logits, routing, self._heads(), single, is_dense)
            output["task_states"], output["entry_logits"] = parts.gated, None if is_dense else parts.logits
        if output_task_attentions:
            output.update(self._weights(parts, tokens))
        as_output = self.config.return_dict if return_dict is None else return_dict
        return MultiTaskOutput(**output) if as_output else MultiTaskOutput(**output).to_tuple()

    def _answerable(self, inputs: EncoderInputs) -> Collection[int]:
        """The tasks that can be answered of what is given, which of several encoders may be some of their inputs."""
        reader = self.read_encoder
        return reader.answerable(inputs) if isinstance(reader, TrunkReader) else range(self.num_tasks)

    def _with_words(self, routing: Routing) -> Routing:
        """The entries, those of heads that read them with the word embeddings (vocabulary, width)."""
        heads = {name: head for name, head in self._heads().items() if head.reads_words and name in routing}
        if not heads:
            return routing
        # By calling them: what holds parameters only while their module is called may take them away again.
        head = cast(MaskedLanguageHead, next(iter(heads.values())))
        words = self.get_input_embeddings()(torch.arange(head.vocabulary, device=head.local.device))
        return {name: {**entries, "words": words} if name in heads else entries for name, entries in routing.items()}

    def _types_with_one_score(self, of_choice: bool) -> set[str]:
        heads = self._heads().items()
        return {name for name, head in heads if head.has_one_score or (of_choice and head.inputs == "choices")}

    def _heads(self) -> dict[str, TaskHead]:
        return cast(dict[str, TaskHead], dict(self.mtl.heads.items()))

    def _flags(self, hidden_states: bool | int | Sequence[int] | None, attentions: bool | None) -> dict[str, Any]:
        """Return what the encoder is asked for beside its last states, by the call or else by the configuration."""
        flags = {
            "output_hidden_states": self.config.output_hidden_states if hidden_states is None else hidden_states,
            "output_attentions": self.config.output_attentions if attentions is None else attentions,
        }
        # A lone 0 asks for nothing, as in Transformers' own models.
        return {name: value for name, value in flags.items() if value}

    def _weights(self, parts: TaskParts, tokens: EncodedTokens) -> dict[str, Any]:
        pooling = self.mtl.pooling.weights(tokens)
        if pooling is not None and tokens.tasks is not None:
            of_tasks = pick_tasks(pooling, tokens.tasks)  # (rows, 1, L)
            pooling = of_tasks.reshape(parts.gated.shape[0], -1, of_tasks.shape[-1])
        return {
            "pooling_weights": pooling,
            "interaction_weights": self.mtl.interaction.weights(parts.states, self.mtl.task_encoder(), tokens),
            "gates": parts.gates,
        }

    def entry_logits(self, batch: Mapping[str, Any]) -> list[np.ndarray]:
        """Return of each entry's logits what its answer is decoded from, in the order in which the features list them.

        Args:
            batch: What `MultiTaskProcessor.collate` returned.
        """
        # Weights that are fetched when they are read lie nowhere; what fetches them moves the inputs too.
        inputs = batch if self.device.type == "meta" else moved(batch, self.device)
        return self.ordered_logits(self(**inputs).entry_logits, batch["routing"])

    @staticmethod
    def ordered_logits(logits: Mapping[str, torch.Tensor], routing: Routing) -> list[np.ndarray]:
        """Return of the logits of a batch's entries what answers are decoded from, in the order in which its features
        list them.
        """
        by_order: dict[int, np.ndarray] = {}
        for name, of_entries in logits.items():
            scores = TASK_HEADS[name].answer_scores(of_entries, routing[name])
            by_order.update(zip(routing[name]["order"].tolist(), scores.float().cpu().numpy()))
        return [by_order[order] for order in sorted(by_order)]

    def decode(self, outputs: Any) -> list[dict[str, Answer]]:
        """Return the answers of each row by task name, of logits of images, sounds or whatever it reads.

        Args:
            outputs: What the model returned for all rows and tasks, or its logits by task name, tensors or arrays.

        Raises:
            InputError: A task whose answers are made of the words of a text: see `MultiTaskProcessor.post_process`; or
                rows that were answered for one task each.
        """
        return decoded_rows(self.config.task_configs, outputs)

    def predict(
        self,
        rows: Rows,
        tasks: TaskNames | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        batch_size: int = 32,
        progress: Callable[[int], object] | None = None,
    ) -> list[dict[str, Answer]]:
        """Return every task's decoded answer for every row, from one encoder pass per batch.

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
        return self.answerer(tokenizer).answer(rows, tasks, batch_size, progress)

    def answerer(self, tokenizer: PreTrainedTokenizerBase | None = None, form: AnswerForm | None = None) -> Answerer:
        """Return what answers rows with this model.

        Args:
            tokenizer: The encoder's; by default the one saved beside the checkpoint.
            form: Of the answers; by default as they are decoded.
        """
        return Answerer(self, tokenizer_of(self) if tokenizer is None else tokenizer, form)


# The pipeline and what serves requests travel with the model.
__all__ = ["EndpointHandler", "MultiTaskAttentionModel", "MultiTaskOutput", "MultiTaskPipeline"]
