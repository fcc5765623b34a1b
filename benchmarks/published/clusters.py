"""Planted clusters: tasks with shared weights in a cluster, orthogonal ones between, and the maps of attention."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics import adjusted_rand_score
from tqdm import tqdm

from benchmarks.published.stacks import (
    Batch,
    Heads,
    Stack,
    TaskReader,
    build_parts,
    mean_weights,
    shuffled,
    squared_errors,
    stacked,
    test_error,
    train,
)
from benchmarks.published.tables import Claim, mean_and_error, mean_and_range, table

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
        recovered: Adjusted Rand index of the clusters in the map against the planted ones (seeds,).
        untrained: The same of the map before training.
        chance: The same, planted clusters shuffled, mean over shuffles.
    """

    errors: np.ndarray
    maps: np.ndarray | None = None
    recovered: np.ndarray | None = None
    untrained: np.ndarray | None = None
    chance: np.ndarray | None = None


def recover_clusters(attention: np.ndarray) -> np.ndarray:
    """Return each task's cluster by average linkage of the symmetrised map (tasks, tasks) without its diagonal."""
    near = (attention + attention.T) / 2
    np.fill_diagonal(near, near.min())
    far = near.max() - near
    np.fill_diagonal(far, 0.0)
    return AgglomerativeClustering(CLUSTERS, metric="precomputed", linkage="average").fit_predict(far)


def agreement(maps: np.ndarray, planted: np.ndarray = PLANTED) -> np.ndarray:
    """Return the adjusted Rand index (seeds,) of the clusters in maps (seeds, tasks, tasks)."""
    return np.array([adjusted_rand_score(planted, recover_clusters(one)) for one in maps])


def read_clusters(regime: str, reader: str, seeds: Sequence[int], bar: tqdm) -> Maps:
    """Train a reader in a regime on every seed."""
    drawn = [clustered_tasks(regime, seed) for seed in seeds]
    data = {split: stacked([splits[split] for splits in drawn]) for split in CLUSTER_ROWS}
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


def run_clusters(
    seeds: Sequence[int], regimes: Sequence[str] = tuple(REGIMES), readers: Sequence[str] = tuple(READERS)
) -> dict[str, dict[str, Maps]]:
    """Return what every reader's attention shows, by regime."""
    with tqdm(total=len(regimes) * len(readers) * CLUSTER_EPOCHS, desc="clusters", unit="epoch") as bar:
        return {
            regime: {reader: read_clusters(regime, reader, seeds, bar) for reader in readers} for regime in regimes
        }


def cluster_table(regimes: dict[str, dict[str, Maps]]) -> list[str]:
    """Test errors and agreement of maps with what was planted."""
    rows = [["a task's state", "reader", "test error", "adjusted Rand index", "before training", "planted shuffled"]]
    for regime, readers in regimes.items():
        for reader, shown in readers.items():
            cells = [""] * 3
            if shown.recovered is not None:
                cells = [
                    mean_and_range(shown.recovered),
                    f"{shown.untrained.mean():.2f}",
                    f"{shown.chance.mean():.2f}",
                ]
            rows.append([regime, reader, mean_and_error(shown.errors), *cells])
    return table(*rows)


def cluster_claims(regimes: dict[str, dict[str, Maps]]) -> list[Claim]:
    """Whether each reader's map is the planted clusters."""
    return [
        Claim(
            f"{reader}'s map shows the planted clusters ({regime}; index of at least 0.9)",
            mean_and_range(shown.recovered),
            bool(shown.recovered.mean() >= 0.9),
        )
        for regime, readers in regimes.items()
        for reader, shown in readers.items()
        if shown.recovered is not None
    ]


def draw(regimes: dict[str, dict[str, Maps]], target: Path) -> None:
    """Draw one seed's maps, the tasks in planted order, without what a task reads of itself."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = [reader for reader, shown in next(iter(regimes.values())).items() if shown.maps is not None]
    figure, axes = plt.subplots(
        len(regimes), len(names), figsize=(2.9 * len(names), 2.7 * len(regimes)), squeeze=False
    )
    for row, (regime, readers) in enumerate(regimes.items()):
        for column, name in enumerate(names):
            axis, attention = axes[row, column], readers[name].maps[0].copy()
            np.fill_diagonal(attention, np.nan)
            axis.imshow(attention, cmap="Greys", vmin=0)
            for edge in range(1, CLUSTERS):
                axis.axhline(edge * CLUSTER_TASKS - 0.5, color="tab:red", linewidth=1)
                axis.axvline(edge * CLUSTER_TASKS - 0.5, color="tab:red", linewidth=1)
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_xlabel(f"adjusted Rand index {readers[name].recovered[0]:.2f}", fontsize=8)
            if row == 0:
                axis.set_title(name.replace(", ", ",\n"), fontsize=9)
            if column == 0:
                axis.set_ylabel(regime)
    figure.suptitle("What nine tasks read of each other; red: the planted clusters")
    figure.tight_layout()
    figure.savefig(target, dpi=90)
