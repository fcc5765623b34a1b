"""MRAN, its parts, and what it stands on: the arms, trained on the schools of all seeds at once."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from benchmarks.mran_ablation.schools import FEATURES, HELD_OUT, SCHOOLS, Schools, Students, draw_schools
from benchmarks.published.stacks import Heads, Stack, build_parts, train
from hf_mtl.modeling.attention_scorers import ATTENTION_SCORERS
from hf_mtl.modeling.interaction_mran import RELATIONS
from hf_mtl.modeling.systems import SYSTEMS

WIDTH, FEATURE_GROUPS = 16, 4
EPOCHS, BATCH_SIZE = 20, 64
LEARNING_RATE, WEIGHT_DECAY = 5e-3, 0.01


class PerSchool(nn.Module):
    """A layer of each school's own: what all schools read, or (with `shared` False) each a network of its own.

    Args:
        width: Of what is read.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        layers = [nn.Linear(width, WIDTH) for _ in range(SCHOOLS)]
        self.weight = nn.Parameter(torch.stack([layer.weight.detach() for layer in layers]))
        self.bias = nn.Parameter(torch.stack([layer.bias.detach() for layer in layers]))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Return (batch, schools, WIDTH) of states (batch, width)."""
        return torch.einsum("bf,swf->bsw", states, self.weight) + self.bias


class SchoolReader(nn.Module):
    """Predicts scores: a shared layer, a layer per school, the library's interaction of tasks, linear heads.

    Args:
        seed: Draws the start.
        has_shared: Whether there is a shared layer.
        has_layers: Whether each school has a layer.
        **settings: Of the interaction.
    """

    def __init__(self, seed: int, has_shared: bool = True, has_layers: bool = True, **settings: Any) -> None:
        super().__init__()
        parts = build_parts(seed, SCHOOLS, WIDTH, **settings)
        self.interaction, self.task_encoder = parts.interaction, parts.task_encoder
        torch.manual_seed(seed)
        self.shared = nn.Sequential(nn.Linear(FEATURES, WIDTH), nn.ReLU()) if has_shared else nn.Identity()
        self.layers = nn.Sequential(PerSchool(WIDTH if has_shared else FEATURES), nn.ReLU()) if has_layers else None
        self.heads = Heads(SCHOOLS, WIDTH)

    def forward(self, given: torch.Tensor, schools: torch.Tensor) -> torch.Tensor:
        """Return (2, batch): the scores of students (batch, features) of schools (batch,), and what parts add to
        their losses.
        """
        states = self.shared(given)
        states = states.unsqueeze(1).expand(-1, SCHOOLS, -1) if self.layers is None else self.layers(states)
        embeddings, place = self.task_encoder(), schools.unsqueeze(1)
        scores = self.heads(self.interaction(states, embeddings)).gather(1, place).squeeze(1)
        added = self.interaction.penalties(states, embeddings)
        return torch.stack([scores, torch.zeros_like(scores) if added is None else added.gather(1, place).squeeze(1)])


# The system, without what stands around the interaction: a school's state is its layer's.
SYSTEM = {
    **{key: value for key, value in SYSTEMS["mran"].settings.items() if key not in ("pooling", "gate")},
    "feature_groups": FEATURE_GROUPS,
}
SINGLE, HARD, LAYERS, WHOLE = "single task", "hard sharing", "a layer per school", "MRAN"
ALONE = {name: f"{name} alone" for name in RELATIONS}
WITHOUT = {name: f"MRAN without {name}" for name in RELATIONS}
SCORERS = {name: f"MRAN, {name}" for name in ATTENTION_SCORERS if name != SYSTEM["attention_scorer"]}
# What a `SchoolReader` is given: without MRAN, whole, each module alone, each left out, each other scorer.
ARMS: dict[str, dict[str, Any]] = {
    SINGLE: {"has_shared": False, "task_interaction": "none"},
    HARD: {"has_layers": False, "task_interaction": "none"},
    LAYERS: {"task_interaction": "none"},
    WHOLE: SYSTEM,
    **{arm: {**SYSTEM, "mran_relations": [name]} for name, arm in ALONE.items()},
    **{
        arm: {**SYSTEM, "mran_relations": [other for other in RELATIONS if other != name]}
        for name, arm in WITHOUT.items()
    },
    **{arm: {**SYSTEM, "attention_scorer": name} for name, arm in SCORERS.items()},
}


class Errors(NamedTuple):
    """An arm's test errors.

    Args:
        rmse: (seeds,) root of the mean squared error over students.
        explained: (seeds,) explained variance, 100 (1 - squared error / variance of the scores).
    """

    rmse: np.ndarray
    explained: np.ndarray


def stacked_students(schools: Sequence[Schools], split: str) -> Students:
    """Return a split of several seeds' schools as one, with a leading axis."""
    return Students(*(torch.stack(parts) for parts in zip(*(one.splits[split] for one in schools))))


def losses(stack: Stack, students: Students, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Yield the losses of one pass, the same students in the same order for all models of a seed."""
    for rows in torch.randperm(students.scores.shape[1], generator=generator).split(BATCH_SIZE):
        given, schools, scores = (part[:, rows] for part in students)
        predicted, added = stack(given, schools).unbind(dim=1)
        yield ((predicted - scores).square() + added).mean(dim=1).sum()


@torch.no_grad()
def squared_error(stack: Stack, students: Students) -> np.ndarray:
    """Return the mean squared error over students (seeds,)."""
    return (stack(students.features, students.schools)[:, 0] - students.scores).square().mean(dim=1).numpy()


def measure(arm: str, schools: Sequence[Schools], seeds: Sequence[int], epochs: int, bar: tqdm) -> Errors:
    """Train an arm on every seed; return the test errors of the epoch that is best by validation."""
    splits = {split: stacked_students(schools, split) for split in ("train", *HELD_OUT)}
    errors: dict[str, list[np.ndarray]] = {split: [] for split in HELD_OUT}
    stack = Stack([SchoolReader(seed, **ARMS[arm]) for seed in seeds])
    optimizer = torch.optim.AdamW(stack.learned, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    generator = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        train(optimizer, losses(stack, splits["train"], generator))
        for split, by_epoch in errors.items():
            by_epoch.append(squared_error(stack, splits[split]))
        bar.update()
    best = np.argmin(errors["validation"], axis=0)
    squared = np.stack(errors["test"])[best, np.arange(len(best))]
    return Errors(squared**0.5, 100 * (1 - squared / splits["test"].scores.numpy().var(axis=1)))


def run_ablation(seeds: Sequence[int], epochs: int = EPOCHS, arms: Sequence[str] = tuple(ARMS)) -> dict[str, Errors]:
    """Return every arm's test errors."""
    schools = [draw_schools(seed) for seed in seeds]
    with tqdm(total=len(arms) * epochs, desc="arms", unit="epoch") as bar:
        return {arm: measure(arm, schools, seeds, epochs, bar) for arm in arms}
