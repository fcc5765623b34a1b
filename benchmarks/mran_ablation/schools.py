"""School-like data: schools in planted clusters, and exam scores of their students."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

CLUSTERS, CLUSTER_SCHOOLS = 3, 4
SCHOOLS = CLUSTERS * CLUSTER_SCHOOLS
NUMBERS, GROUPS = 10, (2, 3, 3, 8)
FEATURES = NUMBERS + sum(GROUPS)
# Training students of the schools, from the smallest to the largest; a school has as many of its own in all seeds.
SMALLEST, LARGEST = 20, 200
HELD_OUT = {"validation": 30, "test": 100}
# Variances of what a score is made of, and of its noise.
SHARES = {"shared": 0.35, "cluster": 0.35, "school": 0.13, "nonlinear": 0.13, "level": 0.04}
NOISE = 0.5


@dataclass
class Schools:
    """Schools and their students.

    Args:
        clusters: (schools,) the cluster of each.
        weights: (schools, features) the linear part of each one's scores.
        splits: By split the students: features (students, features), their schools and their scores (students,).
    """

    clusters: np.ndarray
    weights: torch.Tensor
    splits: dict[str, "Students"]


class Students(NamedTuple):
    """Students of all schools; with a leading axis, of several seeds.

    Args:
        features: (students, features).
        schools: (students,) the school of each.
        scores: (students,) exam scores.
    """

    features: torch.Tensor
    schools: torch.Tensor
    scores: torch.Tensor


def school_sizes() -> np.ndarray:
    """Return the training students of each school (schools,), large and small ones in every cluster."""
    sizes = np.geomspace(SMALLEST, LARGEST, SCHOOLS).round().astype(int)
    return sizes.reshape(CLUSTER_SCHOOLS, CLUSTERS).T.reshape(-1)


def draw_features(students: int, generator: torch.Generator) -> torch.Tensor:
    """Return numbers and flags of groups (students, features), each of mean 0 and variance 1."""
    columns = [torch.randn(students, NUMBERS, generator=generator)]
    for size in GROUPS:
        groups = torch.randint(size, (students,), generator=generator)
        flags = nn.functional.one_hot(groups, size).float()
        columns.append((flags - 1 / size) / (1 / size * (1 - 1 / size)) ** 0.5)
    return torch.cat(columns, dim=1)


def draw_schools(seed: int) -> Schools:
    """Return schools whose scores share a part with all, a part with their cluster, and have one of their own."""
    generator = torch.Generator().manual_seed(seed)

    def directions(count: int) -> torch.Tensor:
        # Of length 1, so that what lies along them has about the variance 1.
        return nn.functional.normalize(torch.randn(count, FEATURES, generator=generator), dim=1)

    clusters = np.repeat(np.arange(CLUSTERS), CLUSTER_SCHOOLS)
    shared, by_cluster, by_school = directions(1), directions(CLUSTERS)[clusters], directions(SCHOOLS)
    parts = {"shared": shared, "cluster": by_cluster, "school": by_school}
    weights = sum(SHARES[name] ** 0.5 * part for name, part in parts.items())
    bends, phases = directions(CLUSTERS)[clusters], torch.randn(CLUSTERS, generator=generator)[clusters]
    levels = SHARES["level"] ** 0.5 * torch.randn(SCHOOLS, generator=generator)
    splits, sizes_of = {}, {"train": school_sizes(), **{name: np.full(SCHOOLS, n) for name, n in HELD_OUT.items()}}
    for split, sizes in sizes_of.items():
        schools = torch.from_numpy(np.repeat(np.arange(SCHOOLS), sizes))
        given = draw_features(len(schools), generator)
        # sin(2 s + b) of a standard normal s has about the variance 1/2.
        waves = (2 * (given * bends[schools]).sum(dim=1) + phases[schools]).sin() * 2**0.5
        scores = (given * weights[schools]).sum(dim=1) + SHARES["nonlinear"] ** 0.5 * waves + levels[schools]
        noise = NOISE**0.5 * torch.randn(len(schools), generator=generator)
        splits[split] = Students(given, schools, scores + noise)
    return Schools(clusters, weights, splits)
