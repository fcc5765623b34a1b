"""The contribution of each part of a trained model: how far it moved, and what the scores are without it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import ProgressCallback

from ..modeling.gate import OpenGate
from ..modeling.interaction import NoInteraction
from ..modeling.modeling_multitask import MultiTaskAttentionModel
from ..modeling.task_tensors import owner_of, owners_by_key
from ..training.scoring import AVERAGE

if TYPE_CHECKING:
    from ..training.trainer import MultiTaskTrainer

# A part is called idle where the mean score changes by less without it (points); a change below what another seed
# would make anyway is called too small to tell.
_IDLE_POINTS = 0.1
_TELLING_POINTS = 1.0


def initial_parts(model: MultiTaskAttentionModel) -> dict[str, torch.Tensor]:
    """Return a copy of the tensors behind the encoder, to measure later how far they moved."""
    return {name: tensor.detach().cpu().clone() for name, tensor in model.mtl.named_parameters()}


@dataclass
class PartReport:
    """Measures parts against where they started.

    Args:
        start: What `initial_parts` returned.
        means: Filled in by `lines`: the mean over tasks as the model is, and without parts of it.
    """

    start: Mapping[str, torch.Tensor]
    means: dict[str, float] = field(default_factory=dict)

    def lines(self, trainer: "MultiTaskTrainer", score: float) -> list[str]:
        """Return the report for a trainer whose evaluation gave `score` as the mean over tasks."""
        model = trainer.model
        report = ["What the parts contribute (validation rows):", _encoder_sizes(model)]
        for part, (moved, size) in self.movement(model).items():
            report.append(f"  {part}: weights moved by {moved:.3f} (norm; {size:.3f} at the start)")
        gate, gates = _mean_gate(model)
        with gate:
            shuffled = _score_without(trainer, _shuffled_tasks(model))
        self.means = {"as trained": score, "tasks shuffled": shuffled}
        if not isinstance(model.mtl.gate, OpenGate):
            report.append(f"  mean gate: {sum(gates) / len(gates):.3f}")
        if not isinstance(model.mtl.interaction, NoInteraction):
            bypassed = self.means["interaction bypassed"] = _score_without(trainer, _bypassed_interaction(model))
            report.append(_verdict("interaction bypassed", score, bypassed, "the interaction"))
        report.append(_verdict("task states shuffled among tasks", score, shuffled, "telling tasks apart"))
        return report

    def movement(self, model: MultiTaskAttentionModel) -> dict[str, tuple[float, float]]:
        """Return for each part the norm of its weights' change and their norm at the start."""
        parts: dict[str, list[tuple[float, float]]] = {}
        for name, tensor in model.mtl.named_parameters():
            before = self.start[name]
            change = (tensor.detach().cpu() - before).square().sum().item()
            parts.setdefault(name.split(".")[0], []).append((change, before.square().sum().item()))
        return {
            part: (sum(change for change, _ in tensors) ** 0.5, sum(size for _, size in tensors) ** 0.5)
            for part, tensors in parts.items()
        }


def _encoder_sizes(model: MultiTaskAttentionModel) -> str:
    """How many parameters of the encoder tasks share, and how many belong to one alone."""
    owners, shared = owners_by_key(model.config.task_names), 0
    of_tasks = dict.fromkeys(model.config.task_names, 0)
    for name, tensor in model.encoder.named_parameters(prefix="encoder"):
        owner = owner_of(name, owners)
        if owner is None:
            shared += tensor.numel()
        else:
            of_tasks[owner] += tensor.numel()
    apart = f", {max(of_tasks.values()):,} of each task's own" if any(of_tasks.values()) else ""
    return f"  encoder: {shared:,} shared parameters{apart}"


def _verdict(what: str, score: float, without: float, part: str) -> str:
    if abs(score - without) < _IDLE_POINTS:
        verdict = f": {part} is IDLE here, it changes nothing"
    elif abs(score - without) < _TELLING_POINTS:
        verdict = f": too small a change for one run to tell whether {part} helps"
    else:
        verdict = f": {part} {'helps' if score > without else 'does harm'} here"
    return f"  {what}: mean score {without:.1f} instead of {score:.1f}{verdict}"


def _score_without(trainer: "MultiTaskTrainer", change: Any) -> float:
    """Return the mean over tasks of the validation scores while `change` holds."""
    with change:
        output = trainer.evaluation_loop(trainer.get_eval_dataloader(), description="Parts")
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, ProgressCallback):
            # It would go on with the bar of this evaluation in the next one.
            callback.on_predict(trainer.args, trainer.state, trainer.control)
    return (output.metrics or {})[f"eval_{AVERAGE}"]


@contextmanager
def _bypassed_interaction(model: MultiTaskAttentionModel) -> Iterator[None]:
    """Let tasks not read each other for a while."""
    interaction = model.mtl.interaction
    model.mtl.interaction = NoInteraction(model.config)
    try:
        yield
    finally:
        model.mtl.interaction = interaction


@contextmanager
def _shuffled_tasks(model: MultiTaskAttentionModel) -> Iterator[None]:
    """Give every head the state of the next task for a while."""

    def ask_all(module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict]:
        # Where only the tasks asked of a row are computed, there is no next one.
        return given, {**named, "asked_tasks": None}

    def shuffle(module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        token_states, task_states, entries = given
        return token_states, task_states.roll(1, dims=1), entries

    hooks = [head.register_forward_pre_hook(shuffle) for head in model.mtl.heads.values()]
    hooks.append(model.register_forward_pre_hook(ask_all, with_kwargs=True))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _mean_gate(model: MultiTaskAttentionModel) -> tuple[Any, list[float]]:
    """Return a context in which the gate's batch means are appended to a list, and the list."""
    means: list[float] = []

    @contextmanager
    def watching() -> Iterator[None]:
        hook = model.mtl.gate.register_forward_hook(lambda module, given, gates: means.append(gates.mean().item()))
        try:
            yield
        finally:
            hook.remove()

    return watching(), means
