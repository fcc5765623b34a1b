"""Multiple relational attention (Zhao et al. 2019): relations of tasks, of features, and of tasks with features."""

import torch
from torch import nn

from .attention_scorers import ATTENTION_SCORERS, AttentionScorer, merge_heads, split_heads
from .configuration_multitask import MultiTaskAttentionConfig
from .errors import InputError
from .interaction_base import ScaledInteraction, attention_weights, reads_table, relation_penalty

RELATIONS = ("task_task", "feature_feature", "task_feature")


class MultipleRelations(ScaledInteraction):
    """The three modules of MRAN on task states instead of on columns of a whole sample.

    The paper attends over vectors as long as the sample, which depend on the batch, and drops what needs labels at
    test time; here a task's vector is its state, and its features are groups of that state's entries.

    - task_task: H = LN(Y + softmax(S) Y). The paper's form for scorers of one head, BN(y_j + a_j y_j) with a =
      softmax_j(sum_i S_ij), multiplies each task by a number that the normalisation takes away again.
    - feature_feature: F = LN(X + softmax(S) X) over the groups of each task's state.
    - task_feature: LN(F + n alpha * F), alpha_t = softmax_j(score(h_t, f_tj)) over the n groups (the paper has no n,
      which makes the mean of what multiplies 1).

    `relation_penalty` times the sum of a task's squared scores of tasks it reads is added to its loss (the paper's
    gamma |S|^2). Each module can be left out; LayerNorm stands where the paper has batch norm, which several tasks in
    a batch break.

    Args:
        config: Gives `mran_relations`, `attention_scorer`, `interaction_heads`, `feature_groups` and
            `relation_penalty`.

    Raises:
        InputError: No relation, an unknown one, or groups that do not divide the hidden size.
    """

    reads: torch.Tensor

    def __init__(self, config: MultiTaskAttentionConfig) -> None:
        super().__init__(config)
        hidden, groups, heads = config.hidden_size, config.feature_groups, config.interaction_heads
        relations = list(config.mran_relations)
        if not relations:
            raise InputError(f"mran_relations is empty; expected some of {', '.join(RELATIONS)}.")
        self.reads_embeddings = "task_task" in relations
        if hidden % groups:
            raise InputError(f"feature_groups={groups} does not divide the encoder's hidden size {hidden}.")
        scorer = ATTENTION_SCORERS[config.attention_scorer]
        self.groups, self.penalty = groups, config.relation_penalty
        self.set_constant("reads", reads_table(config))
        self.task_task = TaskTask(scorer(hidden, heads), hidden) if "task_task" in relations else None
        self.feature_feature = (
            FeatureFeature(scorer(hidden // groups, 1), hidden, groups) if "feature_feature" in relations else None
        )
        self.task_feature = (
            TaskFeature(scorer(hidden // groups, 1), hidden, groups) if "task_feature" in relations else None
        )

    def mix(self, states: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
        tasks = states if self.task_task is None else self.task_task(states, embeddings, self.reads)
        features = tasks if self.feature_feature is None else self.feature_feature(tasks)
        return features if self.task_feature is None else self.task_feature(tasks, features)

    def weights(self, states: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor | None:
        if self.task_task is None:
            return None
        return self.task_task.weights(states, embeddings, self.reads)

    def penalties(self, states: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor | None:
        if self.task_task is None or not self.penalty:
            return None
        scores = self.task_task.scores(states, embeddings, self.reads)
        return self.penalty * relation_penalty(scores)


class TaskTask(nn.Module):
    """Tasks read each other."""

    def __init__(self, scorer: AttentionScorer, hidden_size: int) -> None:
        super().__init__()
        self.scorer, self.norm, self.after = scorer, nn.LayerNorm(hidden_size), nn.LayerNorm(hidden_size)

    def forward(self, states: torch.Tensor, embeddings: torch.Tensor, reads: torch.Tensor) -> torch.Tensor:
        weights = self.weights(states, embeddings, reads)
        return self.after(states + merge_heads(weights @ split_heads(states, self.scorer.num_heads)))

    def weights(self, states: torch.Tensor, embeddings: torch.Tensor, reads: torch.Tensor) -> torch.Tensor:
        """Return (batch, heads, tasks, tasks)."""
        return attention_weights(self.scores(states, embeddings, reads))

    def scores(self, states: torch.Tensor, embeddings: torch.Tensor, reads: torch.Tensor) -> torch.Tensor:
        """Return S (batch, heads, tasks, tasks), -inf where a task does not read another."""
        readable = self.norm(states) + embeddings
        return self.scorer(readable, readable).masked_fill(~reads, float("-inf"))


class FeatureFeature(nn.Module):
    """Groups of a state's entries read each other."""

    def __init__(self, scorer: AttentionScorer, hidden_size: int, groups: int) -> None:
        super().__init__()
        self.scorer, self.groups, self.after = scorer, groups, nn.LayerNorm(hidden_size)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        features = states.unflatten(-1, (self.groups, -1))  # (batch, tasks, groups, size)
        weights = attention_weights(self.scorer(features, features)).squeeze(-3)
        return self.after(states + (weights @ features).flatten(-2))


class TaskFeature(nn.Module):
    """Each task weighs the groups of its features by how they score with those of its own state."""

    def __init__(self, scorer: AttentionScorer, hidden_size: int, groups: int) -> None:
        super().__init__()
        self.scorer, self.groups, self.after = scorer, groups, nn.LayerNorm(hidden_size)

    def forward(self, tasks: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        asking = tasks.unflatten(-1, (self.groups, -1)).mean(dim=-2, keepdim=True)  # (batch, tasks, 1, size)
        parts = features.unflatten(-1, (self.groups, -1))  # (batch, tasks, groups, size)
        weights = (
            attention_weights(self.scorer(asking, parts)).squeeze(-3).transpose(-1, -2)
        )  # (batch, tasks, groups, 1)
        return self.after(features + (self.groups * weights * parts).flatten(-2))


__all__ = ["FeatureFeature", "MultipleRelations", "RELATIONS", "TaskFeature", "TaskTask"]
