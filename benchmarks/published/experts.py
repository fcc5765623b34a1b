"""Experts beside a shared bottom: the synthetic tasks of Ma et al. 2018, section 3.2.

What differs from Ma et al.: the library's experts are two matrices with GELU between and give a state as wide as the
one they read; they read it through a LayerNorm; and they enter by a scale of the task's own that starts at zero,
R = S + rho (mix - S). "paper's form" reads the input with rho = 1 and the LayerNorm taken away, which leaves
R = mix(x). Cross-task attention stands on the states of the shared bottom, which it equals at the start. The paper
names no a, b, c; here a, b ~ N(0, 1) and c = 1.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from benchmarks.published.stacks import (
    Batch,
    Heads,
    Stack,
    TaskReader,
    build_parts,
    shuffled,
    squared_errors,
    stacked,
    test_error,
    train,
)
from benchmarks.published.tables import Claim, mean_and_error, table
from hf_mtl.modeling.interaction_base import ScaledInteraction

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


def run_experts(
    seeds: Sequence[int], epochs: int = EPOCHS, batch_size: int = BATCH_SIZE, arms: Sequence[str] = tuple(ARMS)
) -> dict[str, np.ndarray]:
    """Return mean squared test errors (correlations, seeds) by arm."""
    errors: dict[str, list[np.ndarray]] = {arm: [] for arm in arms}
    total = len(CORRELATIONS) * len(arms) * len(LEARNING_RATES) * epochs
    with tqdm(total=total, desc="experts", unit="epoch") as bar:
        for correlation in CORRELATIONS:
            drawn = [correlated_tasks(correlation, seed) for seed in seeds]
            data = {split: stacked([splits[split] for splits in drawn]) for split in ROWS}
            for arm in arms:
                bar.set_postfix_str(f"{arm}, p = {correlation:g}")
                errors[arm].append(arm_errors(arm, data, seeds, epochs, batch_size, bar))
    return {arm: np.stack(by_correlation) for arm, by_correlation in errors.items()}


def expert_table(errors: dict[str, np.ndarray]) -> list[str]:
    """Test errors by arm and correlation, and in how many seeds an arm beats the shared bottom."""
    rows = [
        ["test error, mean ± standard error; better than the shared bottom", *map("p = {:g}".format, CORRELATIONS)]
    ]
    for arm, lines in errors.items():
        wins = (lines < errors[SHARED_BOTTOM]).sum(axis=1)
        beside = [""] * len(lines) if arm == SHARED_BOTTOM else [f"; {won} of {lines.shape[1]}" for won in wins]
        rows.append([arm, *[mean_and_error(line) + more for line, more in zip(lines, beside)]])
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
