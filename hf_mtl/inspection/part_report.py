"""The contribution of each part of a trained model: how far it moved, and what the scores are without it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import torch
from torch import nn

from ..data.features import FeatureDataset
from ..data.overlap import input_keys
from ..metrics import task_score
from ..modeling.gate import OpenGate
from ..modeling.interaction import NoInteraction
from ..modeling.modeling_multitask import MultiTaskAttentionModel
from ..modeling.task_tensors import owner_of, owners_by_key
from ..paired_intervals import LEVEL, AnsweredRows, PairedScores, holm, mean_difference, paired_scores
from ..screen import table
from ..training.scoring import AVERAGE, answered_rows
from .run_report import best_step_of

if TYPE_CHECKING:
    from ..training.trainer import MultiTaskTrainer

_LEGEND = (
    f"  ({100 * LEVEL:.0f} % intervals over the validation rows; verdicts are corrected for the",
    "  number of tasks (Holm); another seed may differ)",
)


class ValidationAnswers(NamedTuple):
    """An evaluation of the validation rows.

    Args:
        metrics: What `MultiTaskTrainer.evaluate` returns.
        rows: By task, the answers.
        answers: The same as `MultiTaskTrainer.predict` returns them.
    """

    metrics: dict[str, float]
    rows: dict[str, AnsweredRows]
    answers: Mapping[str, Sequence[Any]]


def answer_validation_rows(trainer: "MultiTaskTrainer") -> ValidationAnswers:
    """Answer the validation rows; every process must call it."""
    output = trainer.evaluation_loop(trainer.get_eval_dataloader(), description="Validation")
    metrics = output.metrics or {}
    # Ends what callbacks show of an evaluation.
    trainer.control = trainer.callback_handler.on_predict(trainer.args, trainer.state, trainer.control, metrics)
    answers = cast(Any, output.predictions)
    data = cast(FeatureDataset, trainer.eval_dataset)
    by_task = answered_rows(trainer.specs, data.rows, answers)
    rows = {name: by_task[name] for name in trainer.specs if name in by_task}
    return ValidationAnswers(metrics, rows, answers)


def is_logged(trainer: "MultiTaskTrainer") -> bool:
    """Return whether the history holds an evaluation of the model as it is, made while it trained."""
    state = trainer.state
    step = best_step_of(trainer.args, state) or state.global_step
    return any(entry.get("step") == step and f"eval_{AVERAGE}" in entry for entry in state.log_history)


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

    def lines(self, trainer: "MultiTaskTrainer", whole: ValidationAnswers) -> list[str]:
        """Return the report; every process must call it.

        Args:
            trainer: Has trained the model.
            whole: The validation rows as the model answers them.
        """
        model = trainer.model
        report = ["What the parts contribute (validation rows):", _encoder_sizes(model)]
        for part, (moved, size) in self.movement(model).items():
            report.append(f"  {part}: weights moved by {moved:.3f} (norm; {size:.3f} at the start)")
        gate, gates = _mean_gate(model)
        changes = {"telling tasks apart": ("tasks shuffled", _shuffled_tasks(model))}
        if not isinstance(model.mtl.interaction, NoInteraction):
            changes = {"the interaction": ("interaction bypassed", _bypassed_interaction(model)), **changes}
        self.means = {"as trained": whole.metrics[f"eval_{AVERAGE}"]}
        parts: dict[str, dict[str, PairedScores]] = {}
        with gate:
            for part, (name, change) in changes.items():
                with change:
                    without = answer_validation_rows(trainer)
                self.means[name] = without.metrics[f"eval_{AVERAGE}"]
                parts[part] = _paired(trainer, whole, without)
        if not isinstance(model.mtl.gate, OpenGate):
            report.append(f"  mean gate: {sum(gates) / len(gates):.3f}")
        return [*report, *_contributions(whole, parts), *map(_verdict, parts, parts.values())]

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


def _paired(
    trainer: "MultiTaskTrainer", whole: ValidationAnswers, without: ValidationAnswers
) -> dict[str, PairedScores]:
    """By task, what the model scores above itself without a part."""
    rows = cast(FeatureDataset, trainer.eval_dataset).rows
    return {
        name: paired_scores(answered, without.rows[name], input_keys(rows[name], trainer.specs[name]))
        for name, answered in whole.rows.items()
    }


def _contributions(whole: ValidationAnswers, parts: Mapping[str, Mapping[str, PairedScores]]) -> list[str]:
    """A line per task: its score, and what each part adds to it."""
    rows = [
        [name, f"{task_score(answered.score()):.1f}", *(str(paired[name].difference()) for paired in parts.values())]
        for name, answered in whole.rows.items()
    ]
    means = [str(mean_difference(list(paired.values()))) for paired in parts.values()]
    rows.append(["mean over tasks", f"{whole.metrics[f'eval_{AVERAGE}']:.1f}", *means])
    header = ["task", "score", *(f"{part} adds" for part in parts)]
    return [*(f"  {line}" for line in table(header, rows)), *_LEGEND]


def _verdict(part: str, paired: Mapping[str, PairedScores]) -> str:
    differences = {name: task.difference() for name, task in paired.items()}
    if all(one.value == 0 and one.p == 1 for one in differences.values()):
        return f"  {part} is IDLE here: without it no score changes"
    corrected = holm({name: one.p for name, one in differences.items()})
    signs = {name: np.sign(one.value) if corrected[name] < 1 - LEVEL else 0 for name, one in differences.items()}
    helped, harmed, open_tasks = ([name for name in signs if signs[name] == sign] for sign in (1, -1, 0))
    said = [f"helps {', '.join(helped)}"] if helped else []
    said += [f"does harm to {', '.join(harmed)}"] if harmed else []
    if not said:
        return f"  {part}: these rows cannot tell whether it helps any task"
    if open_tasks:
        said.append(f"for {', '.join(open_tasks)} these rows cannot tell")
    return f"  {part}: {'; '.join(said)}"


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
