"""A Trainer for several tasks: one mixture, one loss of a step, one evaluation of all tasks."""

import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import (
    EvalPrediction,
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainingArguments,
    enable_full_determinism,
    set_seed,
)
from transformers.utils.logging import get_logger

from ..balancing.gradient_balancing import GradientBalancer
from ..data.collator import MultiTaskCollator
from ..data.dataset_forms import test_rows_beside
from ..data.features import FeatureDataset
from ..data.mixing import DevGapMixing, MixingStrategy, SharesFunction, TaskShare
from ..data.sampler import MixtureBatchSampler
from ..data.streams import STREAM_STATE, StreamedMixture
from ..modeling.configuration_multitask import TaskConfig
from ..modeling.errors import InputError, check_choice
from ..modeling.modeling_multitask import MultiTaskAttentionModel
from ..modeling.multitask_output import MultiTaskOutput
from ..modeling.processing_multitask import MultiTaskProcessor
from ..modeling.random_states import kept_random_states, random_states, set_random_states
from ..modeling.step_loss import count_labels, step_loss
from ..modeling.task_logits import labels_by_task
from ..tasks import tasks_by_source
from .arguments import MultiTaskTrainingArguments, adopt_arguments
from .balanced_step import GradientBalance, choose_balancer, draw_every_task
from .callbacks import StepsOfTrainer
from .checks import check_arguments
from .given_data import check_tokenizer, collator_and_rows, model_and_mixture
from .hyperparameter_search import SearchingTrainer
from .ignored_arguments import check_built_optimizer, check_optimizer, refuse_ignored_of_trainer
from .sampling import build_sampler, build_stream, choose_mixing, run_steps
from .scoring import source_scores
from .shared_parameters import last_shared_matrix, shared_parameters
from .step_weighting import StepWeighting, build_loss_weighting, task_gradient_norms
from .task_agreement import agree_with_model
from .task_freezing import TaskFreezer
from .training_order import arguments_of, mixture_of, model_of

logger = get_logger(__name__)


class MultiTaskTrainer(SearchingTrainer):
    """Trains a `MultiTaskAttentionModel` on a mixture; takes what Transformers' `Trainer` takes, in its order.

    Args:
        model: A model, or the name of an encoder to wrap for the tasks of the data.
        args: `MultiTaskTrainingArguments`, or `TrainingArguments`, which then have the settings of a mixture at their
            defaults beside them. `trainer.args` is the object that is given.
        data_collator: A `MultiTaskCollator`; by default one that pads to the longest row of a batch.
        train_dataset: A `Mixture`, or data sets by task name (their tasks are read off their features, or given as
            `tasks`); tasks with the same `source` share the data set of that name. A data set is a `Dataset`, a list
            of rows, columns, a DataFrame, or a `DatasetDict`, of which train and validation are used, and test by
            ``predict(task)`` alone. Where there is one task it needs no name. Without training rows a trainer
            evaluates and predicts.
        eval_dataset: Data sets by task name or source, likewise; with a `Mixture`, beside its own validation rows.
        tasks: Tasks (`TaskSpec`, or its values as a mapping) for data sets whose features do not say enough. What
            they say must be what a model that exists, or a `Mixture`, holds.
        processing_class: The encoder's tokenizer; by default the one beside the model.
        model_init: A function that returns the model, called anew for every run (with the trial of a search, if it
            takes an argument), instead of `model`.
        compute_metrics: A function of an `EvalPrediction` that returns further scores: ``predictions`` are decoded
            answers by task, ``label_ids`` the labels by task in the form of answers (names of classes and tags).
        callbacks: As of `Trainer`.
        optimizers: As of `Trainer`.
        optimizer_cls_and_kwargs: As of `Trainer`.
        compute_loss_func: Refused; see the error for the way to go.
        preprocess_logits_for_metrics: Refused, likewise.
        model_settings: Settings of `MultiTaskAttentionConfig` for an encoder given by name.
        mixing: A `MixingStrategy`, or a function of the tasks' sizes (tasks,) and the progress of the run in [0, 1]
            that returns a share for each; by default the one that `args.mixing_strategy` names.
        gradient_balancing: A weighting of the tasks' gradients, such as an object of `torchjd.aggregation`; by default
            the one that `args.gradient_balancing` names.
        exclude_overlap: Whether training rows are dropped whose input stands in a held-out split, as in recipes; None
            drops them unless they are more than half of a task's rows.

    Raises:
        InputError: Model and data disagree on the tasks, the data cannot be used, or something would have no effect.
    """

    processing_class: PreTrainedTokenizerBase

    # The loss is defined on the whole step, so accumulated batches must not be averaged once more.
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: MultiTaskAttentionModel | str | Path | None = None,
        args: TrainingArguments | None = None,
        data_collator: MultiTaskCollator | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        model_init: Callable[..., MultiTaskAttentionModel] | None = None,
        compute_loss_func: Callable[..., Any] | None = None,
        compute_metrics: Callable[[EvalPrediction], dict[str, Any]] | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[torch.optim.Optimizer | None, torch.optim.lr_scheduler.LambdaLR | None] = (None, None),
        optimizer_cls_and_kwargs: tuple[type[torch.optim.Optimizer], dict[str, Any]] | None = None,
        preprocess_logits_for_metrics: Callable[..., torch.Tensor] | None = None,
        *,
        tasks: Sequence[TaskConfig | Mapping[str, Any]] | None = None,
        model_settings: Mapping[str, Any] | None = None,
        mixing: MixingStrategy | SharesFunction | None = None,
        gradient_balancing: GradientBalancer | Callable[[torch.Tensor], torch.Tensor] | None = None,
        exclude_overlap: bool | None = False,
        **unknown: Any,
    ) -> None:
        unknown["compute_loss_func"] = compute_loss_func
        unknown["preprocess_logits_for_metrics"] = preprocess_logits_for_metrics
        unknown.update(model_init=model_init, optimizers=optimizers)
        refuse_ignored_of_trainer(unknown, inspect.signature(type(self).__init__).parameters)
        data_collator, train_dataset = collator_and_rows(data_collator, train_dataset)
        check_tokenizer(processing_class)
        check_optimizer(optimizer_cls_and_kwargs)
        args = adopt_arguments(args)
        self.model_init = cast(Any, model_init)
        if model_init is not None:
            model = self._model_of_function(model, args)
        model, mixture = model_and_mixture(
            model, args, train_dataset, eval_dataset, tasks, model_settings, exclude_overlap
        )
        check_built_optimizer(optimizers[0], model, args, mixture.specs)
        tokenizer = processing_class or model.load_tokenizer()
        self.mixture = mixture
        self.test_rows = test_rows_beside(train_dataset, eval_dataset, list(tasks_by_source(mixture.specs)))
        self.specs = {spec.name: spec for spec in mixture.specs}
        self.processor = MultiTaskProcessor.for_model(model, tokenizer)
        self._choose_methods(args, mixing, gradient_balancing, compute_metrics is not None)
        super().__init__(
            model=model,
            args=args,
            data_collator=data_collator or MultiTaskCollator(self.processor, fill=args.torch_compile),
            train_dataset=self._training_rows(args),
            eval_dataset=self.features_of(mixture.validation) if mixture.validation else None,
            processing_class=tokenizer,
            compute_metrics=compute_metrics,
            callbacks=callbacks,
            optimizers=optimizers,
            optimizer_cls_and_kwargs=optimizer_cls_and_kwargs,
        )
        self.model_init = cast(Any, model_init)
        # An epoch is whole steps on every process, so there is no tail to fill up with rows of its beginning.
        self.accelerator.dataloader_config.even_batches = False
        self.add_callback(StepsOfTrainer(self))
        self.owned: dict[str, list[nn.Parameter]] = {}
        self.stream_state: dict[str, Any] | None = None
        if self.train_dataset is not None:
            self.sampler = self._batch_sampler()
            self.set_up_balance()

    def _choose_methods(
        self, args: MultiTaskTrainingArguments, mixing: Any, gradient_balancing: Any, has_metrics: bool
    ) -> None:
        """How tasks are drawn, frozen and balanced; the arguments say it where no object is given."""
        self.balancer = choose_balancer(gradient_balancing, args)
        if self.balancer is not None:
            draw_every_task(mixing, args, len(tasks_by_source(self.mixture.specs)))
        patience = {name: spec.patience for name, spec in self.specs.items() if spec.patience is not None}
        self.freezer = TaskFreezer(patience, list(self.specs))
        mixing_name = args.mixing_strategy if mixing is None else ""
        check_arguments(args, self.mixture.specs, self.mixture.validation, mixing_name, has_metrics)
        self.mixing_given = mixing
        self.mixing = choose_mixing(mixing, args, self.specs)
        self.values_given = dict(vars(args))

    def _model_of_function(self, model: Any, args: MultiTaskTrainingArguments) -> MultiTaskAttentionModel:
        if model is not None:
            raise InputError("Both `model` and `model_init` are given; a function makes the model: leave out `model`.")
        enable_full_determinism(args.seed) if args.full_determinism else set_seed(args.seed)
        return cast(MultiTaskAttentionModel, super().call_model_init())

    def call_model_init(self, trial: Any = None) -> nn.Module:
        """Return the model of a new run, its tasks those of the data."""
        model = cast(MultiTaskAttentionModel, super().call_model_init(trial))
        self.mixture = agree_with_model(model, self.mixture)
        return model

    def begin_run(self) -> None:
        """Begin anew what follows the steps of a run, where a function makes the model of each."""
        if self.model_init is not None:
            self.mixing = choose_mixing(self.mixing_given, self.args, self.specs)
            self.freezer = TaskFreezer(self.freezer.patience, self.model.config.task_names)
            self.sampler = self._batch_sampler()
            self.set_up_balance()

    def _training_rows(self, args: MultiTaskTrainingArguments) -> FeatureDataset | StreamedMixture | None:
        if not self.mixture.train and not self.mixture.streams:
            return None
        if self.mixture.streams:
            return build_stream(self.processor, self.specs, self.mixture.streams, self.mixing, args)
        return FeatureDataset(self.processor, self.specs, self.mixture.train)

    def set_up_balance(self) -> None:
        """Make the loss weighting and the gradient balance of a run that begins."""
        # (2, tasks) loss sums and label counts since the last log.
        self.logged_losses = torch.zeros(2, self.model.num_tasks)
        self._task_gradient_norms: dict[str, float] = {}
        self.balance: GradientBalance | None = None
        # An epoch, or a third of a shorter run: what some weightings wait for.
        epoch_steps = min(self.sampler.epoch_steps, max(self.total_steps() // 3, 1))
        self.loss_weighting = build_loss_weighting(self.args, self.mixture, self.model.config.task_names, epoch_steps)
        needs_gradients = self.loss_weighting.needs == "gradient_norms"
        shared = last_shared_matrix(self.model) if needs_gradients else None
        self.step_weighting = StepWeighting(self.loss_weighting, self._summed, shared)
        if self.balancer is not None:
            balanced = shared_parameters(self.model, self.args.balanced_parameters)
            self.balance = GradientBalance(self.balancer, balanced, self.model.num_tasks)

    def _summed(self, values: torch.Tensor) -> torch.Tensor:
        return self.accelerator.reduce(values, reduction="sum")

    def preview_mixture(self) -> list[TaskShare]:
        """Return rows, share, draws and passes of every source of rows over the whole run."""
        return self.sampler.preview(list(self.train_dataset.sizes), run_steps(self.sampler, self.args))

    def doctor(self) -> Any:
        """Look the run over before it trains: parts and heads without gradient, tasks never drawn, weights outside the
        optimizer, labels, metrics, rows cut off, data that tasks share or leak, and what a step costs.

        Every process must call it. Nothing that a run depends on is changed.
        """
        # It looks at a trainer from above: none imports it.
        return importlib.import_module("..inspection.doctor", __package__).diagnose(self)

    def then(self, tasks: str | Sequence[str], output_dir: str | Path, **changes: Any) -> "MultiTaskTrainer":
        """Return a trainer that goes on from this one's model with some of its tasks: transfer from intermediate tasks
        (Phang et al. 2018), or one task after training them all (Liu et al. 2019, section 3).

        Its model has copies of everything that a model of these tasks has (one task alone has no interaction and is
        told nothing); optimizer and schedule begin anew. Callbacks, a function as `mixing` and a weighting given as
        `gradient_balancing` are this trainer's own.

        Args:
            tasks: A task's name, or several.
            output_dir: Its folder.
            **changes: Arguments that differ from this trainer's, such as ``learning_rate=2e-5``.

        Raises:
            InputError: An unknown task or argument.
        """
        names = [tasks] if isinstance(tasks, str) else list(tasks)
        for key in changes:
            check_choice("argument", key, MultiTaskTrainingArguments.__dataclass_fields__)
        trainer = MultiTaskTrainer(
            model_of(self.accelerator.unwrap_model(self.model), names),
            arguments_of(self.args, names, list(self.specs), output_dir, **changes),
            train_dataset=mixture_of(self.mixture, names),
            processing_class=self.processing_class,
        )
        trainer.test_rows = self.test_rows
        return trainer

    def _batch_sampler(self) -> MixtureBatchSampler | StreamedMixture:
        if isinstance(self.train_dataset, StreamedMixture):
            return self.train_dataset
        return build_sampler(self.train_dataset, self.mixing, self.args)

    def get_train_dataloader(self) -> DataLoader:
        """Return the batches of the mixture."""
        self.sampler, self.owned = self._batch_sampler(), {}
        if isinstance(self.sampler, StreamedMixture):
            # Streams divide themselves among processes, and make their own batches.
            # A generator of its own: the run's is restored before the loader would draw from it.
            return DataLoader(self.sampler, batch_size=None, generator=torch.Generator())
        loader = DataLoader(
            self.train_dataset,
            batch_sampler=self.sampler,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
            persistent_workers=self.args.dataloader_persistent_workers,
            prefetch_factor=self.args.dataloader_prefetch_factor,
            multiprocessing_context=self.args.dataloader_multiprocessing_context,
        )
        return self.accelerator.prepare(loader)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """Return the batches of a step and its counts; remember where streams stood."""
        batches, counts = super().get_batch_samples(epoch_iterator, num_batches, device)
        for batch in batches:
            self.stream_state = batch.pop(STREAM_STATE, None)
        if self.loss_weighting.needs == "losses_after":
            self._step_batches = (batches, counts)
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
        outputs: MultiTaskOutput = model(**inputs, output_logits=return_outputs)
        loss_sums, label_counts, row_counts = (
            cast(torch.Tensor, outputs[key]) for key in ("task_loss_sums", "task_label_counts", "task_row_counts")
        )
        if num_items_in_batch is None:
            num_items_in_batch = torch.stack([label_counts, row_counts])
        labels, rows = num_items_in_batch
        weights = self.freezer.mask(labels.device)
        penalties = outputs.task_penalty_sums
        # What parts add counts by the weights of the task rows; losses alone say what a weighting makes of them.
        own_weights = weights * self.loss_weighting.fixed_weights.to(weights.dtype).to(weights.device)
        if model.training:
            weights = weights * self.step_weighting.weights(
                loss_sums, labels, whole_step=self.args.gradient_accumulation_steps == 1
            )
            losses = torch.stack([loss_sums.detach(), label_counts])
            self.logged_losses = self.logged_losses.to(losses.device) + losses
            if self.balance is not None:
                present = ((label_counts > 0) & (labels > 0)).nonzero().flatten().tolist()
                means = weights * loss_sums / labels.clamp(min=1)
                if penalties is not None:
                    means = means + own_weights * penalties / rows.clamp(min=1)
                self.balance.backward(means, present)
        loss = step_loss(loss_sums, labels, rows, weights, self.args.loss_reduction)
        if penalties is not None:
            loss = loss + step_loss(penalties, rows, rows, own_weights, self.args.loss_reduction)
        # Processes' gradients are averaged, and the step's loss is their sum.
        loss = loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Run one batch; at the step's last, forget the gradients of tasks that had no label in the step."""
        inner = self.accelerator.unwrap_model(model)
        if not self.owned:
            # Looked up once the model is wrapped as it will train, since wrapping may replace parameters.
            self.owned = inner.parameters_by_task()
        if self.loss_weighting.needs == "losses_after" and self.step_weighting.sums is None:
            # Of the step's first batch; a run that continues has its random state only here.
            self._random_states = random_states(self.args.device)
        if self.balance is None:
            loss = super().training_step(model, inputs, num_items_in_batch)
        else:
            if callable(train := getattr(self.optimizer, "train", None)):
                # A schedule-free optimizer puts the weights of training in place.
                train()
            # Past the wrapper of several processes, which would sum what is to be kept apart.
            with self.compute_loss_context_manager():
                inputs = self._prepare_inputs(inputs)
                loss = self.compute_loss(inner.train(), inputs, num_items_in_batch=num_items_in_batch).detach()
        if self.accelerator.sync_gradients and num_items_in_batch is not None:
            if self.balance is not None:
                present = (num_items_in_batch[0] > 0).nonzero().flatten().tolist()
                several = self.accelerator.num_processes > 1
                self.balance.finish(present, inner.parameters(), self._summed if several else None)
            for own, count in zip(self.owned.values(), num_items_in_batch[0].tolist()):
                if count == 0:
                    # Left in place, even a zero gradient lets AdamW move the task's parameters.
                    for parameter in own:
                        parameter.grad = None
            if self._logs_this_step():
                self._task_gradient_norms = task_gradient_norms(self.owned)
            self.step_weighting.end_step(num_items_in_batch[0])
        return loss

    @torch.no_grad()
    def measure_after_step(self) -> None:
        """Answer the step's batches once more, with the same dropout where the step is one batch."""
        batches, counts = self._step_batches
        model = self.accelerator.unwrap_model(self.model_wrapped)
        with kept_random_states(self.args.device), self.compute_loss_context_manager():
            set_random_states(self._random_states)
            sums = sum(model(**self._prepare_inputs(batch), output_logits=False).task_loss_sums for batch in batches)
        self.step_weighting.after_step(cast(torch.Tensor, sums), cast(torch.Tensor, counts)[0])

    def labels_of_batch(self, inputs: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """Return a batch's labels by task name, in the order of the task's rows in ``outputs.logits``.

        Where a row has no label stands -100, of numbers NaN; tasks that the batch has no row of are left out. Numbers
        are those of the data, logits are of (number - label_mean) / label_scale.

        Args:
            inputs: The batch, as `compute_loss` is given it.
        """
        return labels_by_task(inputs["routing"], self.model.config.task_configs)

    def part_of_step(self, task: str, loss_sum: torch.Tensor, num_items_in_batch: torch.Tensor | None) -> torch.Tensor:
        """Return a sum of losses over a task's labels in a batch as its part of the step's loss.

        It counts as the task's own losses do, by the labels and rows of the whole step and the weight of the task's
        row, and not at all once the task is frozen. What a loss weighting learns follows from the tasks' own losses.

        Args:
            task: The task's name.
            loss_sum: The sum, not the mean, of a loss over the task's labels in the batch.
            num_items_in_batch: The counts of the step, as `compute_loss` is given them.

        Raises:
            InputError: An unknown task, no counts, or gradients that are balanced, which are those of the tasks' own
                losses alone.
        """
        check_choice("task", task, self.processor.indices)
        if num_items_in_batch is None:
            raise InputError("num_items_in_batch is None; expected the counts of the step that compute_loss is given.")
        if self.balance is not None:
            raise InputError(
                f"A further loss of task {task!r} would have no effect: gradient_balancing balances the gradients of "
                "the tasks' own losses. Leave gradient_balancing out, or the further loss."
            )
        sums = loss_sum * (
            torch.arange(len(self.processor.tasks), device=loss_sum.device) == self.processor.indices[task]
        )
        labels, rows = num_items_in_batch
        weights = self.freezer.mask(labels.device) * self.loss_weighting.fixed_weights.to(labels)
        return step_loss(sums, labels, rows, weights, self.args.loss_reduction) * self.accelerator.num_processes

    def _logs_this_step(self) -> bool:
        every = self.state.logging_steps
        return self.args.logging_strategy != "no" and bool(every) and (self.state.global_step + 1) % every == 0

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, beside the loss, for every task: the mean loss of its labels since the last time, its weight, the norm
        of the gradient of its own parameters, and how many of its rows were drawn since the run began.
        """
        if "loss" in logs:
            sums, counts = self.accelerator.reduce(self.logged_losses, reduction="sum").tolist()
            weights = (self.loss_weighting.weights() * self.freezer.mask(torch.device("cpu"))).tolist()
            for name, total, count, weight in zip(self.processor.tasks, sums, counts, weights):
                if count:
                    logs[f"loss_{name}"] = total / count
                logs[f"weight_{name}"] = weight
            logs.update({f"grad_norm_{name}": norm for name, norm in self._task_gradient_norms.items()})
            drawn = self.sampler.drawn(self.state.global_step).tolist()
            logs.update({f"rows_{name}": count for name, count in zip(self.train_dataset.sizes, drawn)})
            self.logged_losses.zero_()
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
