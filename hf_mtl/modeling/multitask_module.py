"""The parts beside the encoder, put together: the model's figure."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import nn
from transformers import PreTrainedModel

from .aggregation import TASK_AGGREGATIONS
from .configuration_multitask import MultiTaskAttentionConfig
from .encoder_conditioning import TASK_CONDITIONINGS
from .encoder_reader import EncodedTokens
from .gate import TASK_GATES
from .head import HEAD_READINGS
from .interaction import build_interaction
from .label_checks import Entries
from .pooling import TASK_POOLINGS
from .problem_heads import TASK_HEADS
from .task_tensors import Carried, TaskTensors, picked

Routing = Mapping[str, Entries]


class TaskParts(NamedTuple):
    """What the parts behind the encoder compute: S, R, G, H and the logits by problem type."""

    states: torch.Tensor
    mixed: torch.Tensor
    gates: torch.Tensor
    gated: torch.Tensor
    logits: dict[str, torch.Tensor]


class TaskEncoder(nn.Module):
    """Embeds each task as a vector of unit-scale entries, the scale of the normalised states it is added to.

    A dense layer on a one-hot task (the usual form of a task encoder) is this table.

    Args:
        task_names: The tasks in order.
        hidden_size: Size of an embedding.
    """

    def __init__(self, task_names: list[str], hidden_size: int) -> None:
        super().__init__()
        self.embeddings = TaskTensors(dict.fromkeys(task_names, hidden_size), width=None, std=1.0)

    def forward(self) -> torch.Tensor:
        """Return the task embeddings (tasks, hidden)."""
        return self.embeddings()


class UnreadTaskEncoder(nn.Module):
    """Stands where no part reads task embeddings: it has none, and nothing to train.

    Args:
        num_tasks: How many tasks there are.
    """

    embeddings: torch.Tensor

    def __init__(self, num_tasks: int) -> None:
        super().__init__()
        # It goes where the model goes: the embeddings of the tasks asked are picked on the device.
        self.register_buffer("embeddings", torch.empty(num_tasks, 0), persistent=False)

    def forward(self) -> torch.Tensor:
        """Return (tasks, 0)."""
        return self.embeddings


class MultiTaskModule(nn.Module):
    """The parts beside the encoder, chosen by name; its `forward` is the model's figure."""

    def __init__(self, config: MultiTaskAttentionConfig, encoder: PreTrainedModel) -> None:
        super().__init__()
        tasks, hidden = config.task_configs, config.hidden_size
        # One task has nobody to read, to be told from or to answer with; where nothing is read, a gate has nothing to
        # hold back.
        several = len(tasks) > 1
        interaction = config.task_interaction if several else "none"
        gate = config.gate if interaction != "none" else "none"
        self.conditioning = TASK_CONDITIONINGS[config.conditioning if several else "none"](config, encoder)
        self.pooling = TASK_POOLINGS[config.pooling](config)
        self.interaction = build_interaction(interaction, config)
        self.gate = TASK_GATES[gate](config)
        self.aggregation = TASK_AGGREGATIONS[config.aggregation if several else "none"](config)
        parts = (self.conditioning, self.interaction, self.gate, self.aggregation)
        read = any(part.reads_embeddings for part in parts)
        self.task_encoder = TaskEncoder(config.task_names, hidden) if read else UnreadTaskEncoder(len(tasks))
        self.head_reading = HEAD_READINGS[config.head](config)
        self.heads = nn.ModuleDict()
        for problem_type, head in TASK_HEADS.items():
            own = {index: task for index, task in enumerate(tasks) if task.problem_type == problem_type}
            if own:
                self.heads[problem_type] = head(own, hidden, config.head_dropout)

    def forward(self, tokens: EncodedTokens, routing: Routing, asked: torch.Tensor | None = None) -> TaskParts:
        """Return every state on the way from token states Z (B, L, D) to logits.

        S = pool(Z), R = interact(S), G = gate(S), H = S + G * (R - S), head t reads H_t. Where Z depends on the task,
        its rows are those of one batch row's tasks after those of another's.

        Args:
            tokens: What the encoder said of each row.
            routing: The entries to answer.
            asked: (B, A) the tasks that each row is answered for; None for all (A = T).
        """
        embeddings = self.task_encoder()  # (T, D)
        known = None if self.interaction.reads_tasks else asked
        states = self.states(tokens, known)  # (B, T, D)
        own = states if known is asked else picked(states, asked)  # (B, A, D)
        mixed = self.interaction(states, embeddings, asked)  # (B, A, D)
        gates = self.gate(own, embeddings if asked is None else embeddings[asked])  # (B, A, D)
        gated = own + gates * (mixed - own)
        read, of_rows = self._for_encoded_rows(tokens, gated, asked)
        read, by_task = self.head_reading(tokens, read, of_rows), tokens.tasks is not None
        logits = {
            name: self.aggregation(Carried(self.heads[name]), tokens.states, read, entries, embeddings, by_task)
            for name, entries in routing.items()
        }
        return TaskParts(states, mixed, gates, gated, logits)

    def states(self, tokens: EncodedTokens, asked: torch.Tensor | None) -> torch.Tensor:
        """Return S (B, A, D) of what the encoder said of each row, or of each row and task."""
        chosen = asked if tokens.tasks is None else tokens.tasks
        states = self.conditioning.read_out(self.pooling(tokens, chosen), tokens, chosen)
        if tokens.tasks is None:
            return states
        count = self.conditioning.num_tasks if asked is None else asked.shape[1]
        return states.reshape(-1, count, states.shape[-1])

    def reads_all(self, asked: torch.Tensor | None) -> torch.Tensor | None:
        """Return the tasks to compute for each row: those asked, or None for all where a part needs all of them."""
        told = self.conditioning.conditions_encoder and self.interaction.reads_tasks
        return None if told or self.aggregation.reads_tasks else asked

    def penalties(self, tokens: EncodedTokens, states: torch.Tensor) -> torch.Tensor | None:
        """Return what the parts add to the loss of each encoded row for each task, (rows, T), or None for nothing.

        Args:
            tokens: What the encoder said of each row.
            states: S, as `forward` returned it.
        """
        found = [self.pooling.penalties(tokens)]
        if self.interaction.reads_tasks:
            count = tokens.states.shape[0] // states.shape[0]
            own = self.interaction.penalties(states, self.task_encoder())
            found.append(None if own is None else own.repeat_interleave(count, dim=0))
        known = [own for own in found if own is not None]
        return torch.stack(known).sum(dim=0) if known else None

    @staticmethod
    def _for_encoded_rows(
        tokens: EncodedTokens, states: torch.Tensor, asked: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """States and tasks for each encoded row: a batch row's again for each task that it was encoded for."""
        if tokens.tasks is None:
            return states, asked
        count = tokens.states.shape[0] // states.shape[0]
        again = None if asked is None else asked.repeat_interleave(count, dim=0)
        return states.repeat_interleave(count, dim=0), again
