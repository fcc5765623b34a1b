"""The parts beside the encoder, put together: the model's figure."""

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple, cast

import torch
from torch import nn
from transformers import PreTrainedModel

from .aggregation import MERGED, TASK_AGGREGATIONS, build_aggregation
from .attention_scorers import ATTENTION_SCORERS
from .branch import TASK_BRANCHES
from .configuration_multitask import MultiTaskAttentionConfig, check_label_names
from .encoder_conditioning import TASK_CONDITIONINGS
from .encoder_tensors import EncodedTokens
from .errors import InputError, check_choice, check_types
from .gate import TASK_GATES
from .head import HEAD_READINGS
from .interaction import TASK_INTERACTIONS, build_interaction
from .interaction_mran import RELATION_MIXINGS, RELATION_NORMS, RELATIONS
from .label_checks import Entries
from .pooling import TASK_POOLINGS
from .problem_heads import TASK_HEADS
from .setting_names import SETTINGS
from .task_config import check_tasks
from .task_head import TaskHead
from .task_parents import build_parents
from .task_tensors import Carried, TaskTensors, pick_tasks
from .trace_norm import TraceNorm
from .trunks import ModalityPooling, check_trunks

Routing = Mapping[str, Entries]

# What settings that are sizes must be at least.
_LEAST_SIZES = {
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
    "task_token_position": 0,
    "conditioning_heads": 1,
    "adapter_size": 1,
    "attention_blocks": 1,
    "attention_block_size": 1,
}


# Settings that are names, and of what.
CHOICES: dict[str, Collection[str]] = {
    "conditioning": TASK_CONDITIONINGS,
    "pooling": TASK_POOLINGS,
    "pooling_scorer": ATTENTION_SCORERS,
    "task_interaction": TASK_INTERACTIONS,
    "branch": TASK_BRANCHES,
    "attention_scorer": ATTENTION_SCORERS,
    "relation_norm": RELATION_NORMS,
    "relation_mixing": RELATION_MIXINGS,
    "gate": TASK_GATES,
    "head": HEAD_READINGS,
    "aggregation": TASK_AGGREGATIONS,
    "aggregation_of": MERGED,
}


class TaskParts(NamedTuple):
    """The states that the parts behind the encoder compute: S, R, G, H and the logits by problem type."""

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
        has_trunks = len(config.modalities or ()) > 1
        self.modality_pooling = ModalityPooling(config) if has_trunks else None
        self.interaction = build_interaction(interaction, config)
        self.gate = TASK_GATES[gate](config)
        self.aggregation = build_aggregation(
            config.aggregation if several else "none", config, self.interaction.has_branches
        )
        if (outputs := self.aggregation.output_readers()) is not None:
            self.interaction.leave_out(outputs)
        parts = (self.conditioning, self.interaction, self.gate, self.aggregation)
        read = any(part.reads_embeddings for part in parts)
        self.task_encoder = TaskEncoder(config.task_names, hidden) if read else UnreadTaskEncoder(len(tasks))
        self.head_reading = HEAD_READINGS[config.head](config)
        self.task_parents = build_parents(config)
        self.heads = nn.ModuleDict()
        for problem_type, head in TASK_HEADS.items():
            tasks_of_type = {index: task for index, task in enumerate(tasks) if task.problem_type == problem_type}
            if tasks_of_type:
                self.heads[problem_type] = head.build(tasks_of_type, hidden, config.head_dropout, encoder)
        self.trace_norm = TraceNorm(config, cast(Mapping[str, TaskHead], dict(self.heads.items())))
        self._check_words(config.conditioning)
        if has_trunks:
            check_trunks(config, self.interaction, self.head_reading)

    def _check_words(self, conditioning: str) -> None:
        """Raise `InputError` where a head reads word embeddings of which there are several."""
        heads = cast(Iterable[TaskHead], self.heads.values())
        names = [task.name for head in heads if head.reads_words for task in head.tasks.values()]
        if names and self.conditioning.several_encoders is not None:
            raise InputError(
                f"Task {names[0]!r} learns word pieces by the encoder's word embeddings, and with "
                f"conditioning={conditioning} there are several. Write conditioning=none, or leave the task out."
            )

    def forward(self, tokens: EncodedTokens, routing: Routing, asked_tasks: torch.Tensor | None = None) -> TaskParts:
        """Return every state on the way from token states Z (B, L, D) to logits.

        S = pool(Z), R = interact(S), G = gate(S), H = S + G * (R - S), head t reads H_t, and what its parents' heads
        say. Where Z depends on the task, its rows are those of one batch row's tasks after those of another's.

        Args:
            tokens: What the encoder said of each row.
            routing: The entries to answer.
            asked_tasks: (B, A) the tasks that each row is answered for; None for all (A = T).
        """
        embeddings = self.task_encoder()  # (T, D)
        read_tasks = None if self.interaction.reads_tasks else asked_tasks
        states = self.states(tokens, read_tasks)  # (B, T, D)
        task_states = states if read_tasks is asked_tasks else pick_tasks(states, asked_tasks)  # (B, A, D)
        mixed = self.interaction(states, embeddings, asked_tasks, tokens)  # (B, A, D)
        gates = self.gate(task_states, embeddings if asked_tasks is None else embeddings[asked_tasks])  # (B, A, D)
        gated = task_states + gates * (mixed - task_states)
        read, of_rows = self._for_encoded_rows(tokens, gated, asked_tasks)
        read, by_task = self.head_reading(tokens, read, of_rows), tokens.tasks is not None
        read = self.task_parents(Carried(self.heads), tokens.states, read, by_task)
        logits = {
            name: self.aggregation(Carried(self.heads[name]), tokens.states, read, entries, embeddings, by_task)
            for name, entries in routing.items()
        }
        return TaskParts(states, mixed, gates, gated, logits)

    def states(self, tokens: EncodedTokens, asked_tasks: torch.Tensor | None) -> torch.Tensor:
        """Return S (B, A, D) of what the encoder said of each row, or of each row and task."""
        if self.modality_pooling is not None:
            return self.modality_pooling(self.pooling, tokens, asked_tasks)
        tasks = asked_tasks if tokens.tasks is None else tokens.tasks
        states = self.conditioning.states(self.pooling, tokens, tasks)
        if tokens.tasks is None:
            return states
        count = self.conditioning.num_tasks if asked_tasks is None else asked_tasks.shape[1]
        return states.reshape(-1, count, states.shape[-1])

    def reads_all(self, asked_tasks: torch.Tensor | None) -> torch.Tensor | None:
        """Return the tasks to compute for each row: those asked, or None for all where a part needs all of them."""
        conditions_all = self.conditioning.conditions_encoder and self.interaction.reads_tasks
        answers = self.aggregation.reads_tasks or self.task_parents.reads_tasks
        return None if conditions_all or answers else asked_tasks

    def penalties(self, tokens: EncodedTokens, states: torch.Tensor) -> torch.Tensor | None:
        """Return what the parts add to the loss of each encoded row for each task, (rows, T), or None for nothing.

        Args:
            tokens: What the encoder said of each row.
            states: S, as `forward` returned it.
        """
        parts = [self.pooling.penalties(tokens), self.conditioning.penalties(self.pooling, tokens)]
        if self.interaction.reads_tasks:
            count = tokens.states.shape[0] // states.shape[0]
            part = self.interaction.penalties(states, self.task_encoder(), tokens)
            parts.append(None if part is None else part.repeat_interleave(count, dim=0))
        if (norms := self.trace_norm(Carried(self.heads))) is not None:
            parts.append(norms.expand(tokens.states.shape[0], -1))
        present_penalties = [part for part in parts if part is not None]
        return torch.stack(present_penalties).sum(dim=0) if present_penalties else None

    @torch.no_grad()
    def measurements(self, tokens: EncodedTokens, states: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return by name what the parts measure of each encoded row for each task, (rows, T); see `penalties`."""
        measured = self.conditioning.measurements(tokens)
        if self.interaction.reads_tasks:
            count = tokens.states.shape[0] // states.shape[0]
            for name, values in self.interaction.measurements(states, self.task_encoder(), tokens).items():
                # Two parts may measure the same thing.
                key = f"interaction_{name}" if name in measured else name
                measured[key] = values.repeat_interleave(count, dim=0)
        return measured

    @staticmethod
    def _for_encoded_rows(
        tokens: EncodedTokens, states: torch.Tensor, asked_tasks: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """States and tasks for each encoded row: a batch row's again for each task that it was encoded for."""
        if tokens.tasks is None:
            return states, asked_tasks
        count = tokens.states.shape[0] // states.shape[0]
        again = None if asked_tasks is None else asked_tasks.repeat_interleave(count, dim=0)
        return states.repeat_interleave(count, dim=0), again


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
    for name, least in _LEAST_SIZES.items():
        if getattr(config, name) is not None and getattr(config, name) < least:
            raise InputError(f"{name}={getattr(config, name)!r}; expected a whole number >= {least}.")
    for name in ("interaction_dropout", "head_dropout"):
        if not 0 <= getattr(config, name) <= 1:
            raise InputError(f"{name}={getattr(config, name)!r}; expected a number from 0 to 1.")
    if config.task_token_scale is not None and not config.task_token_scale > 0:
        raise InputError(f"task_token_scale={config.task_token_scale!r}; expected a number > 0.")
    for name in ("relation_penalty", "parameter_penalty", "adversarial_weight", "orthogonality_weight", "trace_norm"):
        if getattr(config, name) < 0:
            raise InputError(f"{name}={getattr(config, name)!r}; expected a number >= 0.")


__all__ = ["CHOICES", "MultiTaskModule", "Routing", "TaskEncoder", "TaskParts", "UnreadTaskEncoder", "check_config"]
