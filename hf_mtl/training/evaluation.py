"""A Trainer's evaluation: all tasks' rows in one loop, decoded, scored, averaged."""

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from torch import nn
from torch.utils.data import DataLoader
from transformers.trainer_utils import EvalLoopOutput, EvalPrediction, PredictionOutput
from transformers.utils.logging import get_logger

from ..data.collator import MultiTaskCollator
from ..data.dataset_forms import check_names, named_datasets, with_texts
from ..data.features import FeatureDataset
from ..data.unlabelled import rows_to_answer, rows_to_score
from ..modeling.errors import InputError, check_choice
from ..modeling.modeling_multitask import MultiTaskAttentionModel
from ..modeling.step_loss import step_loss
from ..tasks import TaskSpec, tasks_by_source
from .evaluation_batches import EvaluationBatches, evaluation_loader
from .ignored_arguments import refuse_ignore_keys
from .scoring import AnswerCollector, decoded_labels, flat_scores, merged_metrics, score_answers
from .task_trainer import TaskTrainer

logger = get_logger(__name__)


class EvaluatingTrainer(TaskTrainer):
    """A Trainer that answers the rows of all tasks in one loop and scores every task."""

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Answer the rows of all tasks in one loop, score each task, and average.

        Returns predictions as decoded answers by task, label_ids as labels in the form of answers by task (None
        without), and as metrics ``<prefix>_<task>_<metric>`` (0-100), ``<prefix>_<task>_loss``, ``<prefix>_loss`` (the
        loss of all rows as one step, with the tasks' fixed weights), ``<prefix>_mtl_average``, ``<prefix>_mtl_worst``
        and, where single-task scores are given, ``<prefix>_mtl_relative``; beside them what `compute_metrics` returns.
        """
        data = cast(FeatureDataset, dataloader.dataset)
        model = self._wrap_model(self.model, training=False)
        model.eval()
        if callable(evaluate := getattr(self.optimizer, "eval", None)):
            # A schedule-free optimizer puts the weights of evaluation in place.
            evaluate()
        self.callback_handler.eval_dataloader = dataloader
        losses = torch.zeros(3, len(self.processor.tasks))
        answered: list[tuple[Any, Any]] = []
        counted = cast(EvaluationBatches, dataloader.batch_sampler).counted
        for number, batch in enumerate(dataloader):
            logits, sums = self._answer_batch(model, batch)
            if number < counted:
                answered.append((batch.entries, logits))
                losses += sums
            self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        collector = AnswerCollector(data.specs, data.rows, self.processor.tokenizer)
        for entries, logits in gather_object(answered):
            collector.add(entries, logits)
        answers = collector.answers()
        scores = score_answers(data.specs, data.rows, answers)
        metrics = flat_scores(scores, cast(Any, self.args.single_task_scores))
        sums, counts, rows = self.accelerator.reduce(losses.to(self.args.device), reduction="sum").cpu()
        for name, total, count in zip(self.processor.tasks, sums.tolist(), counts.tolist()):
            if count:
                metrics[f"{name}_loss"] = total / count
        if counts.any():
            metrics["loss"] = float(step_loss(sums, counts, rows, self._task_weights(), self.args.loss_reduction))
        metrics = {f"{metric_key_prefix}_{key}": value for key, value in metrics.items()}
        labels = decoded_labels(data.specs, data.rows)
        if self.compute_metrics is not None and labels is not None:
            given = EvalPrediction(predictions=cast(Any, answers), label_ids=cast(Any, labels))
            metrics = merged_metrics(metrics, self.compute_metrics(given), metric_key_prefix)
        return EvalLoopOutput(cast(Any, answers), cast(Any, labels), metrics=metrics, num_samples=len(data))

    def _task_weights(self) -> torch.Tensor:
        """(tasks,) the weights that task rows give; what a weighting learns changes from step to step."""
        return torch.tensor([self.specs[name].setting("weight") for name in self.processor.tasks])

    @torch.no_grad()
    def _answer_batch(self, model: nn.Module, batch: dict[str, Any]) -> tuple[list[Any], torch.Tensor]:
        """The logits of a batch's entries in order, and (3, tasks) loss sums, label counts and row counts."""
        batch = self._prepare_inputs(batch)
        with self.compute_loss_context_manager():
            outputs = model(**batch)
        logits = MultiTaskAttentionModel.ordered_logits(outputs.entry_logits, batch["routing"])
        return logits, torch.stack([outputs.task_loss_sums, outputs.task_label_counts, outputs.task_row_counts]).cpu()

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Score every task on the validation rows, or on other rows, which are scored together.

        Args:
            eval_dataset: Data sets by task name or source; a single data set where there is one task; or a task's
                name, for its validation rows alone. See `named_datasets` for the forms a data set may have.
            ignore_keys: Refused: an evaluation decodes answers and returns no other outputs.
            metric_key_prefix: What the names of scores begin with.

        Raises:
            InputError: Rows without labels, or which task they are of is open.
        """
        refuse_ignore_keys(ignore_keys)
        return super().evaluate(self._features(eval_dataset, "validation"), metric_key_prefix=metric_key_prefix)

    def predict(
        self, test_dataset: Any, ignore_keys: list[str] | None = None, metric_key_prefix: str = "test"
    ) -> PredictionOutput:
        """Answer rows, and score the tasks whose rows all have labels.

        Args:
            test_dataset: As in `evaluate`; a task's name stands for its test rows. Rows may be texts where a task
                reads nothing else. Rows may lack labels: no label column, or None, NaN, -100 or (of classes) -1 in
                it.
            ignore_keys: As of `evaluate`.
            metric_key_prefix: As of `evaluate`.

        Raises:
            InputError: Which task the rows are of is open, or they cannot be used.
        """
        if test_dataset is None:
            raise InputError("predict needs rows: trainer.predict({task: data}), or trainer.evaluate() for scores.")
        refuse_ignore_keys(ignore_keys)
        rows = cast(Any, self._features(test_dataset, "test"))
        return super().predict(rows, metric_key_prefix=metric_key_prefix)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """Return this process's part of the rows of all tasks, longest last, entries' features beside each batch."""
        data = self.eval_dataset if eval_dataset is None else self._features(eval_dataset, "validation")
        if data is None:
            raise InputError("There are no validation rows; give eval_dataset={task: Dataset}.")
        collate = self.data_collator
        if isinstance(collate, MultiTaskCollator):
            # Every entry is answered once.
            collate = dataclasses.replace(collate, fill=False)
        return evaluation_loader(data, collate, self.args)

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader:
        """Return the rows of all tasks of a test split."""
        return self.get_eval_dataloader(self._features(test_dataset, "test"))

    def _features(self, given: Any, split: str) -> FeatureDataset | None:
        """Rows in whatever form as features, with labels to score or, of a test split, without."""
        if given is None or isinstance(given, FeatureDataset):
            return given
        if isinstance(given, str):
            return self.features_of(self._held_rows(given, split))
        sources = list(tasks_by_source(self.specs.values()))
        every_name = list(dict.fromkeys([*self.specs, *sources]))
        names = sources if len(sources) == 1 else every_name
        if split == "test":
            given = with_texts(given, names, self._text_columns())
        datasets = named_datasets(given, names, split)
        check_names(datasets, every_name, split)
        rows = {}
        for spec in self.specs.values():
            for name in (spec.name, spec.source_name):
                if name in datasets:
                    rows[spec.name] = self._canonical(spec, datasets[name], split)
                    break
        return self.features_of(rows)

    def _text_columns(self) -> dict[str, str]:
        """The text's column, by the names of tasks and sources that read nothing else."""
        columns = {}
        for source, names in tasks_by_source(self.specs.values()).items():
            specs = [self.specs[name] for name in names]
            wanted = {str(spec.column_of("text", local=False)) for spec in specs}
            if len(wanted) == 1 and all(spec.input_fields == ("text",) for spec in specs):
                columns.update(dict.fromkeys([source, *names], wanted.pop()))
        return columns

    @staticmethod
    def _canonical(spec: TaskSpec, rows: Any, split: str) -> Dataset:
        if not isinstance(rows, Dataset):
            raise InputError(
                f"The rows of task {spec.name!r} are a stream; take as many as are wanted: "
                "Dataset.from_list(list(stream.take(1000)))."
            )
        if split == "validation":
            return rows_to_score(spec, rows)
        canonical, unlabelled = rows_to_answer(spec, rows)
        if 0 < unlabelled < len(rows):
            logger.warning(f"Task {spec.name}: {unlabelled} of {len(rows)} rows have no label; none of it is scored.")
        return canonical

    def _held_rows(self, task: str, split: str) -> dict[str, Dataset]:
        check_choice("task", task, self.specs)
        held = self.mixture.validation if split == "validation" else self.mixture.test
        spec = self.specs[task]
        for name in (task, spec.source_name):
            if split == "test" and task not in held and name in self.test_rows:
                return {task: self._canonical(spec, self.test_rows[name], split)}
        if task not in held:
            method = "evaluate" if split == "validation" else "predict"
            raise InputError(
                f"Task {task!r} has no {split} rows here; give them: trainer.{method}({{{task!r}: data}})."
            )
        return {task: held[task]}

    def features_of(self, rows: Mapping[str, Dataset]) -> FeatureDataset:
        """Return canonical rows by task as a data set that `evaluate` and `predict` take."""
        return FeatureDataset(self.processor, self.specs, rows)
