"""A loss weighting among the steps of a run: what it reads of them, and when."""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import torch
from torch import nn

from ..balancing.loss_weighting import LOSS_WEIGHTINGS
from ..balancing.weighting_base import LossWeighting, WeightingOptions
from ..data.label_kinds import label_kind
from ..data.mixture import Mixture
from .arguments import MultiTaskTrainingArguments

# What weights follow from losses of the step itself, where it is one batch.
_BEFORE = ("step_losses", "losses_after")


class StepWeighting:
    """Collects a step's losses for a loss weighting.

    Args:
        weighting: The weighting.
        reduce: Sums a tensor over the processes.
        shared: The last shared matrix, for weightings that read gradients.
    """

    def __init__(
        self,
        weighting: LossWeighting,
        reduce: Callable[[torch.Tensor], torch.Tensor],
        shared: nn.Parameter | None = None,
    ) -> None:
        self.weighting, self.reduce, self.shared = weighting, reduce, shared
        self.sums: torch.Tensor | None = None
        self.gradients: torch.Tensor | None = None
        # (tasks,) mean losses of the last step.
        self.losses: torch.Tensor | None = None

    def weights(self, sums: torch.Tensor, labels: torch.Tensor, whole_step: bool) -> torch.Tensor:
        """Return the weights (tasks,) for a batch of the step at hand; nothing is learned from it yet.

        Args:
            sums: (tasks,) the batch's sums of losses.
            labels: (tasks,) the step's numbers of labels.
            whole_step: Whether the batch is all that this process has of the step.
        """
        weighting = self.weighting
        if whole_step and weighting.needs in _BEFORE:
            # What it will have learned at the end of the step.
            weighting = copy.deepcopy(weighting)
            weighting.observe(self._means(sums.detach(), labels), labels > 0)
        return weighting.weights().to(sums.dtype).to(sums.device)

    def add(self, sums: torch.Tensor, labels: torch.Tensor) -> None:
        """Take a batch of the step at hand, before its backward pass; see `weights`."""
        self.sums = sums.detach() if self.sums is None else self.sums + sums.detach()
        if self.weighting.needs == "gradient_norms":
            self._add_gradients(sums, labels)

    def _means(self, sums: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """(tasks,) mean losses of the step, of this process's sums."""
        return self.reduce(sums) / labels.clamp(min=1)

    def _add_gradients(self, sums: torch.Tensor, labels: torch.Tensor) -> None:
        assert self.shared is not None
        if self.gradients is None:
            self.gradients = self.shared.new_zeros(len(sums), self.shared.numel())
        # A batch without a label of a task has the sum 0; nothing is to be done for it.
        for task, (loss, count) in enumerate(zip(sums.tolist(), labels.tolist())):
            if count and loss:
                mean = sums[task] / count
                (gradient,) = torch.autograd.grad(mean, [self.shared], retain_graph=True, allow_unused=True)
                if gradient is not None:
                    self.gradients[task] += gradient.flatten()

    def end_step(self, labels: torch.Tensor) -> None:
        """Let the weighting learn from the step whose batches have all been seen."""
        present = labels > 0
        if self.weighting.needs == "nothing":
            self.weighting.observe(torch.zeros_like(labels), present)
        else:
            self.losses = self._means(cast(torch.Tensor, self.sums), labels)
            self.weighting.observe(self.losses, present)
        if self.gradients is not None:
            norms = self.reduce(self.gradients).norm(dim=1)
            self.weighting.observe_gradients(norms, cast(torch.Tensor, self.losses), present)
        self.sums = self.gradients = None

    def after_step(self, sums: torch.Tensor, labels: torch.Tensor) -> None:
        """Take this process's sums of losses (tasks,) of the same batches after the step."""
        assert self.losses is not None
        self.weighting.observe_after(self.losses, self._means(sums, labels), labels > 0)


def build_loss_weighting(
    args: MultiTaskTrainingArguments, mixture: Mixture, names: Sequence[str], epoch_steps: int
) -> LossWeighting:
    """Return the weighting that `args.loss_weighting` names, for the tasks in the order of `names`."""
    specs = {spec.name: spec for spec in mixture.specs}
    options = WeightingOptions(
        learning_rate=args.loss_weighting_learning_rate,
        temperature=args.loss_weighting_temperature,
        smoothing=args.loss_smoothing,
        chance_losses=[label_kind(specs[name]).chance_loss(specs[name], mixture.train.get(name)) for name in names],
        epoch_steps=epoch_steps,
        restoring_force=args.gradnorm_alpha,
        seed=args.seed,
    )
    return LOSS_WEIGHTINGS[args.loss_weighting]([specs[name].setting("weight") for name in names], options)


def task_gradient_norms(owned: Mapping[str, Sequence[nn.Parameter]]) -> dict[str, float]:
    """Return the norm of the gradient of each task's own parameters; a task without gradient is left out."""
    norms = {}
    for name, parameters in owned.items():
        gradients = [tensor.grad for tensor in parameters if tensor.grad is not None]
        if gradients:
            norms[name] = float(torch.linalg.vector_norm(torch.stack([gradient.norm() for gradient in gradients])))
    return norms
