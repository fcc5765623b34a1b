"""Published behaviour of multitask systems, measured with the library's parts beside what was published.

Run: python benchmarks/published.py [--experiments experts clusters signs keywords] [--seeds 16]
     [--picture docs/published.png]

experts   Two regression tasks of known correlation (Ma et al. 2018, section 3.2): experts with one gate and with a
          gate per task beside a shared bottom. Published: a gate per task is better than one gate for all.
clusters  Nine tasks in three planted clusters: does the mean attention between tasks show them? Published: attention
          between tasks finds their relations (Zhao et al. 2019).
signs     Two tasks that agree or oppose each other: is the signed weight between them of that sign?
keywords  A label is the presence of a word: does its task attend to that word (Zheng, Chen and Qiu 2018)?

Every part is the library's own class, built from a `MultiTaskAttentionConfig`. The models of all seeds train at once:
their parameters are stacked and `torch.func.vmap` runs the class on each, which is training one after the other, since
Adam treats every number by itself. All is a function of the seeds.

What differs from Ma et al. in `experts`: the library's experts are two matrices with GELU between and give a state as
wide as the one they read; they read it through a LayerNorm; and they enter by a scale of the task's own that starts at
zero, R = S + rho (mix - S). "paper's form" reads the input with rho = 1 and the LayerNorm taken away, which leaves
R = mix(x). Cross-task attention stands on the states of the shared bottom, which it equals at the start. The paper
names no a, b, c; here a, b ~ N(0, 1) and c = 1.
"""

import argparse
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics import adjusted_rand_score
from torch import nn
from torch.func import functional_call, stack_module_state, vmap
from tqdm import tqdm
from transformers import BertConfig

from hf_mtl import MultiTaskAttentionConfig, MultiTaskAttentionModel
from hf_mtl.modeling.encoder_reader import EncodedTokens
from hf_mtl.modeling.interaction_base import ScaledInteraction
from hf_mtl.modeling.modeling_multitask import MultiTaskModule

SEEDS = 16

Batch = tuple[torch.Tensor, torch.Tensor]


# Models and training, the same in all experiments.


def build_parts(seed: int, tasks: int, hidden: int, vocabulary: int = 2, **settings: Any) -> MultiTaskModule:
    """The library's parts behind the encoder, as a fresh model has them."""
    torch.manual_seed(seed)
    encoder = BertConfig(
        vocab_size=vocabulary, hidden_size=hidden, num_hidden_layers=1, num_attention_heads=1, intermediate_size=1
    )
    rows = [{"name": f"task{task}", "problem_type": "regression"} for task in range(tasks)]
    settings = {"pooling": "mean", "gate": "none", **settings}
    return MultiTaskAttentionModel(MultiTaskAttentionConfig(encoder_config=encoder, tasks=rows, **settings)).mtl


class Heads(nn.Module):
    """One output a task: a linear layer of the task's own, or a tower of two.

    Args:
        tasks: How many.
        hidden: Width of what they read.
        size: Inner width of a tower; 0 for linear layers.
    """

    def __init__(self, tasks: int, hidden: int, size: int = 0) -> None:
        super().__init__()
        self.own = nn.ModuleList(
            nn.Sequential(nn.Linear(hidden, size), nn.ReLU(), nn.Linear(size, 1)) if size else nn.Linear(hidden, 1)
            for _ in range(tasks)
        )

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Return (batch, tasks) of states (batch, tasks, hidden)."""
        return torch.cat([head(states[:, task]) for task, head in enumerate(self.own)], dim=1)


class TaskReader(nn.Module):
    """Heads on task states that read each other through the library's interaction.

    Args:
        parts: The library's.
        heads: Heads of as many tasks.
        bottom: Makes the one state that all tasks have; None where the input is the task states.
    """

    def __init__(self, parts: MultiTaskModule, heads: Heads, bottom: nn.Module | None = None) -> None:
        super().__init__()
        self.interaction, self.task_encoder = parts.interaction, parts.task_encoder
        self.heads, self.bottom = heads, bottom

    def forward(self, given: torch.Tensor, weights: bool = False) -> torch.Tensor:
        """Return predictions (batch, tasks), or what tasks read of each other (batch, heads, tasks, tasks).

        Args:
            given: (batch, tasks, hidden), or with a bottom (batch, features).
            weights: Which of the two.
        """
        states = given
        if self.bottom is not None:
            states = self.bottom(given).unsqueeze(1).expand(-1, len(self.heads.own), -1)
        read = self.interaction.weights if weights else self.interaction
        found = read(states, self.task_encoder())
        return found if weights else self.heads(found)


class Stack:
    """Models of one shape as one: inputs, parameters and outputs have a leading axis, one place a model."""

    def __init__(self, models: Sequence[nn.Module]) -> None:
        self.model = models[0]
        self.parameters, self.buffers = stack_module_state(list(models))
        kept = dict(self.model.named_parameters())
        self.learned = [tensor for name, tensor in self.parameters.items() if kept[name].requires_grad]

    def __call__(self, *given: torch.Tensor, **options: Any) -> torch.Tensor:
        """Return the outputs (models, ...) for inputs (models, ...)."""

        def one(state: Any, *own: torch.Tensor) -> torch.Tensor:
            return functional_call(self.model, state, own, options)

        return vmap(one)((self.parameters, self.buffers), *given)


def train(optimizer: torch.optim.Optimizer, losses: Iterable[torch.Tensor]) -> None:
    """Take a step for each of the losses, which are computed one by one."""
    for loss in losses:
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def squared_errors(stack: Stack, batches: Iterable[Batch]) -> Iterator[torch.Tensor]:
    """Yield for each batch the sum over models and tasks of the mean over rows."""
    for given, labels in batches:
        yield (stack(given) - labels).square().mean(dim=1).sum()


def shuffled(data: Batch, batch_size: int, generator: torch.Generator) -> Iterator[Batch]:
    """Yield the batches of one pass over data (models, rows, ...), in the same order for all models."""
    for chosen in torch.randperm(data[0].shape[1], generator=generator).split(batch_size):
        yield data[0][:, chosen], data[1][:, chosen]


@torch.no_grad()
def test_error(stack: Stack, data: Batch) -> np.ndarray:
    """Mean squared error (models,)."""
    return (stack(data[0]) - data[1]).square().mean(dim=(1, 2)).numpy()


# Experts: the synthetic tasks of Ma et al. 2018.

CORRELATIONS = (0.5, 1.0, -1.0)
FEATURES, BOTTOM, TOWER = 100, 128, 8
EPOCHS, BATCH_SIZE = 40, 250
LEARNING_RATES = (1e-3, 1e-2)
ROWS = {"train": 10_000, "validation": 1_000, "test": 1_000}


def nonlinear(signal: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Labels s + sum_i sin(a_i s + b_i) + noise of signals (rows, tasks); a, b ~ N(0, 1), i = 1..5, noise 0.1."""
    slopes, offsets = torch.randn(2, 5, generator=generator)
    waves = (signal.unsqueeze(-1) * slopes + offsets).sin().sum(dim=-1)
    return signal + waves + 0.1 * torch.randn(signal.shape, generator=generator)


def correlated_tasks(correlation: float, seed: int) -> dict[str, Batch]:
    """Two tasks whose weights have this cosine: inputs (rows, features), labels (rows, 2), by split (c = 1)."""
    generator = torch.Generator().manual_seed(seed)
    first, other = torch.linalg.qr(torch.randn(FEATURES, 2, generator=generator)).Q.T
    second = correlation * first + (1 - correlation**2) ** 0.5 * other
    given = torch.randn(sum(ROWS.values()), FEATURES, generator=generator)
    labels = nonlinear(given @ torch.stack([first, second], dim=1), generator)
    sizes = list(ROWS.values())
    return dict(zip(ROWS, zip(given.split(sizes), labels.split(sizes))))


def on_bottom(seed: int, **settings: Any) -> TaskReader:
    """A shared bottom, an interaction of the states of two tasks, towers."""
    parts = build_parts(seed, 2, BOTTOM, **settings)
    torch.manual_seed(seed)
    bottom = nn.Sequential(nn.Linear(FEATURES, BOTTOM), nn.ReLU())
    return TaskReader(parts, Heads(2, BOTTOM, TOWER), bottom)


def on_input(seed: int, **settings: Any) -> TaskReader:
    """Experts on the input alone, R = mix(x), and towers: the paper's form."""
    parts = build_parts(seed, 2, FEATURES, **settings)
    assert isinstance(parts.interaction, ScaledInteraction)
    parts.interaction.norm = nn.Identity()
    for scale in parts.interaction.scale.parameters():
        nn.init.constant_(scale, 20.0).requires_grad_(False)
    torch.manual_seed(seed)
    return TaskReader(parts, Heads(2, FEATURES, TOWER), nn.Identity())


EXPERTS = {"shared_experts": 8, "expert_size": 16}
SHARED_BOTTOM, CROSS_TASK = "shared bottom", "cross-task attention"
OMOE, MMOE = "omoe, paper's form", "mmoe, paper's form"
ARMS: dict[str, Callable[[int], TaskReader]] = {
    SHARED_BOTTOM: lambda seed: on_bottom(seed, task_interaction="none"),
    OMOE: lambda seed: on_input(seed, task_interaction="omoe", **EXPERTS),
    MMOE: lambda seed: on_input(seed, task_interaction="mmoe", **EXPERTS),
    CROSS_TASK: lambda seed: on_bottom(seed, task_interaction="cross_task_attention", attention_scorer="general"),
}


def arm_errors(
    arm: str, data: dict[str, Batch], seeds: Sequence[int], epochs: int, batch_size: int, bar: tqdm
) -> np.ndarray:
    """Mean squared test errors (seeds,) of the epoch and learning rate that are best by validation."""
    validation, test = [], []
    for learning_rate in LEARNING_RATES:
        stack = Stack([ARMS[arm](seed) for seed in seeds])
        optimizer = torch.optim.Adam(stack.learned, lr=learning_rate)
        generator = torch.Generator().manual_seed(0)
        for _ in range(epochs):
            train(optimizer, squared_errors(stack, shuffled(data["train"], batch_size, generator)))
            validation.append(test_error(stack, data["validation"]))
            test.append(test_error(stack, data["test"]))
            bar.update()
    best = np.argmin(validation, axis=0)
    return np.stack(test)[best, np.arange(len(best))]


def experts(
    seeds: Sequence[int], epochs: int = EPOCHS, batch_size: int = BATCH_SIZE, arms: Sequence[str] = tuple(ARMS)
) -> dict[str, np.ndarray]:
    """Return mean squared test errors (correlations, seeds) by arm."""
    errors: dict[str, list[np.ndarray]] = {arm: [] for arm in arms}
    total = len(CORRELATIONS) * len(arms) * len(LEARNING_RATES) * epochs
    with tqdm(total=total, desc="experts", unit="epoch") as bar:
        for correlation in CORRELATIONS:
            drawn = [correlated_tasks(correlation, seed) for seed in seeds]
            data = {split: _stacked([own[split] for own in drawn]) for split in ROWS}
            for arm in arms:
                bar.set_postfix_str(f"{arm}, p = {correlation:g}")
                errors[arm].append(arm_errors(arm, data, seeds, epochs, batch_size, bar))
    return {arm: np.stack(own) for arm, own in errors.items()}


def _stacked(batches: Sequence[Batch]) -> Batch:
    first, second = zip(*batches)
    return torch.stack(first), torch.stack(second)


# Clusters: tasks with shared weights in a cluster, orthogonal ones between.

CLUSTERS, CLUSTER_TASKS, WIDTH = 3, 3, 32
PLANTED = np.repeat(np.arange(CLUSTERS), CLUSTER_TASKS)
VIEW_NOISE, LABEL_NOISE = 1.0, 0.5
CLUSTER_ROWS = {"train": 2_000, "test": 1_000}
CLUSTER_EPOCHS, CLUSTER_BATCH, CLUSTER_RATE = 12, 50, 1e-2
SHUFFLES = 100
# Of a cluster with direction w, a task's state is ...
REGIMES = {
    "own views": "(w x) w and noise of its own: reading one's cluster helps",
    "same view": "x and noise of its own: reading anybody helps",
    "same state": "x: reading nobody helps",
}
READERS: dict[str, dict[str, Any]] = {
    "none": {"task_interaction": "none"},
    "cross_task_attention": {"task_interaction": "cross_task_attention"},
    "cross_task_attention, task_affinities": {"task_interaction": "cross_task_attention", "task_affinities": True},
    "attention_over_heads": {"task_interaction": "attention_over_heads"},
}


def clustered_tasks(regime: str, seed: int) -> dict[str, Batch]:
    """States (rows, tasks, WIDTH) and noisy labels (rows, tasks) by split."""
    generator = torch.Generator().manual_seed(seed)
    rows = sum(CLUSTER_ROWS.values())
    directions = torch.linalg.qr(torch.randn(WIDTH, CLUSTERS, generator=generator)).Q.T[PLANTED]  # (tasks, WIDTH)
    given = torch.randn(rows, WIDTH, generator=generator)
    signals = given @ directions.T  # (rows, tasks)
    noise = VIEW_NOISE * torch.randn(rows, len(PLANTED), WIDTH, generator=generator)
    shared = given.unsqueeze(1).expand_as(noise)
    states = {
        "own views": signals.unsqueeze(-1) * directions + noise,
        "same view": shared + noise,
        "same state": shared,
    }[regime]
    labels = signals + LABEL_NOISE * torch.randn(signals.shape, generator=generator)
    sizes = list(CLUSTER_ROWS.values())
    return dict(zip(CLUSTER_ROWS, zip(states.split(sizes), labels.split(sizes))))


@dataclass
class Maps:
    """What one reader's attention shows in one regime.

    Args:
        errors: Mean squared test errors (seeds,).
        maps: Mean attention (seeds, tasks, tasks); None where nothing is read.
        found: Adjusted Rand index of the clusters in the map against the planted ones (seeds,).
        untrained: The same of the map before training.
        chance: The same, planted clusters shuffled, mean over shuffles.
    """

    errors: np.ndarray
    maps: np.ndarray | None = None
    found: np.ndarray | None = None
    untrained: np.ndarray | None = None
    chance: np.ndarray | None = None


def recovered(attention: np.ndarray) -> np.ndarray:
    """Return each task's cluster by average linkage of the symmetrised map (tasks, tasks) without its diagonal."""
    near = (attention + attention.T) / 2
    np.fill_diagonal(near, near.min())
    far = near.max() - near
    np.fill_diagonal(far, 0.0)
    return AgglomerativeClustering(CLUSTERS, metric="precomputed", linkage="average").fit_predict(far)


def agreement(maps: np.ndarray, planted: np.ndarray = PLANTED) -> np.ndarray:
    """Return the adjusted Rand index (seeds,) of the clusters in maps (seeds, tasks, tasks)."""
    return np.array([adjusted_rand_score(planted, recovered(own)) for own in maps])


@torch.no_grad()
def mean_weights(stack: Stack, data: Batch) -> np.ndarray:
    """Return the attention (models, tasks, tasks), mean over rows and heads."""
    return stack(data[0], weights=True).mean(dim=(1, 2)).numpy()


def read_clusters(regime: str, reader: str, seeds: Sequence[int], bar: tqdm) -> Maps:
    """Train a reader in a regime on every seed."""
    drawn = [clustered_tasks(regime, seed) for seed in seeds]
    data = {split: _stacked([own[split] for own in drawn]) for split in CLUSTER_ROWS}
    tasks = len(PLANTED)
    stack = Stack(
        [TaskReader(build_parts(seed, tasks, WIDTH, **READERS[reader]), Heads(tasks, WIDTH)) for seed in seeds]
    )
    before = None if reader == "none" else mean_weights(stack, data["test"])
    optimizer = torch.optim.Adam(stack.learned, lr=CLUSTER_RATE)
    generator = torch.Generator().manual_seed(0)
    for _ in range(CLUSTER_EPOCHS):
        train(optimizer, squared_errors(stack, shuffled(data["train"], CLUSTER_BATCH, generator)))
        bar.update()
    errors = test_error(stack, data["test"])
    if before is None:
        return Maps(errors)
    maps = mean_weights(stack, data["test"])
    orders = np.random.default_rng(0).permuted(np.tile(PLANTED, (SHUFFLES, 1)), axis=1)
    chance = np.mean([agreement(maps, order) for order in orders], axis=0)
    return Maps(errors, maps, agreement(maps), agreement(before), chance)


def clusters(
    seeds: Sequence[int], regimes: Sequence[str] = tuple(REGIMES), readers: Sequence[str] = tuple(READERS)
) -> dict[str, dict[str, Maps]]:
    """Return what every reader's attention shows, by regime."""
    with tqdm(total=len(regimes) * len(readers) * CLUSTER_EPOCHS, desc="clusters", unit="epoch") as bar:
        return {
            regime: {reader: read_clusters(regime, reader, seeds, bar) for reader in readers} for regime in regimes
        }


# Signs: two tasks that agree or oppose each other.

SIGN_WIDTH, SIGN_NOISE = 16, 0.7
SIGN_ROWS = {"train": 4_000, "test": 1_000}
SIGN_EPOCHS, SIGN_BATCH, SIGN_RATE = 8, 50, 3e-3
ONE_STATE, FREE, FIXED, BARE, CONVEX = (
    "one state for both tasks, all learned",
    "own views, all learned",
    "own views, values and output fixed",
    "own views, values and output fixed, no task embeddings",
    "own views, values and output fixed, convex weights",
)


@dataclass
class Signs:
    """What weights between the two tasks are, the two directions of all seeds one after the other.

    Args:
        weights: Mean weights on the other task (2 seeds,).
        effects: Mean product of a prediction's slopes along the signal in its own and the other's state (2 seeds,);
            None where both are one state.
        errors: Mean squared test errors (seeds,).
    """

    weights: np.ndarray
    effects: np.ndarray | None
    errors: np.ndarray


def paired_views(correlation: float, seed: int) -> tuple[dict[str, Batch], torch.Tensor]:
    """Two tasks' states, each a noisy view of its own signal along one direction; by split, and the direction.

    States are (rows, 2, SIGN_WIDTH), labels those of `correlated_tasks`, whose w x are the signals.
    """
    generator = torch.Generator().manual_seed(seed)
    rows, sizes = sum(SIGN_ROWS.values()), list(SIGN_ROWS.values())
    first, other = torch.randn(2, rows, generator=generator)
    signals = torch.stack([first, correlation * first + (1 - correlation**2) ** 0.5 * other], dim=1)
    direction = nn.functional.normalize(torch.randn(SIGN_WIDTH, generator=generator), dim=0)
    noise = SIGN_NOISE * torch.randn(rows, 2, SIGN_WIDTH, generator=generator)
    states, labels = signals.unsqueeze(-1) * direction + noise, nonlinear(signals, generator)
    return dict(zip(SIGN_ROWS, zip(states.split(sizes), labels.split(sizes)))), direction


def view_reader(form: str, seed: int) -> TaskReader:
    """A model of one of the forms that read views."""
    settings = {"attention_scorer": "general", "signed_attention": form != CONVEX}
    parts = build_parts(seed, 2, SIGN_WIDTH, task_interaction="cross_task_attention", **settings)
    if form != FREE:
        for layer in (parts.interaction.value, parts.interaction.output):
            nn.init.eye_(layer.weight).requires_grad_(False)
            nn.init.zeros_(layer.bias).requires_grad_(False)
        # Near zero at the start: a tanh that starts near 1 or -1 hardly changes its sign.
        nn.init.normal_(parts.interaction.scorer.key.weight, std=0.1 * SIGN_WIDTH**-0.5)
    if form == BARE:
        for embedding in parts.task_encoder.parameters():
            nn.init.zeros_(embedding).requires_grad_(False)
    return TaskReader(parts, Heads(2, SIGN_WIDTH, TOWER))


@torch.no_grad()
def effects(stack: Stack, states: torch.Tensor, directions: torch.Tensor, step: float = 0.1) -> np.ndarray:
    """Return for each task the mean over rows of its prediction's slope along the direction in its own state times
    that in the other's, (models, 2).
    """
    slopes = []
    for task in range(2):
        moved = states.clone()
        moved[:, :, task] += step * directions.unsqueeze(1)
        slopes.append((stack(moved) - stack(states)) / step)
    by_first, by_second = slopes  # (models, rows, tasks)
    return (by_first * by_second).mean(dim=1).numpy()


def read_sign(form: str, correlation: float, seeds: Sequence[int], bar: tqdm) -> Signs:
    """Train a form at a correlation on every seed."""
    directions = None
    if form == ONE_STATE:
        drawn = [correlated_tasks(correlation, seed) for seed in seeds]
        settings = {
            "task_interaction": "cross_task_attention",
            "attention_scorer": "general",
            "signed_attention": True,
        }
        stack = Stack([on_bottom(seed, **settings) for seed in seeds])
    else:
        drawn, found = zip(*[paired_views(correlation, seed) for seed in seeds])
        directions = torch.stack(found)
        stack = Stack([view_reader(form, seed) for seed in seeds])
    data = {split: _stacked([own[split] for own in drawn]) for split in SIGN_ROWS}
    optimizer = torch.optim.Adam(stack.learned, lr=SIGN_RATE)
    generator = torch.Generator().manual_seed(0)
    for _ in range(SIGN_EPOCHS):
        rows = torch.randperm(data["train"][0].shape[1], generator=generator)[: SIGN_ROWS["train"]]
        part = data["train"][0][:, rows], data["train"][1][:, rows]
        train(optimizer, squared_errors(stack, shuffled(part, SIGN_BATCH, generator)))
        bar.update()
    weights = mean_weights(stack, data["test"])
    return Signs(
        np.concatenate([weights[:, 0, 1], weights[:, 1, 0]]),
        None if directions is None else effects(stack, data["test"][0], directions).T.reshape(-1),
        test_error(stack, data["test"]),
    )


def signs(seeds: Sequence[int]) -> dict[str, dict[float, Signs]]:
    """Return by form and correlation, 1 and -1, what the weights are."""
    forms = (ONE_STATE, FREE, FIXED, BARE, CONVEX)
    with tqdm(total=len(forms) * 2 * SIGN_EPOCHS, desc="signs", unit="epoch") as bar:
        return {form: {sign: read_sign(form, sign, seeds, bar) for sign in (1.0, -1.0)} for form in forms}


# Keywords: a task's label is whether its word stands in the text.

VOCABULARY, LENGTH, KEYWORDS, WORD_WIDTH = 100, 20, 3, 32
KEYWORD_STEPS, KEYWORD_BATCH, KEYWORD_RATE = 1_500, 64, 1e-2
KEYWORD_TEST = 1_000
LEXICAL_RANKS = (0, 16)


class KeywordReader(nn.Module):
    """The library's task queries over fixed word vectors, and linear heads.

    Args:
        seed: Draws the word vectors and the start.
        rank: `lexical_rank`.
    """

    def __init__(self, seed: int, rank: int) -> None:
        super().__init__()
        parts = build_parts(seed, KEYWORDS, WORD_WIDTH, VOCABULARY, pooling="task_queries", lexical_rank=rank)
        self.pooling, self.heads = parts.pooling, Heads(KEYWORDS, WORD_WIDTH)
        self.register_buffer("vectors", torch.randn(VOCABULARY, WORD_WIDTH))

    def forward(self, ids: torch.Tensor, weights: bool = False) -> torch.Tensor:
        """Return logits (batch, tasks), or how much tasks read of words (batch, tasks, length)."""
        tokens = EncodedTokens(self.vectors[ids], torch.ones_like(ids), ids=ids)
        return self.pooling.weights(tokens) if weights else self.heads(self.pooling(tokens))


def keyword_texts(texts: int, models: int, generator: torch.Generator) -> Batch:
    """Word ids (models, texts, LENGTH) in which each task's word, its index, stands once in half of the texts; and
    labels (models, texts, tasks).
    """
    ids = torch.randint(KEYWORDS, VOCABULARY, (models, texts, LENGTH), generator=generator)
    labels = torch.rand(models, texts, KEYWORDS, generator=generator) < 0.5
    places = torch.rand(models, texts, LENGTH, generator=generator).argsort(dim=-1)[..., :KEYWORDS]
    words = torch.arange(KEYWORDS).expand_as(places)
    return ids.scatter(-1, places, torch.where(labels, words, ids.gather(-1, places))), labels.float()


@dataclass
class Keywords:
    """What the tasks of all seeds attend to.

    Args:
        attention: How much of its attention a task gives to each task's word in texts that have it, (seeds, tasks,
            words).
        accuracy: Share of test labels that are right (seeds,).
    """

    attention: np.ndarray
    accuracy: np.ndarray


def read_keywords(rank: int, seeds: Sequence[int], bar: tqdm) -> Keywords:
    """Train task queries of a lexical rank on every seed."""
    stack = Stack([KeywordReader(seed, rank) for seed in seeds])
    optimizer = torch.optim.Adam(stack.learned, lr=KEYWORD_RATE)
    generator = torch.Generator().manual_seed(0)

    def losses() -> Iterator[torch.Tensor]:
        for _ in range(KEYWORD_STEPS):
            ids, labels = keyword_texts(KEYWORD_BATCH, len(seeds), generator)
            error = nn.functional.binary_cross_entropy_with_logits(stack(ids), labels, reduction="none")
            yield error.mean(dim=1).sum()
            bar.update()

    train(optimizer, losses())
    with torch.no_grad():
        ids, labels = keyword_texts(KEYWORD_TEST, len(seeds), generator)
        weights = stack(ids, weights=True)  # (models, texts, tasks, length)
        has = (ids.unsqueeze(2) == torch.arange(KEYWORDS)[:, None]).float()  # (models, texts, words, length)
        attention = torch.einsum("mntl,mnwl->mtw", weights, has) / labels.sum(dim=1).unsqueeze(1)
        right = ((stack(ids) > 0) == (labels > 0.5)).float().mean(dim=(1, 2))
    return Keywords(attention.numpy(), right.numpy())


def keywords(seeds: Sequence[int]) -> dict[int, Keywords]:
    """Return by lexical rank what tasks attend to."""
    with tqdm(total=len(LEXICAL_RANKS) * KEYWORD_STEPS, desc="keywords", unit="step") as bar:
        return {rank: read_keywords(rank, seeds, bar) for rank in LEXICAL_RANKS}


# Tables and claims.


class Claim(NamedTuple):
    """What was published or expected, what is measured, and whether it holds; None where nothing is claimed."""

    text: str
    ours: str
    holds: bool | None = None

    def __str__(self) -> str:
        verdict = {True: "holds", False: "does not reproduce", None: "no claim"}[self.holds]
        return f"- {verdict}: {self.text}: {self.ours}"


def table(*rows: Sequence[str]) -> list[str]:
    """Return a Markdown table, its head the first row."""
    head, *others = [f"| {' | '.join(row)} |" for row in rows]
    return ["", head, f"|{'---|' * len(rows[0])}", *others, ""]


def mean_and_error(values: np.ndarray) -> str:
    """The mean and its standard error."""
    return f"{values.mean():.4f} ± {values.std(ddof=1) / len(values) ** 0.5:.4f}"


def mean_and_range(values: np.ndarray) -> str:
    """The mean, the least and the most."""
    return f"{values.mean():.2f} ({values.min():.2f} to {values.max():.2f})"


def expert_table(errors: dict[str, np.ndarray]) -> list[str]:
    """Test errors by arm and correlation, and in how many seeds an arm beats the shared bottom."""
    rows = [
        ["test error, mean ± standard error; better than the shared bottom", *map("p = {:g}".format, CORRELATIONS)]
    ]
    for arm, own in errors.items():
        wins = (own < errors[SHARED_BOTTOM]).sum(axis=1)
        beside = [""] * len(own) if arm == SHARED_BOTTOM else [f"; {won} of {own.shape[1]}" for won in wins]
        rows.append([arm, *[mean_and_error(line) + more for line, more in zip(own, beside)]])
    return table(*rows)


def expert_claims(errors: dict[str, np.ndarray]) -> list[Claim]:
    """Experts beat the shared bottom; cross-task attention is no worse; a gate per task beside one gate."""
    bottom = errors[SHARED_BOTTOM]
    seeds = bottom.shape[1]

    def beats(arm: str, other: np.ndarray) -> np.ndarray:
        return (errors[arm] < other).sum(axis=1)

    def listed(numbers: np.ndarray) -> str:
        return ", ".join(f"{won} of {seeds} (p = {at:g})" for won, at in zip(numbers, CORRELATIONS))

    claims = []
    for arm in (OMOE, MMOE):
        won = beats(arm, bottom)
        text = f"{arm}, beats the shared bottom in three quarters of the seeds"
        claims.append(Claim(text, listed(won), bool((won >= 0.75 * seeds).all())))
    if CROSS_TASK in errors:
        won, lower = beats(CROSS_TASK, bottom), errors[CROSS_TASK].mean(axis=1) <= bottom.mean(axis=1)
        text = "cross-task attention is no worse than the shared bottom, by the mean or in half of the seeds"
        claims.append(Claim(text, listed(won), bool((lower | (won >= seeds / 2)).all())))
    won = beats(MMOE, errors[OMOE])
    text = "a gate per task beats one gate (Ma et al. 2018; asked here: in three quarters of the seeds)"
    return [*claims, Claim(text, listed(won), bool((won >= 0.75 * seeds).all()))]


def cluster_table(found: dict[str, dict[str, Maps]]) -> list[str]:
    """Test errors and agreement of maps with what was planted."""
    rows = [["a task's state", "reader", "test error", "adjusted Rand index", "before training", "planted shuffled"]]
    for regime, readers in found.items():
        for reader, own in readers.items():
            cells = [""] * 3
            if own.found is not None:
                cells = [mean_and_range(own.found), f"{own.untrained.mean():.2f}", f"{own.chance.mean():.2f}"]
            rows.append([regime, reader, mean_and_error(own.errors), *cells])
    return table(*rows)


def cluster_claims(found: dict[str, dict[str, Maps]]) -> list[Claim]:
    """Whether each reader's map is the planted clusters."""
    return [
        Claim(
            f"{reader}'s map shows the planted clusters ({regime}; index of at least 0.9)",
            mean_and_range(own.found),
            bool(own.found.mean() >= 0.9),
        )
        for regime, readers in found.items()
        for reader, own in readers.items()
        if own.found is not None
    ]


def sign_table(found: dict[str, dict[float, Signs]]) -> list[str]:
    """Shares of weights and effects of the planted sign."""
    rows = [["model", "p", "weights of p's sign", "mean weight", "effects of p's sign", "test error"]]
    for form, by_sign in found.items():
        for sign, own in by_sign.items():
            effect = "" if own.effects is None else f"{(sign * own.effects > 0).sum()} of {len(own.effects)}"
            weights = f"{(sign * own.weights > 0).sum()} of {len(own.weights)}"
            mean = f"{own.weights.mean():+.2f} ± {own.weights.std(ddof=1):.2f}"
            rows.append([form, f"{sign:g}", weights, mean, effect, mean_and_error(own.errors)])
    return table(*rows)


def sign_claims(found: dict[str, dict[float, Signs]]) -> list[Claim]:
    """Whether weights, and what they do, have the planted sign."""
    claims = []
    for form, by_sign in found.items():
        right = [float((sign * own.weights > 0).mean()) for sign, own in by_sign.items()]
        ours = ", ".join(f"{share:.0%} (p = {sign:g})" for share, sign in zip(right, by_sign))
        claims.append(Claim(f"nine tenths of the weights have the planted sign ({form})", ours, min(right) >= 0.9))
    own = found[FREE]
    right = [float((sign * signs.effects > 0).mean()) for sign, signs in own.items()]
    ours = ", ".join(f"{share:.0%} (p = {sign:g})" for share, sign in zip(right, own))
    return [*claims, Claim(f"nine tenths of the effects have it ({FREE})", ours, min(right) >= 0.9)]


def keyword_table(found: dict[int, Keywords]) -> list[str]:
    """Attention on a task's own word and on the others'."""
    rows = [["lexical_rank", "attention on the own word", "on another task's word", "accuracy"]]
    for rank, own in found.items():
        others = own.attention[:, ~np.eye(KEYWORDS, dtype=bool)].mean(axis=1)
        on_own = own.attention.diagonal(axis1=1, axis2=2).mean(axis=1)
        rows.append([str(rank), mean_and_range(on_own), mean_and_range(others), f"{own.accuracy.mean():.3f}"])
    return table(*rows)


def keyword_claims(found: dict[int, Keywords]) -> list[Claim]:
    """Whether each task attends to its own word."""
    claims = []
    for rank, own in found.items():
        mean = own.attention.mean(axis=0)  # (tasks, words)
        text = f"each task gives its own word, where it stands, more than 0.9 of its attention (lexical_rank {rank})"
        claims.append(
            Claim(text, ", ".join(f"{share:.2f}" for share in mean.diagonal()), bool((mean.diagonal() > 0.9).all()))
        )
    return claims


def draw(found: dict[str, dict[str, Maps]], target: Path) -> None:
    """Draw one seed's maps, the tasks in planted order, without what a task reads of itself."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = [reader for reader, own in next(iter(found.values())).items() if own.maps is not None]
    figure, axes = plt.subplots(len(found), len(names), figsize=(2.9 * len(names), 2.7 * len(found)), squeeze=False)
    for row, (regime, readers) in enumerate(found.items()):
        for column, name in enumerate(names):
            axis, own = axes[row, column], readers[name].maps[0].copy()
            np.fill_diagonal(own, np.nan)
            axis.imshow(own, cmap="Greys", vmin=0)
            for edge in range(1, CLUSTERS):
                axis.axhline(edge * CLUSTER_TASKS - 0.5, color="tab:red", linewidth=1)
                axis.axvline(edge * CLUSTER_TASKS - 0.5, color="tab:red", linewidth=1)
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_xlabel(f"adjusted Rand index {readers[name].found[0]:.2f}", fontsize=8)
            if row == 0:
                axis.set_title(name.replace(", ", ",\n"), fontsize=9)
            if column == 0:
                axis.set_ylabel(regime)
    figure.suptitle("What nine tasks read of each other; red: the planted clusters")
    figure.tight_layout()
    figure.savefig(target, dpi=90)


class Experiment(NamedTuple):
    """What is run, and what is printed of it."""

    run: Callable[..., Any]
    table: Callable[[Any], list[str]]
    claims: Callable[[Any], list[Claim]]


EXPERIMENTS = {
    "experts": Experiment(experts, expert_table, expert_claims),
    "clusters": Experiment(clusters, cluster_table, cluster_claims),
    "signs": Experiment(signs, sign_table, sign_claims),
    "keywords": Experiment(keywords, keyword_table, keyword_claims),
}


def main() -> None:
    """Run the experiments; print a table of each and what holds of what was published or expected."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", nargs="+", choices=EXPERIMENTS, default=list(EXPERIMENTS))
    parser.add_argument("--seeds", type=int, default=SEEDS, help="seeds of each experiment, at least 2")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of `experts`")
    parser.add_argument("--batch_size", type=int, default=BATCH_SIZE, help="of `experts`")
    parser.add_argument("--picture", type=Path, help="a PNG file to draw the maps of `clusters` to; needs matplotlib")
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name in given.experiments:
        own = EXPERIMENTS[name]
        start = time.perf_counter()
        options = {"epochs": given.epochs, "batch_size": given.batch_size} if name == "experts" else {}
        found = own.run(range(given.seeds), **options)
        print(f"\n{name}, {given.seeds} seeds, {time.perf_counter() - start:.0f} s")
        print("\n".join([*own.table(found), *map(str, own.claims(found))]), flush=True)
        if name == "clusters" and given.picture:
            draw(found, given.picture)
            print(f"The picture lies in {given.picture}.")


if __name__ == "__main__":
    main()
