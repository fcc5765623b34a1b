"""An encoder's conditions, by task: nothing, or the task in its inputs, its norms, its layers or as a token.

To add a way, write its class and its line in `TASK_CONDITIONINGS`. Each starts as if nothing were told.
"""

import torch
from torch import nn
from transformers import PreTrainedModel

from .configuration_multitask import MultiTaskAttentionConfig
from .encoder_conditioning_base import (
    Pool,
    TaskConditioning,
    are_close,
    cannot_be_told,
    check_rows_apart,
    embedding_width,
    quietly,
    small_inputs,
)
from .encoder_conditioning_layers import ConditionalAttention, HyperAdapters, ProjectedAttentionLayers
from .encoder_conditioning_private import PrivateNetworks
from .encoder_modules import first_position, norms_of, position_table
from .encoder_reader import Conditions, EncoderReader
from .encoder_tensors import EncodedTokens
from .errors import InputError
from .interaction_base import reads_table
from .separate_encoders import SeparateEncoders
from .task_tensors import UnitScaleLinear, ZeroStartLinear, pick_tasks
from .trial_pass import UNREADABLE

# The scale of the entries of word embeddings at the start of an encoder's own training, where it cannot be measured.
_WORD_SCALE = 0.02
# Words whose embeddings are measured.
_MEASURED_WORDS = 4096
# A position's embedding is of ordinary norm up to so many times the median.
_ORDINARY = 2.0
# Longer than the windows of encoders whose tokens read only their neighbours.
_LONG = 320


class NoConditioning(TaskConditioning):
    """The encoder knows of no task: one pass answers all."""

    reads_embeddings = False
    reads_words = False

    def forward(self, embeddings: torch.Tensor, tasks: torch.Tensor | None) -> Conditions:
        return Conditions()


class SeparateNetworks(NoConditioning):
    """An encoder of each task's own: nothing is shared below the parts."""

    conditions_encoder = True
    several_encoders = SeparateEncoders


class InputAddition(TaskConditioning):
    """The task's embedding is added to every word embedding: X'_l = X_l + W e_t, before the encoder's first norm.

    W starts at zero.
    """

    conditions_encoder = True

    def __init__(self, config: MultiTaskAttentionConfig, encoder: PreTrainedModel) -> None:
        super().__init__(config, encoder)
        self.output = ZeroStartLinear(config.hidden_size, embedding_width(config, encoder), bias=False)

    def forward(self, embeddings: torch.Tensor, tasks: torch.Tensor | None) -> Conditions:
        return Conditions(added=self.output(embeddings)[tasks])

    def check(self, encoder: PreTrainedModel, reader: EncoderReader) -> None:
        drawn = torch.randn(2, self.output.out_features, device=encoder.device)
        check_rows_apart(encoder, reader, "input_addition", Conditions(added=drawn))


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
        check_rows_apart(encoder, reader, "modulation", Conditions(scales=drawn[0], shifts=drawn[1]))


class TaskTokens(TaskConditioning):
    """A token for each task stands in front of the text: one pass of the encoder's own attention gives each task a
    state, S_t = pool(Z)_t + W z_t, and lets tasks read each other.

    Text reads no task's token and keeps its positions, so that its states are those of the encoder alone; a task's
    token reads the text and the tokens of the tasks that it `reads`. W starts at zero. The tokens make a row longer
    by the number of tasks.

    Tokens have the scale of the encoder's word embeddings and stand all at one position, not a text's first: there
    encoders learn a heavy embedding for the token that every text begins with, beside which no task would be heard.

    Args:
        config: Gives the tasks and their `reads`, `task_token_position` and `task_token_scale`; where these are None
            they become what is measured of the encoder, so that they are saved.
        encoder: The encoder.

    Raises:
        InputError: The encoder takes no word embeddings, or its pooler would read a task's token; no such position.
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
        if config.task_token_position is None:
            config.task_token_position = _ordinary_position(encoder)
        if config.task_token_scale is None:
            config.task_token_scale = _word_scale(encoder)
        self.place, self.scale = config.task_token_position, config.task_token_scale
        _check_position(encoder, self.place)
        self.set_constant("reads", reads_table(config))
        self.token = UnitScaleLinear(hidden, embedding_width(config, encoder), bias=False)
        self.norm = nn.LayerNorm(hidden)
        self.output = ZeroStartLinear(hidden, hidden)

    def forward(self, embeddings: torch.Tensor, tasks: torch.Tensor | None) -> Conditions:
        return Conditions(tokens=self.scale * self.token(embeddings), reads=self.reads, place=self.place)

    def states(self, pool: Pool, tokens: EncodedTokens, asked_tasks: torch.Tensor | None) -> torch.Tensor:
        assert tokens.task_tokens is not None
        return pool(tokens, asked_tasks) + self.output(self.norm(pick_tasks(tokens.task_tokens, asked_tasks)))

    def check(self, encoder: PreTrainedModel, reader: EncoderReader) -> None:
        inputs = small_inputs(encoder, _LONG)
        drawn = torch.randn(self.num_tasks, self.token.out_features, device=encoder.device) * self.scale
        conditions = Conditions(tokens=drawn, reads=self.reads, place=self.place)
        try:
            plain, conditioned = (quietly(encoder, reader, inputs, one) for one in (Conditions(), conditions))
            kept = inputs.mask.bool()
            same = are_close(plain.states[kept], conditioned.states[kept])
        except UNREADABLE as error:
            raise cannot_be_told(encoder, "task_tokens", str(error).split("\n")[0]) from error
        if not same:
            raise cannot_be_told(
                encoder,
                "task_tokens",
                "the states of the text, which must stay, change when tasks stand before it",
            )


def _ordinary_position(encoder: PreTrainedModel) -> int:
    """Return the first of a text's positions, from 0 and but the very first, whose embedding is of ordinary norm."""
    table = position_table(encoder)
    if table is None or table.weight.device.type == "meta":
        return 1
    norms = table.weight.detach()[first_position(encoder) :].float().norm(dim=1)
    ordinary = norms[1:] <= _ORDINARY * norms.median()
    return 1 + int(ordinary.long().argmax())


@torch.no_grad()
def _word_scale(encoder: PreTrainedModel) -> float:
    """Return the root mean square of the entries of an encoder's word embeddings, three digits of it."""
    words = encoder.get_input_embeddings()
    if not isinstance(words, nn.Embedding) or words.weight.device.type == "meta":
        return _WORD_SCALE
    # Called, since some multiply what their table holds.
    ids = torch.arange(
        0, words.num_embeddings, -(-words.num_embeddings // _MEASURED_WORDS), device=words.weight.device
    )
    return float(f"{words(ids).float().square().mean().sqrt().item():.3g}") or _WORD_SCALE


def _check_position(encoder: PreTrainedModel, place: int) -> None:
    table = position_table(encoder)
    count = None if table is None else table.num_embeddings - first_position(encoder)
    if count is not None and place >= count:
        raise InputError(
            f"task_token_position={place}; the encoder has the positions 0 to {count - 1}. Leave it out, and it is "
            "measured."
        )


TASK_CONDITIONINGS: dict[str, type[TaskConditioning]] = {
    "none": NoConditioning,
    "input_addition": InputAddition,
    "modulation": Modulation,
    "task_tokens": TaskTokens,
    "projected_attention_layers": ProjectedAttentionLayers,
    "hyper_adapters": HyperAdapters,
    "conditional_attention": ConditionalAttention,
    "separate_encoders": SeparateNetworks,
    "private_encoders": PrivateNetworks,
}
