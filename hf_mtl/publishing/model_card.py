"""The README.md of a checkpoint."""

from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..training.trainer import MultiTaskTrainer

_TEMPLATE = Path(__file__).with_name("model_card_template.md")


def write_model_card(
    folder: Path, trainer: "MultiTaskTrainer", scores: Mapping[str, Mapping[str, float]], encoder: str
) -> None:
    """Write what the checkpoint is, what it scores and how to ask it."""
    rows = {name: len(train) for name, train in trainer.mixture.train.items()}
    tasks = [
        f"| {spec.name} | {spec.problem_type} | {', '.join(spec.input_fields)} | {rows[spec.name]} |"
        for spec in trainer.mixture.specs
    ]
    results = [
        f"| {task} | {metric} | {value:.1f} |"
        for task, task_scores in scores.items()
        for metric, value in task_scores.items()
    ]
    text = Template(_TEMPLATE.read_text("utf-8")).substitute(
        name=folder.name, encoder=encoder, tasks="\n".join(tasks), results="\n".join(results)
    )
    (folder / "README.md").write_text(text, "utf-8")
