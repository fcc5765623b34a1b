"""A step whose tasks' gradients are balanced: one backward pass per task and batch, one sum over processes, one Gram
matrix.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import torch
from torch import nn

from ..balancing.gradient_balancing import GRADIENT_BALANCERS, GivenBalancer, GradientBalancer
from ..modeling.errors import InputError
from .arguments import MultiTaskTrainingArguments

_Gradients = list[torch.Tensor | None]
# What `draw_every_task` adjusts.
SET_BY_BALANCING = ("mixing_strategy", "batch_form", "gradient_accumulation_steps")


class GradientBalance:
    """Keeps the tasks' gradients of a step apart and puts their combination in their place.

    Parameters that are not balanced keep the sum of the tasks' gradients; a task's own keep its own.

    Args:
        balancer: Weighs the gradients.
        balanced: The parameters whose gradients it looks at; T x their size is what the step holds in memory.
        num_tasks: T.
    """

    def __init__(self, balancer: GradientBalancer, balanced: Sequence[nn.Parameter], num_tasks: int) -> None:
        self.balancer, self.balanced = balancer, list(balanced)
        self.gradients: list[_Gradients] = [[None] * len(self.balanced) for _ in range(num_tasks)]

    def backward(self, losses: torch.Tensor, present: Sequence[int]) -> None:
        """Run a backward pass for each task that is present in a batch, its losses (tasks,) weighted."""
        for place, task in enumerate(present):
            losses[task].backward(retain_graph=place < len(present) - 1)
            gradients = self.gradients[task]
            for index, parameter in enumerate(self.balanced):
                if parameter.grad is not None:
                    before = gradients[index]
                    gradients[index] = parameter.grad if before is None else before.add_(parameter.grad)
                    parameter.grad = None

    def finish(
        self,
        present: Sequence[int],
        parameters: Iterable[nn.Parameter],
        reduce: Callable[[torch.Tensor], torch.Tensor] | None,
    ) -> None:
        """Combine the gradients of the step's tasks into `.grad`.

        Args:
            present: The tasks with a label in the step.
            parameters: All parameters of the model.
            reduce: Sums a tensor over the processes; None where there is one.
        """
        rows = [self.gradients[task] for task in present]
        if reduce is not None:
            rows = [_summed(self.balanced, row, reduce) for row in rows]
            balanced = {id(parameter) for parameter in self.balanced}
            others = [other for other in parameters if other.requires_grad and id(other) not in balanced]
            for parameter, gradient in zip(others, _summed(others, [other.grad for other in others], reduce)):
                parameter.grad = gradient
        weights = self.balancer(self._gramian(rows)).tolist()
        for index, parameter in enumerate(self.balanced):
            parts = [(weight, row[index]) for weight, row in zip(weights, rows)]
            present_parts = [(weight, gradient) for weight, gradient in parts if gradient is not None]
            if present_parts:
                combined = torch.zeros_like(parameter)
                for weight, gradient in present_parts:
                    combined.add_(gradient, alpha=weight)
                parameter.grad = combined
        self.gradients = [[None] * len(self.balanced) for _ in self.gradients]

    def _gramian(self, rows: list[_Gradients]) -> torch.Tensor:
        """(tasks, tasks) products of the tasks' gradients; what a task does not touch counts as 0."""
        gramian = torch.zeros(len(rows), len(rows), dtype=torch.float64)
        for column in zip(*rows):
            touched = [task for task, gradient in enumerate(column) if gradient is not None]
            if touched:
                stacked = torch.stack([column[task].flatten() for task in touched])
                places = torch.tensor(touched)
                gramian[places.unsqueeze(1), places] += (stacked @ stacked.T).cpu().double()
        return gramian


def _summed(
    parameters: Sequence[nn.Parameter], gradients: _Gradients, reduce: Callable[[torch.Tensor], torch.Tensor]
) -> _Gradients:
    """Return gradients summed over the processes; None where no process has one."""
    if not parameters:
        return []
    touched = torch.tensor([float(gradient is not None) for gradient in gradients], device=parameters[0].device)
    flat = torch.cat(
        [
            (torch.zeros_like(parameter) if gradient is None else gradient).flatten()
            for parameter, gradient in zip(parameters, gradients)
        ]
    )
    pieces = reduce(flat).split([parameter.numel() for parameter in parameters])
    return [
        piece.view_as(parameter) if anywhere else None
        for piece, parameter, anywhere in zip(pieces, parameters, reduce(touched).tolist())
    ]


def choose_balancer(
    given: GradientBalancer | Callable[[torch.Tensor], torch.Tensor] | None, args: MultiTaskTrainingArguments
) -> GradientBalancer | None:
    """Return the balancer that was given, or the one that `args.gradient_balancing` names, or None.

    Raises:
        InputError: Settings under which a step's gradients cannot be kept apart.
    """
    if given is None and args.gradient_balancing is None:
        return None
    if args.fp16:
        raise InputError(
            "gradient_balancing and fp16 do not go together: the scaler would scale each task's gradients by another "
            "number; use --bf16 true."
        )
    if args.fsdp or args.deepspeed:
        raise InputError(
            "gradient_balancing needs the whole gradients of every task on each process, which FSDP and DeepSpeed "
            "divide; train without them, or with balanced_parameters='adapters' under plain data parallelism."
        )
    if isinstance(given, GradientBalancer):
        return given
    if given is not None:
        return GivenBalancer(given, args.seed)
    options = cast(dict[str, Any], args.gradient_balancing_options or {})
    return GRADIENT_BALANCERS[str(args.gradient_balancing)](args.seed, **options)


def draw_every_task(mixing: Any, args: MultiTaskTrainingArguments, sources: int) -> None:
    """Set the arguments so that every step holds a batch of every source of rows, each of its own length.

    Raises:
        InputError: The arguments ask for another mixture.
    """
    if mixing is not None or args.mixing_strategy not in ("proportional", "round_robin"):
        raise InputError(
            "gradient_balancing draws every task in every step; leave out mixing_strategy and `mixing`, and say with "
            "weights what counts more."
        )
    if args.global_batch_size is not None or args.tokens_per_batch is not None:
        raise InputError(
            "With gradient_balancing a step has per_device_train_batch_size rows of every task; leave out "
            "global_batch_size and tokens_per_batch."
        )
    accumulated = args.gradient_accumulation_steps * sources
    args.adjust(mixing_strategy="round_robin", batch_form="one_task", gradient_accumulation_steps=accumulated)
