"""Signs: two tasks that agree or oppose each other, and the signed weight between them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from benchmarks.published.experts import TOWER, correlated_tasks, nonlinear, on_bottom
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
from benchmarks.published.tables import Claim, mean_and_error, table

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
        drawn, along = zip(*[paired_views(correlation, seed) for seed in seeds])
        directions = torch.stack(along)
        stack = Stack([view_reader(form, seed) for seed in seeds])
    data = {split: stacked([splits[split] for splits in drawn]) for split in SIGN_ROWS}
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


def run_signs(seeds: Sequence[int]) -> dict[str, dict[float, Signs]]:
    """Return by form and correlation, 1 and -1, what the weights are."""
    forms = (ONE_STATE, FREE, FIXED, BARE, CONVEX)
    with tqdm(total=len(forms) * 2 * SIGN_EPOCHS, desc="signs", unit="epoch") as bar:
        return {form: {sign: read_sign(form, sign, seeds, bar) for sign in (1.0, -1.0)} for form in forms}


def sign_table(forms: dict[str, dict[float, Signs]]) -> list[str]:
    """Shares of weights and effects of the planted sign."""
    rows = [["model", "p", "weights of p's sign", "mean weight", "effects of p's sign", "test error"]]
    for form, by_sign in forms.items():
        for sign, signs in by_sign.items():
            effect = "" if signs.effects is None else f"{(sign * signs.effects > 0).sum()} of {len(signs.effects)}"
            weights = f"{(sign * signs.weights > 0).sum()} of {len(signs.weights)}"
            mean = f"{signs.weights.mean():+.2f} ± {signs.weights.std(ddof=1):.2f}"
            rows.append([form, f"{sign:g}", weights, mean, effect, mean_and_error(signs.errors)])
    return table(*rows)


def sign_claims(forms: dict[str, dict[float, Signs]]) -> list[Claim]:
    """Whether weights, and what they do, have the planted sign."""
    claims = []
    for form, by_sign in forms.items():
        right = [float((sign * signs.weights > 0).mean()) for sign, signs in by_sign.items()]
        ours = ", ".join(f"{share:.0%} (p = {sign:g})" for share, sign in zip(right, by_sign))
        claims.append(Claim(f"nine tenths of the weights have the planted sign ({form})", ours, min(right) >= 0.9))
    free = forms[FREE]
    right = [float((sign * signs.effects > 0).mean()) for sign, signs in free.items()]
    ours = ", ".join(f"{share:.0%} (p = {sign:g})" for share, sign in zip(right, free))
    return [*claims, Claim(f"nine tenths of the effects have it ({FREE})", ours, min(right) >= 0.9)]
