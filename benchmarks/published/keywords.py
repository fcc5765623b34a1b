"""Keywords: a task's label is the presence of its word in a text."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from benchmarks.published.stacks import Batch, Heads, Stack, build_parts, train
from benchmarks.published.tables import Claim, mean_and_range, table
from hf_mtl.modeling.encoder_tensors import EncodedTokens

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


def run_keywords(seeds: Sequence[int]) -> dict[int, Keywords]:
    """Return by lexical rank what tasks attend to."""
    with tqdm(total=len(LEXICAL_RANKS) * KEYWORD_STEPS, desc="keywords", unit="step") as bar:
        return {rank: read_keywords(rank, seeds, bar) for rank in LEXICAL_RANKS}


def keyword_table(ranks: dict[int, Keywords]) -> list[str]:
    """Attention on a task's own word and on the others'."""
    rows = [["lexical_rank", "attention on the own word", "on another task's word", "accuracy"]]
    for rank, read in ranks.items():
        others = read.attention[:, ~np.eye(KEYWORDS, dtype=bool)].mean(axis=1)
        on_its_word = read.attention.diagonal(axis1=1, axis2=2).mean(axis=1)
        rows.append([str(rank), mean_and_range(on_its_word), mean_and_range(others), f"{read.accuracy.mean():.3f}"])
    return table(*rows)


def keyword_claims(ranks: dict[int, Keywords]) -> list[Claim]:
    """Whether each task attends to its own word."""
    claims = []
    for rank, read in ranks.items():
        mean = read.attention.mean(axis=0)  # (tasks, words)
        text = f"each task gives its own word, where it stands, more than 0.9 of its attention (lexical_rank {rank})"
        claims.append(
            Claim(text, ", ".join(f"{share:.2f}" for share in mean.diagonal()), bool((mean.diagonal() > 0.9).all()))
        )
    return claims
