"""One run of the table."""

import copy
import dataclasses
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel, PrinterCallback, set_seed

from benchmarks.systems_table.data import Budget
from benchmarks.systems_table.differences import score
from hf_mtl import InputError, MultiTaskAttentionModel, MultiTaskTrainer, MultiTaskTrainingArguments
from hf_mtl.data.label_kinds import label_kind
from hf_mtl.data.mixture import Mixture
from hf_mtl.modeling.systems import SYSTEMS
from hf_mtl.tasks import LABEL_FIELD

BASELINE = "hard_sharing"


@dataclass(frozen=True)
class Run:
    """A run of the table.

    Args:
        dataset: Its name.
        system: Likewise.
        seed: Draws the training rows, their order and the start of what is new.
    """

    dataset: str
    system: str
    seed: int


@dataclass
class TaskAnswers:
    """What a run answered of one task.

    Args:
        metrics: Their names.
        predictions: Row by row.
        references: What is true.
    """

    metrics: list[str]
    predictions: list[Any]
    references: list[Any]

    @property
    def score(self) -> float:
        """The mean of the task's metrics."""
        return score(self.metrics, self.predictions, self.references)


@dataclass
class Result:
    """A finished run.

    Args:
        run: What was run.
        settings: The system's.
        budget: What it was given, and on which encoder.
        training_seconds: The processor's, of one thread.
        scoring_seconds: Likewise.
        parameters: How many numbers the model learns.
        tasks: What it answered, by task.
        refusal: Why the system cannot be run on the data set, where it cannot; the rest is then empty.
    """

    run: Run
    settings: dict[str, Any]
    budget: dict[str, Any]
    training_seconds: float = 0.0
    scoring_seconds: float = 0.0
    parameters: int = 0
    tasks: dict[str, TaskAnswers] = dataclasses.field(default_factory=dict)
    refusal: str = ""

    @property
    def seconds(self) -> float:
        """Of training and scoring."""
        return self.training_seconds + self.scoring_seconds


def settings_of(system: str) -> dict[str, Any]:
    """Return a system's settings as a file holds them."""
    return dict(json.loads(json.dumps(dict(SYSTEMS[system].settings))))


def budget_of(budget: Budget, encoder: str) -> dict[str, Any]:
    """Return what a file says of a run's budget."""
    return {**dataclasses.asdict(budget), "encoder": encoder}


def train(run: Run, encoder: PreTrainedModel, mixture: Mixture, budget: Budget) -> Result:
    """Train a system and answer the rows that are scored.

    Args:
        run: Says which system.
        encoder: A loaded encoder, which is copied.
        mixture: The rows of this seed.
        budget: How long.
    """
    set_seed(run.seed)
    result = Result(run, settings_of(run.system), {})
    try:
        model = MultiTaskAttentionModel.from_encoder(
            copy.deepcopy(encoder), tasks=[spec.to_config() for spec in mixture.specs], system=run.system
        )
    except InputError as error:
        return dataclasses.replace(result, refusal=str(error))
    with tempfile.TemporaryDirectory() as folder:
        trainer = MultiTaskTrainer(model, _arguments(run, budget, folder), train_dataset=mixture)
        trainer.remove_callback(PrinterCallback)
        start = time.process_time()
        trainer.train()
        trained = time.process_time()
        answers = trainer.predict(trainer.eval_dataset).predictions
        scored = time.process_time()
    return dataclasses.replace(
        result,
        training_seconds=round(trained - start, 2),
        scoring_seconds=round(scored - trained, 2),
        parameters=sum(tensor.numel() for tensor in model.parameters() if tensor.requires_grad),
        tasks=_answers_by_task(mixture, answers),
    )


def _arguments(run: Run, budget: Budget, folder: str) -> MultiTaskTrainingArguments:
    return MultiTaskTrainingArguments(
        output_dir=folder,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        max_steps=budget.steps,
        per_device_train_batch_size=budget.batch_rows,
        per_device_eval_batch_size=64,
        learning_rate=budget.learning_rate,
        parts_learning_rate=budget.parts_learning_rate,
        warmup_steps=0.06,
        weight_decay=0.01,
        seed=run.seed,
    )


def _answers_by_task(mixture: Mixture, answers: Mapping[str, Sequence[Any]]) -> dict[str, TaskAnswers]:
    tasks = {}
    for spec in mixture.specs:
        kind, labels = label_kind(spec), mixture.validation[spec.name][LABEL_FIELD][:]
        predictions = kind.predictions(spec, answers[spec.name])
        tasks[spec.name] = TaskAnswers(
            list(spec.metric_names), predictions, kind.references(spec, labels, predictions)
        )
    return tasks
