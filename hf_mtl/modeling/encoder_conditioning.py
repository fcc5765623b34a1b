"""An encoder's conditions, by task: nothing, or the task's embedding in its inputs, its norms or as a token.

To add a way, write its class and its line in `TASK_CONDITIONINGS`. Each starts as if nothing were told.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import nn
from transformers import PreTrainedModel

from .configuration_multitask import MultiTaskAttentionConfig
from .encoder_reader import Conditions, EncodedTokens, EncoderInputs, EncoderReader, norms_of
from .errors import InputError
from .interaction_base import reads_table
from .label_checks import Entries
from .task_tensors import Carried, ModuleWithConstants, UnitScaleLinear, ZeroStartLinear, pick_tasks

# The scale of the entries of word embeddings at the start of an encoder's own training.
_WORD_SCALE = 0.02
# How far apart token states may lie that must be the same, in float32 and in shorter types.
SAME_STATES, SAME_HALF_STATES = 1e-3, 5e-2
# Longer than the windows of encoders whose tokens read only their neighbours.
_LONG = 320


class TaskConditioning(ModuleWithConstants, ABC):
    """Tells an encoder of the task.

    Args:
        config: The tasks, and the settings of each way.
        encoder: The encoder; it is looked at, and belongs to the model.

    Raises:
        InputError: This encoder cannot be told so.
    """

    reads_embeddings = True
    # Whether token states depend on the task: a row is then encoded once for each of its tasks.
    conditions_encoder: ClassVar[bool] = False
    separate_encoders: ClassVar[bool] = False

    def __init__(self, config: MultiTaskAttentionConfig, encoder: PreTrainedModel) -> None:
        super().__init__()
        self.num_tasks = len(config.task_names)

    @abstractmethod
    def forward(self, embeddings: torch.Tensor, tasks: torch.Tensor | None) -> Conditions:
        """Return what the encoder is told.

        Args:
            embeddings: (tasks, hidden) task embeddings.
            tasks: (rows,) the task each row is encoded for; None where rows are encoded for all tasks.
        """

    def rows_by_task(
        self, inputs: EncoderInputs, routing: Mapping[str, Entries], asked_tasks: torch.Tensor | None
    ) -> tuple[EncoderInputs, Mapping[str, Entries]]:
        """Return the rows to encode, and the entries with their places among these.

        Args:
            inputs: The batch.
            routing: Its entries.
            asked_tasks: (batch, asked) the tasks each row is answered for; None for all.
        """
        if not self.conditions_encoder:
            return inputs, routing
        batch, device = inputs.mask.shape[0], inputs.mask.device
        if asked_tasks is None:
            asked_tasks = torch.arange(self.num_tasks, device=device).expand(batch, -1)
        count = asked_tasks.shape[1]
        rows = torch.arange(batch, device=device).repeat_interleave(count)
        by_type = {}
        for name, entries in routing.items():
            slots = entries["slots"].reshape(-1, *[1] * (entries["rows"].ndim - 1))
            by_type[name] = {**entries, "rows": entries["rows"] * count + slots}
        return inputs.select(rows)._replace(tasks=asked_tasks.flatten()), by_type

    def read_out(self, states: torch.Tensor, tokens: EncodedTokens, asked_tasks: torch.Tensor | None) -> torch.Tensor:
        """Return what the pooled states (rows, asked, hidden) become beside what the encoder says of its tasks."""
        return states

    def check(self, encoder: PreTrainedModel, reader: EncoderReader) -> None:
        """Raise `InputError` unless the encoder takes what it will be told; run where its weights are at hand."""


class NoConditioning(TaskConditioning):
    """The encoder knows of no task: one pass answers all."""

    reads_embeddings = False

    def forward(self, embeddings: torch.Tensor, tasks: torch.Tensor | None) -> Conditions:
        return Conditions()


class SeparateNetworks(NoConditioning):
    """An encoder of each task's own: nothing is shared below the parts."""

    conditions_encoder = True
    separate_encoders = True


class InputAddition(TaskConditioning):
    """The task's embedding is added to every word embedding: X'_l = X_l + W e_t, before the encoder's first norm.

    W starts at zero.
    """

    conditions_encoder = True

    def __init__(self, config: MultiTaskAttentionConfig, encoder: PreTrainedModel) -> None:
        super().__init__(config, encoder)
        self.output = ZeroStartLinear(config.hidden_size, _embedding_width(config, encoder), bias=False)

    def forward(self, embeddings: torch.Tensor, tasks: torch.Tensor | None) -> Conditions:
        return Conditions(added=self.output(embeddings)[tasks])

    def check(self, encoder: PreTrainedModel, reader: EncoderReader) -> None:
        drawn = torch.randn(2, self.output.out_features, device=encoder.device)
        _check_rows_apart(encoder, reader, "input_addition", Conditions(added=drawn))


class Modulation(TaskConditioning):
    """The task scales and shifts what each norm of the encoder returns: (1 + gamma_l(e_t)) * LN(x) + beta_l(e_t)
    (Perez et al. 2018, equation 1, on norms: conditional layer norm).

    gamma_l and beta_l are linear in a narrow projection of e_t and start at zero.

    Args:
        config: Gives `conditioning_size`, the width of the projection.
        encoder: The encoder.

    Raises:
        InputError: The encoder has no norm of its hidden size.
    """

    conditions_encoder = True

    def __init__(self, config: MultiTaskAttentionConfig, encoder: PreTrainedModel) -> None:
        super().__init__(config, encoder)
        hidden, size, count = config.hidden_size, config.conditioning_size, len(norms_of(encoder))
        if not count:
            raise InputError(
                f"conditioning=modulation needs norms of {hidden} entries; {type(encoder).__name__} has none. "
                "Choose input_addition."
            )
        self.projection = UnitScaleLinear(hidden, size, bias=False)
        self.scales = nn.ModuleList(ZeroStartLinear(size, hidden, bias=False) for _ in range(count))
        self.shifts = nn.ModuleList(ZeroStartLinear(size, hidden, bias=False) for _ in range(count))

    def forward(self, embeddings: torch.Tensor, tasks: torch.Tensor | None) -> Conditions:
        narrow = self.projection(embeddings)
        scales, shifts = ([layer(narrow)[tasks] for layer in layers] for layers in (self.scales, self.shifts))
        return Conditions(scales=scales, shifts=shifts)

    def check(self, encoder: PreTrainedModel, reader: EncoderReader) -> None:
        width, count = self.projection.in_features, len(self.scales)
        drawn = [list(torch.randn(count, 2, width, device=encoder.device).unbind()) for _ in range(2)]
        _check_rows_apart(encoder, reader, "modulation", Conditions(scales=drawn[0], shifts=drawn[1]))


class TaskTokens(TaskConditioning):
    """A token for each task stands in front of the text: one pass of the encoder's own attention gives each task a
    state, S_t = pool(Z)_t + W z_t, and lets tasks read each other.

    Text reads no task's token and keeps its positions, so that its states are those of the encoder alone; a task's
    token reads the text and the tokens of the tasks that it `reads`. W starts at zero. The tokens make a row longer
    by the number of tasks.

    Args:
        config: Gives the tasks and their `reads`.
        encoder: The encoder.

    Raises:
        InputError: The encoder takes no word embeddings, or its pooler would read a task's token.
    """

    reads: torch.Tensor

    def __init__(self, config: MultiTaskAttentionConfig, encoder: PreTrainedModel) -> None:
        super().__init__(config, encoder)
        hidden = config.hidden_size
        if config.pooling == "pooler":
            raise InputError(
                "conditioning=task_tokens puts tasks where the encoder's pooler reads; choose another pooling, "
                "e.g. pooling=first_token."
            )
        self.set_constant("reads", reads_table(config))
        self.token = UnitScaleLinear(hidden, _embedding_width(config, encoder), bias=False)
        self.norm = nn.LayerNorm(hidden)
        self.output = ZeroStartLinear(hidden, hidden)

    def forward(self, embeddings: torch.Tensor, tasks: torch.Tensor | None) -> Conditions:
        return Conditions(tokens=_WORD_SCALE * self.token(embeddings), reads=self.reads)

    def read_out(self, states: torch.Tensor, tokens: EncodedTokens, asked_tasks: torch.Tensor | None) -> torch.Tensor:
        assert tokens.task_tokens is not None
        return states + self.output(self.norm(pick_tasks(tokens.task_tokens, asked_tasks)))

    def check(self, encoder: PreTrainedModel, reader: EncoderReader) -> None:
        inputs = _small_inputs(encoder, _LONG)
        drawn = torch.randn(self.num_tasks, self.token.out_features, device=encoder.device) * _WORD_SCALE
        conditions = Conditions(tokens=drawn, reads=self.reads)
        try:
            plain, conditioned = (_quietly(encoder, reader, inputs, one) for one in (Conditions(), conditions))
            kept = inputs.mask.bool()
            same = _are_close(plain.states[kept], conditioned.states[kept])
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            raise _cannot_be_told(encoder, "task_tokens", str(error).split("\n")[0]) from error
        if not same:
            raise _cannot_be_told(
                encoder,
                "task_tokens",
                "the states of the text, which must stay, change when tasks stand before it",
            )


def _embedding_width(config: MultiTaskAttentionConfig, encoder: PreTrainedModel) -> int:
    """Return the width of an encoder's word embeddings, which may be narrower than its hidden states.

    Raises:
        InputError: The encoder has no word embeddings.
    """
    words = encoder.get_input_embeddings()
    if not isinstance(words, nn.Embedding):
        raise _cannot_be_told(encoder, config.conditioning, "it has no table of word embeddings")
    return words.embedding_dim


def _small_inputs(encoder: PreTrainedModel, length: int = 6) -> EncoderInputs:
    """Return two rows of word pieces, the second padded, of this length or what the encoder takes at most."""
    config = encoder.config.get_text_config()
    # Some keep a few of their positions for padding, and some say -1 where there is no end.
    most = getattr(config, "max_position_embeddings", 0) - 2
    length = min(length, most) if most > 0 else length
    ids = torch.arange(2 * length, device=encoder.device).reshape(2, length)
    ids = ids % max(config.vocab_size - 8, 1) + min(7, config.vocab_size - 1)
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    return EncoderInputs(ids, mask)


def _check_rows_apart(encoder: PreTrainedModel, reader: EncoderReader, name: str, conditions: Conditions) -> None:
    """Raise `InputError` unless two rows that are told different things each become what they become alone.

    Args:
        encoder: The encoder.
        reader: Its reader.
        name: The way of telling, for the message.
        conditions: What two rows are told.
    """
    inputs = _small_inputs(encoder)
    try:
        plain, together = (
            _quietly(encoder, reader, inputs, Conditions()),
            _quietly(encoder, reader, inputs, conditions),
        )
        for row in range(2):
            one = slice(row, row + 1)
            single = _quietly(
                encoder, reader, inputs.select(inputs.ids.new_tensor([row])), _row_of(conditions, one)
            ).states
            kept = inputs.mask[one].bool()
            same = _are_close(together.states[one][kept], single[kept])
            heard = not _are_close(together.states[one][kept], plain.states[one][kept])
            if not same or not heard:
                raise _cannot_be_told(encoder, name, "what is told of one row " + ("is lost" if same else "spreads"))
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        if isinstance(error, InputError):
            raise
        raise _cannot_be_told(encoder, name, str(error).split("\n")[0]) from error


def _are_close(states: torch.Tensor, expected: torch.Tensor) -> bool:
    """Return whether token states are the same but for rounding."""
    far = SAME_STATES if expected.dtype in (torch.float32, torch.float64) else SAME_HALF_STATES
    return torch.allclose(states, expected, atol=far, rtol=far)


def _row_of(conditions: Conditions, row: slice) -> Conditions:
    if conditions.added is not None:
        return Conditions(added=conditions.added[row])
    assert conditions.scales is not None and conditions.shifts is not None
    return Conditions(
        scales=[values[row] for values in conditions.scales], shifts=[values[row] for values in conditions.shifts]
    )


@torch.no_grad()
def _quietly(
    encoder: PreTrainedModel, reader: EncoderReader, inputs: EncoderInputs, conditions: Conditions
) -> EncodedTokens:
    was_training = encoder.training
    encoder.eval()
    try:
        return reader(Carried(encoder), inputs, conditions)
    finally:
        encoder.train(was_training)


def _cannot_be_told(encoder: PreTrainedModel, name: str, why: str) -> InputError:
    """Return the error that says why an encoder cannot be conditioned so."""
    return InputError(
        f"conditioning={name} does not work with the encoder {type(encoder).__name__}: {why}. Choose another: "
        f"{', '.join(TASK_CONDITIONINGS)}."
    )


TASK_CONDITIONINGS: dict[str, type[TaskConditioning]] = {
    "none": NoConditioning,
    "input_addition": InputAddition,
    "modulation": Modulation,
    "task_tokens": TaskTokens,
    "separate_encoders": SeparateNetworks,
}
