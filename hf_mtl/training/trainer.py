"""A Trainer for several tasks: one mixture, one loss of a step, one evaluation of all tasks."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from torch import nn
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase, Trainer
from transformers.trainer_utils import EvalLoopOutput

from ..balancing.loss_weighting import LOSS_WEIGHTINGS
from ..data.collator import MultiTaskCollator
from ..data.features import FeatureDataset
from ..data.mixture import Mixture, mixture_from_datasets
from ..data.sampler import MIXING_STRATEGIES, MixtureBatchSampler, TaskShare, preview_shares
from ..modeling import InputError, MultiTaskAttentionModel, MultiTaskOutput, TaskConfig
from ..modeling.modeling_multitask import count_labels
from ..modeling.processing_multitask import MultiTaskProcessor
from ..modeling.step_loss import step_loss
from ..tasks import TaskSpec
from .arguments import MultiTaskTrainingArguments
from .evaluation import AnswerCollector, flat_scores, score_answers


class MultiTaskTrainer(Trainer):
    """Trains a `MultiTaskAttentionModel` on a mixture.

    Args:
        model: A model, or the name of an encoder to wrap for the tasks of the data.
        args: `MultiTaskTrainingArguments`.
        train_dataset: A `Mixture`, or data sets by task name (their tasks are read off their features, or given as
            `tasks`).
        eval_dataset: Data sets by task name; with a `Mixture`, its validation rows are used.
        tasks: Task rows for data sets whose features do not say enough.
        processing_class: The encoder's tokenizer; by default the one beside the model.
        model_settings: Settings of `MultiTaskAttentionConfig` for an encoder given by name.
        **kwargs: Passed to `Trainer` (callbacks, optimizers, ...).

    Raises:
        InputError: Model and data disagree on the tasks, or the data cannot be used.
    """

    model: MultiTaskAttentionModel
    args: MultiTaskTrainingArguments
    train_dataset: FeatureDataset
    eval_dataset: FeatureDataset | None
    processing_class: PreTrainedTokenizerBase
    data_collator: MultiTaskCollator

    # The loss is defined on the whole step, so accumulated batches must not be averaged once more.
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: MultiTaskAttentionModel | str,
        args: MultiTaskTrainingArguments,
        train_dataset: Mixture | Mapping[str, Dataset],
        eval_dataset: Mapping[str, Dataset] | None = None,
        tasks: Sequence[TaskSpec] | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        model_settings: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        mixture = train_dataset
        if not isinstance(mixture, Mixture):
            mixture = mixture_from_datasets(mixture, eval_dataset, tasks)
        if isinstance(model, str):
            rows = [spec.to_config() for spec in mixture.specs]
            model = MultiTaskAttentionModel.from_encoder(model, tasks=rows, **(model_settings or {}))
        check_same_tasks(model, mixture.specs)
        adopt_tasks(mixture.specs, model.config.task_configs)
        tokenizer = processing_class or model.load_tokenizer()
        self.mixture = mixture
        self.specs = {spec.name: spec for spec in mixture.specs}
        self.processor = MultiTaskProcessor(tokenizer, model.config.task_configs)
        weights = [self.specs[name].weight for name in model.config.task_names]
        self.loss_weighting = LOSS_WEIGHTINGS[args.loss_weighting](weights)
        super().__init__(
            model=model,
            args=args,
            data_collator=MultiTaskCollator(self.processor),
            train_dataset=FeatureDataset(self.processor, self.specs, mixture.train),
            eval_dataset=FeatureDataset(self.processor, self.specs, mixture.validation)
            if mixture.validation
            else None,
            processing_class=tokenizer,
            **kwargs,
        )
        self._logged_losses = torch.zeros(2, model.num_tasks)

    def preview_mixture(self) -> list[TaskShare]:
        """Return rows, share, draws and passes of every task over the whole run."""
        per_epoch = len(self._batch_sampler()) * self.args.per_device_train_batch_size
        steps = self.args.max_steps
        per_step = self.args.per_device_train_batch_size * self.args.gradient_accumulation_steps
        total = steps * per_step if steps > 0 else round(self.args.num_train_epochs * per_epoch)
        return preview_shares(self.train_dataset.sizes, self._mixing(), total)

    def _mixing(self) -> Any:
        return MIXING_STRATEGIES[self.args.mixing_strategy](self.args.temperature)

    def _batch_sampler(self) -> MixtureBatchSampler:
        data, rows = self.train_dataset, self.args.per_device_train_batch_size
        sizes = list(data.sizes.values())
        return MixtureBatchSampler(
            sizes,
            self._mixing().shares(torch.tensor(sizes).numpy()),
            batch_size=rows,
            batches_per_epoch=-(-len(data) // rows),
            lengths=data.lengths if self.args.length_grouping else None,
            seed=self.args.data_seed if self.args.data_seed is not None else self.args.seed,
        )

    def get_train_dataloader(self) -> DataLoader:
        """Return the batches of the mixture."""
        loader = DataLoader(
            self.train_dataset,
            batch_sampler=self._batch_sampler(),
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
            persistent_workers=self.args.dataloader_persistent_workers,
            prefetch_factor=self.args.dataloader_prefetch_factor,
        )
        return self.accelerator.prepare(loader)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Build the optimizer: the encoder at `learning_rate`, everything else at `parts_learning_rate`."""
        if self.optimizer is None:
            opt_model = self.model if model is None else model
            decayed = set(self.get_decay_parameter_names(opt_model))
            groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
            for name, parameter in opt_model.named_parameters():
                if parameter.requires_grad:
                    groups.setdefault((".mtl." in f".{name}", name in decayed), []).append(parameter)
            rates = {True: self.args.parts_learning_rate, False: self.args.learning_rate}
            optimizer_class, options = self.get_optimizer_cls_and_kwargs(self.args, self.model)
            self.optimizer = optimizer_class(
                [
                    {"params": own, "lr": rates[part], "weight_decay": self.args.weight_decay if decays else 0.0}
                    for (part, decays), own in groups.items()
                ],
                **options,
            )
        return self.optimizer

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> torch.Tensor:
        """Count the step's labels and rows by task, over accumulated batches and processes: (2, tasks)."""
        counts = torch.zeros(2, len(self.processor.tasks))
        for batch in batch_samples:
            counts += torch.stack(count_labels(batch["routing"], counts.shape[1])).cpu()
        return self.accelerator.reduce(counts.to(device), reduction="sum")

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> Any:
        """Return this batch's part of the loss of the step."""
        outputs: MultiTaskOutput = model(**inputs)
        loss_sums, label_counts, row_counts = (
            cast(torch.Tensor, outputs[key]) for key in ("task_loss_sums", "task_label_counts", "task_row_counts")
        )
        if num_items_in_batch is None:
            num_items_in_batch = torch.stack([label_counts, row_counts])
        labels, rows = num_items_in_batch
        weights = self.loss_weighting.weights().to(labels.device)
        loss = step_loss(loss_sums, labels, rows, weights, self.args.loss_reduction)
        if model.training:
            losses = torch.stack([loss_sums.detach(), label_counts])
            self._logged_losses = self._logged_losses.to(losses.device) + losses
        # Processes' gradients are averaged, and the step's loss is their sum.
        loss = loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Run one batch; at the step's last, forget the gradients of tasks that had no label in the step."""
        loss = super().training_step(model, inputs, num_items_in_batch)
        if self.accelerator.sync_gradients and num_items_in_batch is not None:
            inner = self.accelerator.unwrap_model(model)
            for index, count in enumerate(num_items_in_batch[0].tolist()):
                if count == 0:
                    # Left in place, even a zero gradient lets AdamW move the task's parameters.
                    for parameter in inner.task_parameters(inner.config.task_names[index]):
                        parameter.grad = None
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, beside the loss, the mean loss of every task since the last time."""
        if "loss" in logs:
            sums, counts = self.accelerator.reduce(self._logged_losses, reduction="sum").tolist()
            for name, total, count in zip(self.processor.tasks, sums, counts):
                if count:
                    logs[f"loss_{name}"] = total / count
            self._logged_losses.zero_()
        super().log(logs, start_time)

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Answer the rows of all tasks in one loop, score each task, and average.

        Returns predictions as decoded answers by task, and as metrics ``<prefix>_<task>_<metric>`` (0-100),
        ``<prefix>_<task>_loss`` and ``<prefix>_mtl_average``.
        """
        data = cast(FeatureDataset, dataloader.dataset)
        model = self._wrap_model(self.model, training=False)
        model.eval()
        self.callback_handler.eval_dataloader = dataloader
        collector = AnswerCollector(data.specs, data.rows)
        losses = torch.zeros(2, len(self.processor.tasks))
        for features, batch in dataloader:
            logits, sums = self._answer_batch(model, batch)
            losses += sums
            for part_features, part_logits in gather_object([(features, logits)]):
                collector.add(part_features, part_logits)
            self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        answers = collector.answers()
        scores = score_answers(data.specs, data.rows, answers)
        metrics = flat_scores(scores)
        sums, counts = self.accelerator.reduce(losses.to(self.args.device), reduction="sum").tolist()
        for name, total, count in zip(self.processor.tasks, sums, counts):
            if count:
                metrics[f"{name}_loss"] = total / count
        metrics = {f"{metric_key_prefix}_{key}": value for key, value in metrics.items()}
        return EvalLoopOutput(cast(Any, answers), label_ids=None, metrics=metrics, num_samples=len(data))

    @torch.no_grad()
    def _answer_batch(self, model: nn.Module, batch: dict[str, Any]) -> tuple[list[Any], torch.Tensor]:
        """The logits of a batch's entries in order, and (2, tasks) loss sums and label counts."""
        batch = self._prepare_inputs(batch)
        with self.compute_loss_context_manager():
            outputs = model(**batch)
        logits = MultiTaskAttentionModel.ordered_logits(outputs.entry_logits, batch["routing"])
        return logits, torch.stack([outputs.task_loss_sums, outputs.task_label_counts]).cpu()

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """Return the rows of all tasks, longest last, each batch with its features beside it."""
        data = eval_dataset if eval_dataset is not None else self.eval_dataset
        if data is None:
            raise InputError("There are no validation rows; give eval_dataset={task: Dataset}.")
        order = sorted(range(len(data)), key=data.lengths.__getitem__)
        return DataLoader(
            data,
            sampler=order,
            batch_size=self.args.eval_batch_size,
            collate_fn=_with_features(self.data_collator),
            num_workers=self.args.dataloader_num_workers,
        )

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader:
        """Return the rows of all tasks of a test split."""
        return self.get_eval_dataloader(test_dataset)

    def features_of(self, rows: Mapping[str, Dataset]) -> FeatureDataset:
        """Return canonical rows by task as a data set that `evaluate` and `predict` take."""
        return FeatureDataset(self.processor, self.specs, rows)

    def task_scores(self, metrics: Mapping[str, float], prefix: str = "eval") -> dict[str, dict[str, float]]:
        """Return ``{task: {metric: score}}`` from what `evaluate` returned."""
        return {
            name: {metric: metrics[f"{prefix}_{name}_{metric}"] for metric in spec.metric_names}
            for name, spec in self.specs.items()
            if f"{prefix}_{name}_{spec.metric_names[0]}" in metrics
        }


def check_same_tasks(model: MultiTaskAttentionModel, specs: Sequence[TaskSpec]) -> None:
    """Raise `InputError` unless model and data have the same tasks in the same order, with the same labels."""
    names = [spec.name for spec in specs]
    if model.config.task_names != names:
        raise InputError(f"The model has the tasks {model.config.task_names}, the data {names}; expected the same.")
    for task, spec in zip(model.config.task_configs, specs):
        for key in ("problem_type", "labels"):
            if getattr(task, key) != getattr(spec, key):
                raise InputError(
                    f"Task {task.name!r}: the model has {key}={getattr(task, key)!r}, the data {getattr(spec, key)!r}."
                )


def adopt_tasks(specs: Sequence[TaskSpec], tasks: Sequence[TaskConfig]) -> None:
    """Give the task rows what the model holds of its tasks (label statistics, lengths, thresholds): it decides."""
    for spec, task in zip(specs, tasks, strict=True):
        for item in dataclasses.fields(TaskConfig):
            setattr(spec, item.name, getattr(task, item.name))


def _with_features(collate: MultiTaskCollator) -> Any:
    def collate_with_features(features: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        return features, collate(features)

    return collate_with_features
