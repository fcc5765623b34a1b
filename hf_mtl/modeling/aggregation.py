"""Answers of tasks that share a label space become one: not at all, by a weighted mean, by learned weights.

To add a way, write its class and its line in `TASK_AGGREGATIONS`.
"""

from collections.abc import Mapping

import torch
from torch import nn

from .attention_scorers import ATTENTION_SCORERS
from .configuration_multitask import MultiTaskAttentionConfig
from .errors import InputError, check_choice
from .gate import AdditiveScore
from .interaction_base import attention_weights, reads_table
from .label_checks import Entries
from .problem_heads import TASK_HEADS
from .task_config import TaskConfig
from .task_head import TaskHead
from .task_tensors import Carried, ModuleWithConstants, TaskTensors

MERGED = ("logits", "probabilities")


class TaskAggregation(ModuleWithConstants):
    """Each task answers alone. What merges the answers of several tasks to one row is a subclass.

    Args:
        config: The tasks.
    """

    reads_embeddings = False
    # Whether a task's answer depends on other tasks' states.
    reads_tasks = False

    def __init__(self, config: MultiTaskAttentionConfig) -> None:
        super().__init__()

    def output_readers(self) -> list[list[bool]] | None:
        """Return of which tasks each reads outputs in place of states, (tasks, tasks), or None for none."""
        return None

    def forward(
        self,
        carried: Carried,
        token_states: torch.Tensor,
        task_states: torch.Tensor,
        entries: Entries,
        embeddings: torch.Tensor,
        rows_by_task: bool = False,
    ) -> torch.Tensor:
        """Return the entries' logits; see `TaskHead.forward`.

        Args:
            carried: The heads of the entries' tasks.
            token_states: (batch, length, hidden).
            task_states: (batch, tasks, hidden).
            entries: The entries of one problem type.
            embeddings: (tasks, hidden) task embeddings.
            rows_by_task: Whether rows are those of one text for each task, one after the other.
        """
        return carried.module(token_states, task_states, entries)


class MeanAggregation(TaskAggregation):
    """y_t = sum_i W_i Y_i / sum_i W_i over the tasks i of t's label space that t reads, itself included.

    Y are logits, or with ``aggregation_of="probabilities"`` probabilities (what is returned is their logit again). The
    mean is one from the first step, whatever the weights: this part does not start closed.

    Args:
        config: `aggregation_weights` gives W by task name, 1 where it is silent.

    Raises:
        InputError: No two tasks share a label space, a weight is negative or of an unknown task, or all weights of a
            label space are 0.
    """

    reads_tasks = True
    partners: torch.Tensor
    counted: torch.Tensor
    given: torch.Tensor

    def __init__(self, config: MultiTaskAttentionConfig) -> None:
        super().__init__(config)
        partners = partners_of(config)
        if max(map(len, partners)) < 2:
            raise InputError(
                f"aggregation={config.aggregation} merges tasks with the same labels (or regressions of one scale); "
                "no two tasks here have them. Leave it out."
            )
        widest = max(map(len, partners))
        # A task with fewer partners than another has itself in the remaining places, without weight.
        filled = [
            [*of_task, *[task] * (widest - len(of_task))] for task, of_task in enumerate(partners)
        ]  # (tasks, partners)
        self.set_constant("partners", filled)
        counted = [[1.0] * len(of_task) + [0.0] * (widest - len(of_task)) for of_task in partners]
        self.set_constant("counted", counted)
        self.of_probabilities = config.aggregation_of == "probabilities"
        given: Mapping[str, float] = config.aggregation_weights or {}
        for name, weight in given.items():
            check_choice("task in aggregation_weights", name, config.task_names)
            if weight < 0:
                raise InputError(f"aggregation_weights of {name!r} is {weight!r}; expected a number >= 0.")
        weights = [float(given.get(name, 1.0)) for name in config.task_names]
        self.set_constant("given", weights)
        if any(not any(weights[partner] for partner in of_task) for of_task in partners):
            raise InputError("aggregation_weights are 0 for every task of a label space; give one of them a weight.")

    def forward(
        self,
        carried: Carried,
        token_states: torch.Tensor,
        task_states: torch.Tensor,
        entries: Entries,
        embeddings: torch.Tensor,
        rows_by_task: bool = False,
    ) -> torch.Tensor:
        head: TaskHead = carried.module
        logits = head(token_states, task_states, entries)
        if all(head.label_space(task) is None for task in head.tasks.values()):
            return logits
        tasks, rows = entries["tasks"].unsqueeze(1), entries["rows"].unsqueeze(1)  # (N, 1)
        partners = self.partners[entries["tasks"]]  # (N, partners)
        # A partner reads the text as it was encoded for it.
        rows = rows + (partners - tasks) * rows_by_task
        asked_tasks = {"rows": rows.flatten(), "tasks": partners.flatten(), "slots": partners.flatten()}
        answers = head(token_states, task_states, asked_tasks).unflatten(0, partners.shape)  # (N, partners, outputs)
        weights = self.weights(task_states, embeddings, rows, tasks, partners)
        weights = self.counted.to(logits)[entries["tasks"]] * weights
        weights = (weights / weights.sum(dim=1, keepdim=True).clamp(min=1e-12)).unsqueeze(-1)
        if self.of_probabilities:
            merged = head.merge_probabilities(answers, weights)
        else:
            merged = (weights * answers.masked_fill(answers.isinf(), 0.0)).sum(dim=1)
        # Outputs that a task does not have stay what they are.
        return self.blended(logits, torch.where(logits.isinf(), logits, merged), entries["tasks"])

    def weights(
        self,
        task_states: torch.Tensor,
        embeddings: torch.Tensor,
        rows: torch.Tensor,
        tasks: torch.Tensor,
        partners: torch.Tensor,
    ) -> torch.Tensor:
        """Return W (N, partners), each at least 0.

        Args:
            task_states: (batch, tasks, hidden).
            embeddings: (tasks, hidden).
            rows: (N, partners or 1) the rows that they read.
            tasks: (N, 1) the tasks that are answered.
            partners: (N, partners) the tasks whose answers are merged.
        """
        return self.given.to(task_states)[partners]

    def blended(self, logits: torch.Tensor, merged: torch.Tensor, tasks: torch.Tensor) -> torch.Tensor:
        """Return the logits of entries (N, outputs) of what their own heads and all of them together say."""
        return merged


class ScaledAggregation(MeanAggregation):
    """A mean that enters by a scale of the task's own: y_t + tanh(g_t) (merged - y_t).

    g is 0 at the start, so that each task begins alone.
    """

    reads_embeddings = True
    places: torch.Tensor

    def __init__(self, config: MultiTaskAttentionConfig) -> None:
        super().__init__(config)
        has_no_partner = [len(partners) < 2 for partners in partners_of(config)]
        merged = [name for name, single in zip(config.task_names, has_no_partner) if not single]
        self.scale = TaskTensors(dict.fromkeys(merged, 1), width=None, std=0.0)
        # Each task's place among the scales; tasks that merge nothing have the one past the end, which is 0.
        places = [merged.index(name) if name in merged else len(merged) for name in config.task_names]
        self.set_constant("places", places)

    def blended(self, logits: torch.Tensor, merged: torch.Tensor, tasks: torch.Tensor) -> torch.Tensor:
        scales = nn.functional.pad(self.scale().tanh(), (0, 0, 0, 1))
        share = scales[self.places][tasks]  # (N, 1)
        return torch.where(logits.isinf(), logits, logits + share * torch.where(logits.isinf(), 0.0, merged - logits))


class LearnedAggregation(ScaledAggregation):
    """W_i = sigmoid(v . tanh(U LN(S_i) + V tanh(W e_i)) + c), from each task's state and embedding.

    Args:
        config: Gives `gate_size`, the width of U and V.
    """

    def __init__(self, config: MultiTaskAttentionConfig) -> None:
        super().__init__(config)
        self.scores = AdditiveScore(config, outputs=1)

    def weights(
        self,
        task_states: torch.Tensor,
        embeddings: torch.Tensor,
        rows: torch.Tensor,
        tasks: torch.Tensor,
        partners: torch.Tensor,
    ) -> torch.Tensor:
        scores = self.scores(task_states, embeddings).squeeze(-1)  # (batch, tasks)
        return self.given.to(scores)[partners] * scores.sigmoid()[rows, partners]


class AttentionAggregation(ScaledAggregation):
    """y_t = sum_i a_ti Y_i over the tasks i of t's label space, a_t = softmax_i(score(LN(S_t) + e_t, LN(S_i) + e_i)).

    `attention_over_heads` beside it sums the states of the other tasks alone. A scorer of several heads gives the mean
    of their weights; `aggregation_weights` multiply them.

    Args:
        config: Gives `attention_scorer` and `interaction_heads`.
    """

    partner_table: torch.Tensor

    def __init__(self, config: MultiTaskAttentionConfig) -> None:
        super().__init__(config)
        self.norm = nn.LayerNorm(config.hidden_size)
        self.scorer = ATTENTION_SCORERS[config.attention_scorer](config.hidden_size, config.interaction_heads)
        tasks = range(len(config.task_names))
        table = [[other in of_task for other in tasks] for of_task in map(set, partners_of(config))]
        self.set_constant("partner_table", table)

    def output_readers(self) -> list[list[bool]]:
        return [
            [is_read and other != task for other, is_read in enumerate(row)]
            for task, row in enumerate(self.constants["partner_table"])
        ]

    def weights(
        self,
        task_states: torch.Tensor,
        embeddings: torch.Tensor,
        rows: torch.Tensor,
        tasks: torch.Tensor,
        partners: torch.Tensor,
    ) -> torch.Tensor:
        readable = self.norm(task_states) + embeddings
        scores = self.scorer(readable, readable).masked_fill(~self.partner_table, float("-inf"))
        weights = attention_weights(scores).mean(dim=1)  # (batch, tasks, tasks)
        # States are those of the row that is encoded for the task itself.
        row = rows.expand_as(partners).gather(1, (partners == tasks).long().argmax(dim=1, keepdim=True))
        return self.given.to(weights)[partners] * weights[row, tasks, partners]


def partners_of(config: MultiTaskAttentionConfig) -> list[list[int]]:
    """Return for each task the tasks of its label space that it reads, itself included."""
    tasks, reads = config.task_configs, reads_table(config)
    spaces: dict[object, list[int]] = {}
    for index, task in enumerate(tasks):
        spaces.setdefault(_label_space(index, task), []).append(index)
    return [
        [other for other in spaces[_label_space(index, task)] if reads[index][other]]
        for index, task in enumerate(tasks)
    ]


def _label_space(index: int, task: TaskConfig) -> object:
    """Return what two tasks have in common if their answers can be merged; a task's own index where they cannot."""
    space = TASK_HEADS[task.problem_type].label_space(task)
    return index if space is None else space


def build_aggregation(name: str, config: MultiTaskAttentionConfig, sums_branches: bool) -> TaskAggregation:
    """Return a part by its name; beside attention over branches, attention over outputs of no two tasks is none.

    Args:
        name: Of `TASK_AGGREGATIONS`.
        config: The tasks.
        sums_branches: Whether the interaction sums the tasks' branches.

    Raises:
        InputError: There are weights for nothing; or see the part.
    """
    if name == "attention" and sums_branches and max(map(len, partners_of(config))) < 2:
        if config.aggregation_weights:
            raise InputError(
                "aggregation_weights weigh answers of tasks with the same labels; no two tasks here have them. Leave "
                "it out."
            )
        name = "none"
    return TASK_AGGREGATIONS[name](config)


TASK_AGGREGATIONS: dict[str, type[TaskAggregation]] = {
    "none": TaskAggregation,
    "mean": MeanAggregation,
    "learned": LearnedAggregation,
    "attention": AttentionAggregation,
}
