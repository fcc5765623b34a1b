"""The library's parts on plain vectors, and the training of the models of all seeds at once.

Every part is the library's own class, built from a `MultiTaskAttentionConfig`. Parameters of the seeds' models are
stacked and `torch.func.vmap` runs the class on each, which is training one after the other, since Adam treats every
number by itself. All is a function of the seeds.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, stack_module_state, vmap
from transformers import BertConfig

from hf_mtl import MultiTaskAttentionConfig, MultiTaskAttentionModel
from hf_mtl.modeling.modeling_multitask import MultiTaskModule

Batch = tuple[torch.Tensor, torch.Tensor]


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
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(hidden, size), nn.ReLU(), nn.Linear(size, 1)) if size else nn.Linear(hidden, 1)
            for _ in range(tasks)
        )

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Return (batch, tasks) of states (batch, tasks, hidden)."""
        return torch.cat([head(states[:, task]) for task, head in enumerate(self.layers)], dim=1)


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
            states = self.bottom(given).unsqueeze(1).expand(-1, len(self.heads.layers), -1)
        read = self.interaction.weights if weights else self.interaction
        output = read(states, self.task_encoder())
        return output if weights else self.heads(output)


class Stack:
    """Models of one shape as one: inputs, parameters and outputs have a leading axis, one place a model."""

    def __init__(self, models: Sequence[nn.Module]) -> None:
        self.model = models[0]
        self.parameters, self.buffers = stack_module_state(list(models))
        kept = dict(self.model.named_parameters())
        self.learned = [tensor for name, tensor in self.parameters.items() if kept[name].requires_grad]

    def __call__(self, *given: torch.Tensor, **options: Any) -> torch.Tensor:
        """Return the outputs (models, ...) for inputs (models, ...)."""

        def one(state: Any, *inputs: torch.Tensor) -> torch.Tensor:
            return functional_call(self.model, state, inputs, options)

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
    for rows in torch.randperm(data[0].shape[1], generator=generator).split(batch_size):
        yield data[0][:, rows], data[1][:, rows]


@torch.no_grad()
def test_error(stack: Stack, data: Batch) -> np.ndarray:
    """Mean squared error (models,)."""
    return (stack(data[0]) - data[1]).square().mean(dim=(1, 2)).numpy()


@torch.no_grad()
def mean_weights(stack: Stack, data: Batch) -> np.ndarray:
    """Return the attention (models, tasks, tasks), mean over rows and heads."""
    return stack(data[0], weights=True).mean(dim=(1, 2)).numpy()


def stacked(batches: Sequence[Batch]) -> Batch:
    """Return the models' batches as one, with a leading axis."""
    first, second = zip(*batches)
    return torch.stack(first), torch.stack(second)
