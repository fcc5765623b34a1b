"""An encoder's conditions, by task: nothing, or the task's embedding in its inputs, its norms or as a token.

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
from .encoder_reader import Conditions, EncodedTokens, EncoderReader, norms_of
from .errors import InputError
from .interaction_base import reads_table
from .task_tensors import UnitScaleLinear, ZeroStartLinear, pick_tasks

# The scale of the entries of word embeddings at the start of an encoder's own training.
_WORD_SCALE = 0.02
# Longer than the windows of encoders whose tokens read only their neighbours.
_LONG = 320


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
        self.token = UnitScaleLinear(hidden, embedding_width(config, encoder), bias=False)
        self.norm = nn.LayerNorm(hidden)
        self.output = ZeroStartLinear(hidden, hidden)

    def forward(self, embeddings: torch.Tensor, tasks: torch.Tensor | None) -> Conditions:
        return Conditions(tokens=_WORD_SCALE * self.token(embeddings), reads=self.reads)

    def states(self, pool: Pool, tokens: EncodedTokens, asked_tasks: torch.Tensor | None) -> torch.Tensor:
        assert tokens.task_tokens is not None
        return pool(tokens, asked_tasks) + self.output(self.norm(pick_tasks(tokens.task_tokens, asked_tasks)))

    def check(self, encoder: PreTrainedModel, reader: EncoderReader) -> None:
        inputs = small_inputs(encoder, _LONG)
        drawn = torch.randn(self.num_tasks, self.token.out_features, device=encoder.device) * _WORD_SCALE
        conditions = Conditions(tokens=drawn, reads=self.reads)
        try:
            plain, conditioned = (quietly(encoder, reader, inputs, one) for one in (Conditions(), conditions))
            kept = inputs.mask.bool()
            same = are_close(plain.states[kept], conditioned.states[kept])
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            raise cannot_be_told(encoder, "task_tokens", str(error).split("\n")[0]) from error
        if not same:
            raise cannot_be_told(
                encoder,
                "task_tokens",
                "the states of the text, which must stay, change when tasks stand before it",
            )


TASK_CONDITIONINGS: dict[str, type[TaskConditioning]] = {
    "none": NoConditioning,
    "input_addition": InputAddition,
    "modulation": Modulation,
    "task_tokens": TaskTokens,
    "separate_encoders": SeparateNetworks,
}
