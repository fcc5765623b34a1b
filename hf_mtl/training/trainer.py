"""A Trainer for several tasks: one mixture, one loss of a step, one evaluation of all tasks."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from datasets import Dataset, IterableDataset
from torch import nn
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase
from transformers.trainer_callback import TrainerCallback
from transformers.utils.logging import get_logger

from ..balancing.loss_weighting import LOSS_WEIGHTINGS
from ..data.collator import MultiTaskCollator
from ..data.features import FeatureDataset
from ..data.mixing import DevGapMixing, MixingStrategy, SharesFunction, TaskShare
from ..data.mixture import Mixture, mixture_from_datasets
from ..data.sampler import MixtureBatchSampler
from ..data.streams import STREAM_STATE, StreamedMixture, mixture_from_streams
from ..modeling import InputError, MultiTaskAttentionModel, MultiTaskOutput, TaskConfig
from ..modeling.modeling_multitask import count_labels
from ..modeling.processing_multitask import MultiTaskProcessor
from ..modeling.step_loss import step_loss
from ..tasks import TaskSpec
from .arguments import MultiTaskTrainingArguments
from .evaluation import source_scores
from .evaluation_loop import EvaluatingTrainer
from .parameter_groups import parameter_groups
from .task_freezing import TaskFreezer
from .train_sampler import build_sampler, build_stream, choose_mixing, run_steps

logger = get_logger(__name__)


class MultiTaskTrainer(EvaluatingTrainer):
    """Trains a `MultiTaskAttentionModel` on a mixture.

    Args:
        model: A model, or the name of an encoder to wrap for the tasks of the data.
        args: `MultiTaskTrainingArguments`.
        train_dataset: A `Mixture`, or data sets by task name (their tasks are read off their features, or given as
            `tasks`); tasks with the same `source` share the data set of that name.
        eval_dataset: Data sets by task name or source; with a `Mixture`, its validation rows are used.
        tasks: Task rows for data sets whose features do not say enough.
        processing_class: The encoder's tokenizer; by default the one beside the model.
        model_settings: Settings of `MultiTaskAttentionConfig` for an encoder given by name.
        mixing: A `MixingStrategy`, or a function of the tasks' sizes (tasks,) and the progress of the run in [0, 1]
            that returns a share for each; by default the one that `args.mixing_strategy` names.
        **kwargs: Passed to `Trainer` (callbacks, optimizers, ...).

    Raises:
        InputError: Model and data disagree on the tasks, or the data cannot be used.
    """

    train_dataset: FeatureDataset | StreamedMixture
    processing_class: PreTrainedTokenizerBase

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
        mixing: MixingStrategy | SharesFunction | None = None,
        **kwargs: Any,
    ) -> None:
        mixture = train_dataset
        if not isinstance(mixture, Mixture):
            streamed = any(isinstance(rows, IterableDataset) for rows in mixture.values())
            build = mixture_from_streams if streamed else mixture_from_datasets
            mixture = build(mixture, eval_dataset, tasks)
        if isinstance(model, str):
            rows = [spec.to_config() for spec in mixture.specs]
            model = MultiTaskAttentionModel.from_encoder(model, tasks=rows, **(model_settings or {}))
        check_same_tasks(model, mixture.specs)
        adopt_tasks(mixture.specs, model.config.task_configs)
        tokenizer = processing_class or model.load_tokenizer()
        self.mixture = mixture
        self.specs = {spec.name: spec for spec in mixture.specs}
        self.processor = MultiTaskProcessor(tokenizer, model.config.task_configs)
        names = model.config.task_names
        weights = [self.specs[name].weight for name in names]
        self.loss_weighting = LOSS_WEIGHTINGS[args.loss_weighting](weights, args.loss_weighting_learning_rate)
        patience = {name: spec.patience for name, spec in self.specs.items() if spec.patience is not None}
        self.freezer = TaskFreezer(patience, names)
        self.mixing = choose_mixing(mixing, args, self.specs)
        train: FeatureDataset | StreamedMixture
        if mixture.streams:
            train = build_stream(self.processor, self.specs, mixture.streams, self.mixing, args)
        else:
            train = FeatureDataset(self.processor, self.specs, mixture.train)
        super().__init__(
            model=model,
            args=args,
            data_collator=MultiTaskCollator(self.processor),
            train_dataset=train,
            eval_dataset=self.features_of(mixture.validation) if mixture.validation else None,
            processing_class=tokenizer,
            **kwargs,
        )
        # An epoch is whole steps on every process, so there is no tail to fill up with rows of its beginning.
        self.accelerator.dataloader_config.even_batches = False
        self.add_callback(_EpochOfSampler(self))
        self.sampler = self._batch_sampler()
        # Since the last log, and of the step at hand: (2, tasks) loss sums and label counts, (tasks,) loss sums.
        self._logged_losses = torch.zeros(2, model.num_tasks)
        self._step_losses = torch.zeros(model.num_tasks)
        self._task_gradient_norms: dict[str, float] = {}
        self._stream_state: dict[str, Any] | None = None

    def preview_mixture(self) -> list[TaskShare]:
        """Return rows, share, draws and passes of every source of rows over the whole run."""
        return self.sampler.preview(list(self.train_dataset.sizes), run_steps(self.sampler, self.args))

    def _batch_sampler(self) -> MixtureBatchSampler | StreamedMixture:
        if isinstance(self.train_dataset, StreamedMixture):
            return self.train_dataset
        return build_sampler(self.train_dataset, self.mixing, self.args)

    def get_train_dataloader(self) -> DataLoader:
        """Return the batches of the mixture."""
        self.sampler = self._batch_sampler()
        if isinstance(self.sampler, StreamedMixture):
            # Streams divide themselves among processes, and make their own batches.
            return DataLoader(self.sampler, batch_size=None)
        loader = DataLoader(
            self.train_dataset,
            batch_sampler=self.sampler,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
            persistent_workers=self.args.dataloader_persistent_workers,
            prefetch_factor=self.args.dataloader_prefetch_factor,
        )
        return self.accelerator.prepare(loader)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Build the optimizer: the encoder at `learning_rate`, everything else at `parts_learning_rate`, and a task's
        own parameters at the rate its row gives.
        """
        if self.optimizer is None:
            opt_model = self.model if model is None else model
            decayed = set(self.get_decay_parameter_names(opt_model))
            optimizer_class, options = self.get_optimizer_cls_and_kwargs(self.args, self.model)
            groups = parameter_groups(opt_model, self.args, self.specs.values(), decayed)
            self.optimizer = optimizer_class(groups, **options)
        return self.optimizer

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """Return the batches of a step and its counts; remember where streams stood."""
        batches, counts = super().get_batch_samples(epoch_iterator, num_batches, device)
        for batch in batches:
            self._stream_state = batch.pop(STREAM_STATE, None)
        return batches, counts

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> torch.Tensor:
        """Count the step's labels and rows by task, over accumulated batches and processes: (2, tasks)."""
        counts = torch.zeros(2, len(self.processor.tasks))
        for batch in batch_samples:
            counts += torch.stack(count_labels(batch["routing"], counts.shape[1])).cpu()
        counts = self.accelerator.reduce(counts.to(device), reduction="sum")
        return counts * self.freezer.mask(counts.device)

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
        weights = self.loss_weighting.weights().to(labels.device) * self.freezer.mask(labels.device)
        loss = step_loss(loss_sums, labels, rows, weights, self.args.loss_reduction)
        if model.training:
            losses = torch.stack([loss_sums.detach(), label_counts])
            self._logged_losses = self._logged_losses.to(losses.device) + losses
            self._step_losses = self._step_losses.to(losses.device) + losses[0]
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
            if self._logs_this_step():
                self._task_gradient_norms = task_gradient_norms(inner)
            if self.loss_weighting.reads_losses:
                sums = self.accelerator.reduce(self._step_losses, reduction="sum")
                labels = num_items_in_batch[0].to(sums.device)
                self.loss_weighting.observe(sums / labels.clamp(min=1), labels > 0)
            self._step_losses = torch.zeros_like(self._step_losses)
        return loss

    def _logs_this_step(self) -> bool:
        every = self.state.logging_steps
        return self.args.logging_strategy != "no" and bool(every) and (self.state.global_step + 1) % every == 0

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, beside the loss, for every task: the mean loss of its labels since the last time, its weight, the norm
        of the gradient of its own parameters, and how many of its rows were drawn since the run began.
        """
        if "loss" in logs:
            sums, counts = self.accelerator.reduce(self._logged_losses, reduction="sum").tolist()
            weights = (self.loss_weighting.weights() * self.freezer.mask(torch.device("cpu"))).tolist()
            for name, total, count, weight in zip(self.processor.tasks, sums, counts, weights):
                if count:
                    logs[f"loss_{name}"] = total / count
                logs[f"weight_{name}"] = weight
            logs.update({f"grad_norm_{name}": norm for name, norm in self._task_gradient_norms.items()})
            drawn = self.sampler.drawn(self.state.global_step).tolist()
            logs.update({f"rows_{name}": count for name, count in zip(self.train_dataset.sizes, drawn)})
            self._logged_losses.zero_()
            self._task_gradient_norms = {}
        super().log(logs, start_time)

    def _evaluate(self, trial: Any, ignore_keys_for_eval: Any, skip_scheduler: bool = False) -> dict[str, float]:
        """Evaluate during training; shares and early freezing follow from the scores."""
        metrics = super()._evaluate(trial, ignore_keys_for_eval, skip_scheduler)
        scores = source_scores(self.task_scores(metrics), {name: [name] for name in self.specs})
        for name in self.freezer.update(scores):
            logger.warning(f"Task {name} is frozen: {self.freezer.patience[name]} evaluations without a better score.")
        if isinstance(self.mixing, DevGapMixing):
            sources = source_scores(self.task_scores(metrics), self.train_dataset.tasks_of)
            self.mixing.update(self.sampler.window_of(self.state.global_step), sources)
        return metrics

    def run_state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of the mixture and the tasks: JSON values."""
        history = self.mixing.history if isinstance(self.mixing, DevGapMixing) else []
        return {
            "mixing": history,
            "freezing": self.freezer.state(),
            "loss_weighting": self.loss_weighting.state(),
        }

    def load_run_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what a checkpoint kept."""
        if isinstance(self.mixing, DevGapMixing):
            self.mixing.history = [(int(first), list(shares)) for first, shares in state["mixing"]]
        self.freezer.load_state(state["freezing"])
        self.loss_weighting.load_state(state["loss_weighting"])

    def process_state(self) -> dict[str, Any] | None:
        """Return what a checkpoint keeps of this process: where its streams stood."""
        return self._stream_state

    def load_process_state(self, state: Mapping[str, Any]) -> None:
        """Go on reading streams where the checkpoint was written."""
        if isinstance(self.train_dataset, StreamedMixture):
            self.train_dataset.load_state(state)


class _EpochOfSampler(TrainerCallback):
    """Tells the sampler its epoch: Transformers cannot reach it behind the wrappers of several processes."""

    def __init__(self, trainer: MultiTaskTrainer) -> None:
        self.trainer = trainer

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        sampler = self.trainer.sampler
        sampler.set_epoch(state.global_step // sampler.epoch_steps)


def task_gradient_norms(model: MultiTaskAttentionModel) -> dict[str, float]:
    """Return the norm of the gradient of each task's own parameters; a task without gradient is left out."""
    found = {}
    for name in model.config.task_names:
        gradients = [tensor.grad for tensor in model.task_parameters(name) if tensor.grad is not None]
        if gradients:
            found[name] = float(torch.linalg.vector_norm(torch.stack([gradient.norm() for gradient in gradients])))
    return found


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
