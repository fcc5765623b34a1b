"""Which parameters learn how fast."""

from collections.abc import Collection, Iterable
from typing import Any

from torch import nn

from ..modeling.task_parameters import owner_of, owners_by_key
from ..tasks import TaskSpec
from .arguments import MultiTaskTrainingArguments


def parameter_groups(
    model: nn.Module, args: MultiTaskTrainingArguments, specs: Iterable[TaskSpec], decayed: Collection[str]
) -> list[dict[str, Any]]:
    """Return an optimizer's groups: the encoder at `learning_rate`, everything behind it at `parts_learning_rate`, and
    a task's own parameters at the rate its row gives.

    Args:
        model: The model, wrapped or not.
        args: The rates and the weight decay.
        specs: The tasks.
        decayed: Names of the parameters that weight decay reaches.
    """
    rates = {spec.name: spec.learning_rate for spec in specs if spec.learning_rate is not None}
    owners = owners_by_key(rates)
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            shared = args.parts_learning_rate if ".mtl." in f".{name}" else args.learning_rate
            rate = rates.get(owner_of(name, owners) or "", shared)
            assert rate is not None
            groups.setdefault((float(rate), name in decayed), []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "weight_decay": args.weight_decay if decays else 0.0}
        for (rate, decays), parameters in groups.items()
    ]
