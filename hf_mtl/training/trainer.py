"""A Trainer for several tasks: one mixture, one loss of a step, one evaluation of all tasks."""

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
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
from ..data.streams import StreamedMixture
from ..modeling.answering import tokenizer_of
from ..modeling.errors import InputError, check_choice
from ..modeling.modeling_multitask import MultiTaskAttentionModel
from ..modeling.processing_multitask import MultiTaskProcessor
from ..modeling.task_config import TaskConfig
from ..tasks import tasks_by_source
from .arguments import MultiTaskTrainingArguments, adopt_arguments
from .balanced_step import choose_balancer, draw_every_task
from .batch_fitting import FittingTrainer
from .callbacks import StepsOfTrainer
from .checks import check_arguments
from .evaluation import EvaluatingTrainer
from .given_data import check_tokenizer, collator_and_rows, model_and_mixture
from .hub_pushing import PushingTrainer
from .hyperparameter_search import SearchingTrainer
from .ignored_arguments import check_built_optimizer, check_optimizer, refuse_ignored_of_trainer
from .optimizer import OptimizingTrainer
from .progress import show_by_task
from .resuming import ResumingTrainer
from .sampling import build_sampler, build_stream, choose_mixing, image_augmentation, run_steps
from .scoring import source_scores
from .step import SteppingTrainer
from .task_agreement import agree_with_model
from .task_freezing import TaskFreezer
from .training_order import arguments_of, mixture_of, model_of

logger = get_logger(__name__)


class MultiTaskTrainer(
    SearchingTrainer,
    FittingTrainer,
    PushingTrainer,
    ResumingTrainer,
    OptimizingTrainer,
    EvaluatingTrainer,
    SteppingTrainer,
):
    """Trains a `MultiTaskAttentionModel` on a mixture; takes what Transformers' `Trainer` takes, in its order.

    Args:
        model: A model, or the name of an encoder, or encoders by modality, to wrap for the tasks of the data.
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
        unknown.update(compute_loss_func=compute_loss_func, model_init=model_init, optimizers=optimizers)
        unknown["preprocess_logits_for_metrics"] = preprocess_logits_for_metrics
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
        tokenizer = processing_class or tokenizer_of(model)
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
            callbacks=[*(callbacks or ()), StepsOfTrainer(self)],
            optimizers=optimizers,
            optimizer_cls_and_kwargs=optimizer_cls_and_kwargs,
        )
        show_by_task(self.callback_handler, callbacks or ())
        self.model_init = cast(Any, model_init)
        # An epoch is whole steps on every process, so there is no tail to fill up with rows of its beginning.
        self.accelerator.dataloader_config.even_batches = False
        self.owned, self.stream_state = {}, None
        if self.train_dataset is not None:
            self.sampler = self._batch_sampler()
            self.set_up_balance()

    def _choose_methods(
        self, args: MultiTaskTrainingArguments, mixing: Any, gradient_balancing: Any, has_metrics: bool
    ) -> None:
        """Choose how tasks are drawn, frozen and balanced; the arguments say it where no object is given."""
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
        self.specs = {spec.name: spec for spec in self.mixture.specs}
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
        seed = args.data_seed if args.data_seed is not None else args.seed
        augmentation = image_augmentation(args, self.specs)
        return FeatureDataset(self.processor, self.specs, self.mixture.train, seed=seed, augmentation=augmentation)

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
