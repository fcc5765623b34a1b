"""The base of ways to tell an encoder of the task, and what shows on small inputs that an encoder can be told."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from torch import nn
from transformers import PreTrainedModel

from .configuration_multitask import MultiTaskAttentionConfig
from .encoder_modules import input_embeddings
from .encoder_reader import Conditions, EncoderReader
from .encoder_tensors import EncodedTokens, EncoderInputs
from .errors import InputError
from .label_checks import Entries
from .separate_encoders import SeparateEncoders
from .task_tensors import Carried, ModuleWithConstants
from .trial_pass import UNREADABLE, trial_pass

# Pools token states: (tokens, asked_tasks) become task states (rows, asked, hidden).
Pool = Callable[[EncodedTokens, torch.Tensor | None], torch.Tensor]

# How far apart token states may lie that must be the same, in float32 and in shorter types.
SAME_STATES, SAME_HALF_STATES = 1e-3, 5e-2


class TaskConditioning(ModuleWithConstants, ABC):
    """Tells an encoder of the task.

    Args:
        config: The tasks, and the settings of each way.
        encoder: The encoder; it is looked at, and belongs to the model.

    Raises:
        InputError: This encoder cannot be told so.
    """

    reads_embeddings = True
    # Whether it is word pieces, or layers that read them, that are told.
    reads_words: ClassVar[bool] = True
    # Whether token states depend on the task: a row is then encoded once for each of its tasks.
    conditions_encoder: ClassVar[bool] = False
    # What the model's encoder becomes, where each task has one of its own.
    several_encoders: ClassVar[type[SeparateEncoders] | None] = None
    # Whether the layers of the encoder are told of the task.
    tells_layers: ClassVar[bool] = False

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

    def states(self, pool: Pool, tokens: EncodedTokens, asked_tasks: torch.Tensor | None) -> torch.Tensor:
        """Return S (rows, asked, hidden): token states, pooled, and what the encoder says beside them.

        Args:
            pool: The model's pooling.
            tokens: What the encoder said.
            asked_tasks: (rows, asked) task indices; None for all.
        """
        return pool(tokens, asked_tasks)

    def penalties(self, pool: Pool, tokens: EncodedTokens) -> torch.Tensor | None:
        """Return what the part adds to the loss of each encoded row for each task, (rows, tasks), or None."""
        return None

    def measurements(self, tokens: EncodedTokens) -> dict[str, torch.Tensor]:
        """Return by name what the part measures of each encoded row for each task, (rows, tasks), for the log."""
        return {}

    def check(self, encoder: PreTrainedModel, reader: EncoderReader) -> None:
        """Raise `InputError` unless the encoder takes what it will be told; run where its weights are at hand."""


def embedding_width(config: MultiTaskAttentionConfig, encoder: PreTrainedModel) -> int:
    """Return the width of an encoder's word embeddings, which may be narrower than its hidden states.

    Raises:
        InputError: The encoder has no word embeddings.
    """
    words = input_embeddings(encoder)
    if not isinstance(words, nn.Embedding):
        raise cannot_be_told(encoder, config.conditioning, "it has no table of word embeddings")
    return words.embedding_dim


def small_inputs(encoder: PreTrainedModel, length: int = 6) -> EncoderInputs:
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


def check_rows_apart(encoder: PreTrainedModel, reader: EncoderReader, name: str, conditions: Conditions) -> None:
    """Raise `InputError` unless two rows that are told different things each become what they become alone.

    Args:
        encoder: The encoder.
        reader: Its reader.
        name: The way of telling, for the message.
        conditions: What two rows are told.
    """
    inputs = small_inputs(encoder)
    try:
        plain, together = (
            quietly(encoder, reader, inputs, Conditions()),
            quietly(encoder, reader, inputs, conditions),
        )
        for row in range(2):
            one = slice(row, row + 1)
            single = quietly(
                encoder, reader, inputs.select(inputs.ids.new_tensor([row])), _row_of(conditions, one)
            ).states
            kept = inputs.mask[one].bool()
            same = are_close(together.states[one][kept], single[kept])
            heard = not are_close(together.states[one][kept], plain.states[one][kept])
            if not same or not heard:
                raise cannot_be_told(encoder, name, "what is told of one row " + ("is lost" if same else "spreads"))
    except UNREADABLE as error:
        if isinstance(error, InputError):
            raise
        raise cannot_be_told(encoder, name, str(error).split("\n")[0]) from error


def are_close(states: torch.Tensor, expected: torch.Tensor) -> bool:
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


def quietly(
    encoder: PreTrainedModel, reader: EncoderReader, inputs: EncoderInputs, conditions: Conditions
) -> EncodedTokens:
    with trial_pass(encoder):
        return reader(Carried(encoder), inputs, conditions)


def cannot_be_told(encoder: PreTrainedModel, name: str, why: str) -> InputError:
    """Return the error that says why an encoder cannot be conditioned so."""
    return InputError(
        f"conditioning={name} does not work with the encoder {type(encoder).__name__}: {why}. Choose another, or "
        "conditioning=none."
    )
