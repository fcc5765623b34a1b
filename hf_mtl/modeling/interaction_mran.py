"""Multiple relational attention (Zhao et al. 2019): relations of tasks, of features, and of tasks with features."""

import torch
from torch import nn

from .attention_scorers import ATTENTION_SCORERS, WeighedValues
from .branch import expert_size
from .configuration_multitask import MultiTaskAttentionConfig
from .encoder_tensors import EncodedTokens
from .errors import InputError
from .interaction_base import ScaledInteraction, attention_weights, reads_table, relation_penalty
from .interaction_experts import read_by_all
from .task_tensors import TaskTensors, UnitScaleLinear

RELATIONS = ("task_task", "feature_feature", "task_feature")
RELATION_NORMS = ("layer", "batch")
RELATION_MIXINGS = ("read", "rescale")


class MultipleRelations(ScaledInteraction):
    """MRAN's modules on states instead of on columns of a whole sample: a task's vector y_t is its state, the features
    x_j that all tasks share are groups of the entries of their mean state.

    - task_task: H = norm(Y + A Y), A = softmax_j(S), S_ij = score(LN(y_i) + e_i, LN(y_j) + e_j).
    - feature_feature: F = norm(X + A X), likewise of features.
    - task_feature: X_t = norm(F + alpha_t * F), alpha_t = softmax_j(score(W h_t, f_j)).
    - The predictor's two layers, relu(W_2 relu(W_1 X_t + b_1) + b_2), are the task's own; the third is its head.

    A scorer of several heads has values in each and an output matrix behind them. `relation_penalty` times the sum of
    a task's squared scores of tasks is added to its loss, and `parameter_penalty` times the squares of the matrices
    that it reads here: gamma |S|^2 and beta |Theta|^2 of the paper's objective.

    The paper's vectors are as long as the sample, depend on the batch, and need labels. Its form for scorers of one
    head, `relation_mixing: rescale`, multiplies y_j by a_j = softmax_j(sum_i S_ij) and mixes no tasks; behind a layer
    norm, which takes a factor away again, that module does nothing.

    Args:
        config: Gives `mran_relations`, `attention_scorer`, `interaction_heads`, `feature_groups`, `relation_norm`,
            `relation_mixing`, `relation_penalty`, `parameter_penalty` and `expert_size`.

    Raises:
        InputError: No relation, groups that do not divide the hidden size or heads their size, or settings that do
            not go together.
    """

    reads: torch.Tensor
    common: torch.Tensor

    def __init__(self, config: MultiTaskAttentionConfig) -> None:
        super().__init__(config)
        hidden, groups, relations = config.hidden_size, config.feature_groups, list(config.mran_relations)
        if not relations:
            raise InputError(f"mran_relations is empty; expected some of {', '.join(RELATIONS)}.")
        if len(set(relations)) < len(relations):
            raise InputError(f"mran_relations={relations!r} names one twice; name each once.")
        if hidden % groups:
            raise InputError(f"feature_groups={groups} does not divide the encoder's hidden size {hidden}.")
        self.reads_embeddings = "task_task" in relations
        self.groups, self.decay = groups, config.parameter_penalty
        self.penalty = config.relation_penalty if "task_task" in relations else 0.0
        self.set_constant("reads", reads_table(config))
        if config.relation_mixing == "rescale" and not all(map(all, reads_table(config))):
            raise InputError(
                "relation_mixing=rescale weighs a task among all tasks; `reads` needs relation_mixing=read."
            )
        self.task_task = _TaskTask(config) if "task_task" in relations else None
        self.feature_feature = _FeatureFeature(config) if "feature_feature" in relations else None
        self.task_feature = _TaskFeature(config) if "task_feature" in relations else None
        self.shares_features = relations != ["task_task"]
        if self.shares_features:
            self.set_constant("common", read_by_all(config))
        self.predictor = _TaskPredictor(config)
        # By name: what wraps a layer later (an adapter) is asked in its place.
        layers = {name: module for name, module in self.named_modules() if isinstance(module, nn.Linear)}
        self.matrices = {name: layer.in_features for name, layer in layers.items()}

    def mix(self, states: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
        tasks = states if self.task_task is None else self.task_task(states, embeddings, self.reads)
        if not self.shares_features:
            return self.predictor(tasks)
        features = states.index_select(1, self.common).mean(dim=1).unflatten(-1, (self.groups, -1))
        if self.feature_feature is not None:
            features = self.feature_feature(features)
        if self.task_feature is not None:
            return self.predictor(self.task_feature(tasks, features))
        shared = features.flatten(1).unsqueeze(1).expand_as(states)
        # Without alignment what tasks say of each other stands beside the features.
        return self.predictor(shared if self.task_task is None else shared + tasks)

    def weights(
        self, states: torch.Tensor, embeddings: torch.Tensor, tokens: EncodedTokens | None = None
    ) -> torch.Tensor | None:
        return None if self.task_task is None else self.task_task.weights(states, embeddings, self.reads)

    def penalties(
        self, states: torch.Tensor, embeddings: torch.Tensor, tokens: EncodedTokens | None = None
    ) -> torch.Tensor | None:
        penalties = []
        if self.task_task is not None and self.penalty:
            scores = self.task_task.scores(states, embeddings, self.reads)
            penalties.append(self.penalty * relation_penalty(scores))
        if self.decay:
            penalties.append(self.decay * self.squares(states).expand(states.shape[0], -1))
        return torch.stack(penalties).sum(dim=0) if penalties else None

    def squares(self, like: torch.Tensor) -> torch.Tensor:
        """Return for each task the sum of the squares of its matrices and of those that tasks share, (tasks,).

        Args:
            like: States (batch, tasks, hidden), of the device and type of the result.
        """
        by_task, shared = like.new_zeros(like.shape[1]), like.new_zeros(())
        for module in self.modules():
            if isinstance(module, TaskTensors):
                values = module()
                by_task = by_task + (values.square().flatten(1).sum(dim=1) if values.ndim == 3 else 0.0)
        for name, size in self.matrices.items():
            # What a layer makes of the unit vectors: parameters are read where their module is called.
            layer, units = self.get_submodule(name), torch.eye(size, dtype=like.dtype, device=like.device)
            shared = shared + (layer(units) - layer(0 * units[:1])).square().sum()
        return by_task + shared


class _Relation(nn.Module):
    """Vectors that read each other: norm(X + A X), A = softmax_j(S), or norm(X + a * X), a = softmax_j(sum_i S_ij).

    Args:
        config: Gives the scorer, how it mixes and the norm.
        size: Entries of a vector.
        width: Entries that are normalised together.
    """

    def __init__(self, config: MultiTaskAttentionConfig, size: int, width: int) -> None:
        super().__init__()
        self.scorer = ATTENTION_SCORERS[config.attention_scorer](size, config.interaction_heads, closed=False)
        self.rescales = config.relation_mixing == "rescale"
        if self.rescales and self.scorer.has_values:
            raise InputError(
                "relation_mixing=rescale is what is written of scorers of one head; attention_scorer="
                f"{config.attention_scorer} has several. Choose dot_product, general or additive."
            )
        self.values = WeighedValues(self.scorer, size)
        self.after = _RelationNorm(config, width)

    def weights_of(self, scores: torch.Tensor) -> torch.Tensor:
        """Return (..., heads, n, n) of scores (..., heads, n, n); what rescales has them on the diagonal."""
        if not self.rescales:
            return attention_weights(scores)
        summed = scores.masked_fill(scores.isinf(), 0.0).sum(dim=-2)
        return torch.diag_embed(attention_weights(summed))


class _TaskTask(_Relation):
    """Tasks read each other; queries and keys are LN(Y) + E, so that tasks of one state differ.

    Args:
        config: See `MultipleRelations`.
    """

    def __init__(self, config: MultiTaskAttentionConfig) -> None:
        super().__init__(config, config.hidden_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size)

    def forward(self, states: torch.Tensor, embeddings: torch.Tensor, reads: torch.Tensor) -> torch.Tensor:
        """Return H (batch, tasks, hidden)."""
        return self.after(states + self.values(self.weights(states, embeddings, reads), states))

    def weights(self, states: torch.Tensor, embeddings: torch.Tensor, reads: torch.Tensor) -> torch.Tensor:
        """Return (batch, heads, tasks, tasks)."""
        return self.weights_of(self.scores(states, embeddings, reads))

    def scores(self, states: torch.Tensor, embeddings: torch.Tensor, reads: torch.Tensor) -> torch.Tensor:
        """Return S (batch, heads, tasks, tasks), -inf where a task does not read another."""
        readable = self.norm(states) + embeddings
        return self.scorer(readable, readable).masked_fill(~reads, float("-inf"))


class _FeatureFeature(_Relation):
    """Features read each other.

    Args:
        config: See `MultipleRelations`.
    """

    def __init__(self, config: MultiTaskAttentionConfig) -> None:
        super().__init__(config, config.hidden_size // config.feature_groups, config.hidden_size)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return F of features (batch, groups, size)."""
        weights = self.weights_of(self.scorer(features, features))
        mixed = features + self.values(weights, features)
        return self.after(mixed.flatten(1).unsqueeze(1)).squeeze(1).unflatten(-1, features.shape[1:])


class _TaskFeature(nn.Module):
    """Each task weighs the features that all share.

    Args:
        config: See `MultipleRelations`.
    """

    def __init__(self, config: MultiTaskAttentionConfig) -> None:
        super().__init__()
        hidden, size = config.hidden_size, config.hidden_size // config.feature_groups
        # In the paper both are columns of one length; a task's state has the entries of all features together.
        self.projection = UnitScaleLinear(hidden, size, bias=False)
        self.scorer = ATTENTION_SCORERS[config.attention_scorer](size, config.interaction_heads, closed=False)
        self.values = WeighedValues(self.scorer, size)
        self.after = _RelationNorm(config, hidden)

    def forward(self, tasks: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """Return X (batch, tasks, hidden) of H (batch, tasks, hidden) and F (batch, groups, size)."""
        weights = attention_weights(self.scorer(self.projection(tasks), features))  # (batch, heads, tasks, groups)
        # Each feature is weighed for itself: every group is a sum of one.
        one_by_one = weights.permute(0, 2, 3, 1).unsqueeze(-1).unsqueeze(-1)  # (batch, tasks, groups, heads, 1, 1)
        weighed = self.values(one_by_one, features[:, None, :, None]).squeeze(-2)
        return self.after((features.unsqueeze(1) + weighed).flatten(2))


class _TaskPredictor(nn.Module):
    """Two layers of each task's own, relu(W_2 relu(W_1 x + b_1) + b_2).

    Args:
        config: Gives the tasks and `expert_size`.
    """

    def __init__(self, config: MultiTaskAttentionConfig) -> None:
        super().__init__()
        hidden, size, names = config.hidden_size, expert_size(config), config.task_names
        self.first = TaskTensors(dict.fromkeys(names, size), hidden, std=(2 / hidden) ** 0.5)
        self.first_bias = TaskTensors(dict.fromkeys(names, size), width=None, std=0.0)
        self.second = TaskTensors(dict.fromkeys(names, hidden), size, std=(2 / size) ** 0.5)
        self.second_bias = TaskTensors(dict.fromkeys(names, hidden), width=None, std=0.0)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Return (batch, tasks, hidden) of (batch, tasks, hidden)."""
        inner = (torch.einsum("btd,thd->bth", states, self.first()) + self.first_bias()).relu()
        return (torch.einsum("bth,tdh->btd", inner, self.second()) + self.second_bias()).relu()


class _RelationNorm(nn.Module):
    """A layer norm, or the paper's batch norm: of each entry over the rows and tasks of a batch while it trains, by
    running means afterwards. With it a row's answer depends on its batch while it trains, and a step on how it is cut.

    Args:
        config: Gives `relation_norm`.
        width: Entries of what it normalises.
    """

    def __init__(self, config: MultiTaskAttentionConfig, width: int) -> None:
        super().__init__()
        self.is_batch = config.relation_norm == "batch"
        self.norm: nn.Module = nn.BatchNorm1d(width) if self.is_batch else nn.LayerNorm(width)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Return (batch, n, width) of (batch, n, width)."""
        rows = states.flatten(0, 1)
        if self.norm.training and self.is_batch and rows.shape[0] < 2:
            # One vector has no variance; the running ones are what there is.
            self.norm.eval()
            normalised: torch.Tensor = self.norm(rows)
            self.norm.train()
        else:
            normalised = self.norm(rows)
        return normalised.view_as(states)


__all__ = ["MultipleRelations", "RELATIONS", "RELATION_MIXINGS", "RELATION_NORMS"]
