"""A step of several tasks: one loss of all its batches and processes, and whose gradients stand at its end."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, cast

import torch
from accelerate.utils import DistributedType
from accelerate.utils.memory import clear_device_cache
from torch import nn
from transformers.training_args import OptimizerNames
from transformers.utils.logging import get_logger

from ..data.streams import STREAM_STATE
from ..modeling.errors import InputError, check_choice
from ..modeling.multitask_output import MultiTaskOutput, labels_by_task
from ..modeling.random_states import RandomStates, kept_random_states, random_states, set_random_states
from ..modeling.step_loss import count_labels, step_loss
from .balanced_step import GradientBalance
from .sampling import run_steps
from .shared_parameters import last_shared_matrix, shared_parameters
from .step_weighting import StepWeighting, build_loss_weighting, task_gradient_norms
from .task_trainer import TaskTrainer

logger = get_logger(__name__)


class StepBatches(NamedTuple):
    """A step's batches, its counts (2, tasks), and the random states before the first of them."""

    batches: list[Any]
    counts: torch.Tensor
    random_states: RandomStates


class _TaskWeights(NamedTuple):
    """Weights of a batch's losses in the loss of its step.

    Args:
        labels: (tasks,) the step's labels.
        rows: (tasks,) the step's labelled rows.
        losses: (tasks,) weights of the tasks' losses.
        penalties: (tasks,) weights of what parts add: those of the task rows, whatever a loss weighting learns.
    """

    labels: torch.Tensor
    rows: torch.Tensor
    losses: torch.Tensor
    penalties: torch.Tensor


class SteppingTrainer(TaskTrainer):
    """A Trainer whose steps have one loss of all their tasks."""

    balance: GradientBalance | None
    step_weighting: StepWeighting
    # (2, tasks) loss sums and label counts since the last log.
    logged_losses: torch.Tensor
    # By name (2,), the sum and the number of what parts measured since the last log.
    logged_measurements: dict[str, torch.Tensor]
    # Of the last step that is logged, by task.
    logged_gradient_norms: dict[str, float]
    # The step at hand, where a weighting measures its losses once more after it.
    measured_step: StepBatches | None

    # The loss is defined on the whole step, so accumulated batches must not be averaged once more.
    loss_is_scaled_for_ga = True

    def set_up_balance(self) -> None:
        """Make the loss weighting and the gradient balance of a run that begins."""
        self.logged_losses = torch.zeros(2, self.model.num_tasks)
        self.logged_measurements, self.logged_gradient_norms = {}, {}
        self.balance = self.measured_step = None
        # An epoch, or a third of a shorter run: what some weightings wait for.
        epoch_steps = min(self.sampler.epoch_steps, max(run_steps(self.sampler, self.args) // 3, 1))
        self.loss_weighting = build_loss_weighting(self.args, self.mixture, self.model.config.task_names, epoch_steps)
        needs_gradients = self.loss_weighting.needs == "gradient_norms"
        shared = last_shared_matrix(self.model) if needs_gradients else None
        self.step_weighting = StepWeighting(self.loss_weighting, self._summed, shared)
        if self.balancer is not None:
            balanced = shared_parameters(self.model, self.args.balanced_parameters)
            self.balance = GradientBalance(self.balancer, balanced, self.model.num_tasks)

    def _summed(self, values: torch.Tensor) -> torch.Tensor:
        return self.accelerator.reduce(values, reduction="sum")

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """Return the batches of a step and its counts; remember where streams stood."""
        batches, counts = super().get_batch_samples(epoch_iterator, num_batches, device)
        for batch in batches:
            self.stream_state = batch.pop(STREAM_STATE, None)
        if self.loss_weighting.needs == "losses_after":
            # A run that goes on from a checkpoint has its random states where its first batch runs.
            self.measured_step = StepBatches(batches, cast(torch.Tensor, counts), {})
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
        loss = self._loss_of(outputs, self._task_weights_of(outputs, num_items_in_batch, model.training))
        return (loss, outputs) if return_outputs else loss

    def _task_weights_of(self, outputs: MultiTaskOutput, counts: torch.Tensor | None, training: bool) -> _TaskWeights:
        if counts is None:
            counts = torch.stack(cast(list[torch.Tensor], [outputs.task_label_counts, outputs.task_row_counts]))
        labels, rows = counts
        unfrozen = self.freezer.mask(labels.device)
        row_weights = unfrozen * self.loss_weighting.fixed_weights.to(unfrozen.dtype).to(unfrozen.device)
        if not training:
            return _TaskWeights(labels, rows, unfrozen, row_weights)
        whole_step = self.args.gradient_accumulation_steps == 1
        weights = self.step_weighting.weights(cast(torch.Tensor, outputs.task_loss_sums), labels, whole_step)
        return _TaskWeights(labels, rows, unfrozen * weights, row_weights)

    def _loss_of(self, outputs: MultiTaskOutput, weights: _TaskWeights) -> torch.Tensor:
        sums, reduction = cast(torch.Tensor, outputs.task_loss_sums), self.args.loss_reduction
        loss = step_loss(sums, weights.labels, weights.rows, weights.losses, reduction)
        if (penalties := outputs.task_penalty_sums) is not None:
            loss = loss + step_loss(penalties, weights.rows, weights.rows, weights.penalties, reduction)
        # Processes' gradients are averaged, and the step's loss is their sum.
        return loss * self.accelerator.num_processes

    def _forward(
        self, model: nn.Module, inputs: dict[str, Any], counts: torch.Tensor | None
    ) -> tuple[torch.Tensor, MultiTaskOutput | None]:
        """The loss of a batch, from one pass, and the outputs; a subclass's own loss, perhaps without them."""
        is_overridden = type(self).compute_loss is not SteppingTrainer.compute_loss or "compute_loss" in vars(self)
        if not is_overridden:
            outputs = model(**inputs, output_logits=False)
            return self._loss_of(outputs, self._task_weights_of(outputs, counts, model.training)), outputs
        returned = self.compute_loss(model, inputs, return_outputs=True, num_items_in_batch=counts)
        if isinstance(returned, tuple):
            return returned
        reads = "gradient_balancing" if self.balance is not None else f"loss_weighting={self.args.loss_weighting!r}"
        if self.balance is not None or self.loss_weighting.needs != "nothing":
            raise InputError(
                f"{reads} reads the losses of each task, and {type(self).__name__}.compute_loss returns its loss "
                "alone; end it with: return (loss, outputs) if return_outputs else loss"
            )
        logger.warning_once(
            f"{type(self).__name__}.compute_loss returns its loss alone, so that no loss per task is logged; for one, "
            "end it with: return (loss, outputs) if return_outputs else loss"
        )
        return returned, None

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Run a batch forward and backward; at a step's last, leave the gradients that the optimizer is to follow."""
        inner = self.accelerator.unwrap_model(model)
        if not self.owned:
            # Looked up once the model is wrapped as it will train, since wrapping may replace parameters.
            self.owned = inner.parameters_by_task()
        if self.measured_step is not None and self.step_weighting.sums is None:
            self.measured_step = self.measured_step._replace(random_states=random_states(self.args.device))
        if self.balance is not None:
            # Past the wrapper of several processes, which would sum what is to be kept apart.
            model = inner
        model.train()
        if callable(train := getattr(self.optimizer, "train", None)):
            # A schedule-free optimizer puts the weights of training in place.
            train()
        with self.compute_loss_context_manager():
            loss, outputs = self._forward(model, self._prepare_inputs(inputs), num_items_in_batch)
        if outputs is not None:
            self._record(outputs, num_items_in_batch)
        every = self.args.torch_empty_cache_steps
        if every is not None and self.state.global_step % every == 0:
            clear_device_cache()
        if self.balance is None:
            self._backward(loss)
        else:
            weights = self._task_weights_of(cast(MultiTaskOutput, outputs), num_items_in_batch, model.training)
            self._backward_by_task(self.balance, cast(MultiTaskOutput, outputs), weights)
        if self.accelerator.sync_gradients and num_items_in_batch is not None:
            self._end_step(inner, num_items_in_batch[0])
        return loss.detach()

    def _record(self, outputs: MultiTaskOutput, counts: torch.Tensor | None) -> None:
        """Take a batch into what is logged, and into what the loss weighting reads of the step."""
        sums, labels = cast(torch.Tensor, outputs.task_loss_sums), cast(torch.Tensor, outputs.task_label_counts)
        losses = torch.stack([sums.detach(), labels])
        self.logged_losses = self.logged_losses.to(losses.device) + losses
        for name, measured in (outputs.part_measurements or {}).items():
            before = self.logged_measurements.get(name)
            self.logged_measurements[name] = measured if before is None else before + measured
        self.step_weighting.add(sums, labels if counts is None else counts[0])

    def _backward(self, loss: torch.Tensor) -> None:
        options: dict[str, Any] = {}
        if self.args.optim in (OptimizerNames.LOMO, OptimizerNames.ADALOMO):
            options["learning_rate"] = self._get_learning_rate()
        if self.accelerator.distributed_type == DistributedType.DEEPSPEED:
            options["scale_wrt_gas"] = False
        self.accelerator.backward(loss, **options)

    def _backward_by_task(self, balance: GradientBalance, outputs: MultiTaskOutput, weights: _TaskWeights) -> None:
        sums, counts = cast(torch.Tensor, outputs.task_loss_sums), cast(torch.Tensor, outputs.task_label_counts)
        present = ((counts > 0) & (weights.labels > 0)).nonzero().flatten().tolist()
        means = weights.losses * sums / weights.labels.clamp(min=1)
        if (penalties := outputs.task_penalty_sums) is not None:
            means = means + weights.penalties * penalties / weights.rows.clamp(min=1)
        balance.backward(means, present)

    def _end_step(self, model: nn.Module, labels: torch.Tensor) -> None:
        """Leave the gradients that the optimizer is to follow, and let the loss weighting learn.

        Args:
            model: The model itself.
            labels: (tasks,) the step's labels.
        """
        if self.balance is not None:
            present = (labels > 0).nonzero().flatten().tolist()
            several = self.accelerator.num_processes > 1
            self.balance.finish(present, model.parameters(), self._summed if several else None)
        for parameters, count in zip(self.owned.values(), labels.tolist()):
            if count == 0:
                # Left in place, even a zero gradient lets AdamW move the task's parameters.
                for parameter in parameters:
                    parameter.grad = None
        if self._logs_this_step():
            self.logged_gradient_norms = task_gradient_norms(self.owned)
        self.step_weighting.end_step(labels)

    @torch.no_grad()
    def measure_after_step(self) -> None:
        """Answer the batches of the step once more, with the same dropout where the step is one batch."""
        assert self.measured_step is not None
        batches, counts, states = self.measured_step
        model = self.accelerator.unwrap_model(self.model_wrapped)
        with kept_random_states(self.args.device), self.compute_loss_context_manager():
            set_random_states(states)
            sums = sum(model(**self._prepare_inputs(batch), output_logits=False).task_loss_sums for batch in batches)
        self.step_weighting.after_step(cast(torch.Tensor, sums), counts[0])

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
        of the gradient of its own parameters, and how many of its rows were drawn since the run began; and the means
        of what parts measured of the rows since the last time.
        """
        if "loss" in logs:
            sums, counts = self.accelerator.reduce(self.logged_losses, reduction="sum").tolist()
            weights = (self.loss_weighting.weights() * self.freezer.mask(torch.device("cpu"))).tolist()
            for name, total, count, weight in zip(self.processor.tasks, sums, counts, weights):
                if count:
                    logs[f"loss_{name}"] = total / count
                logs[f"weight_{name}"] = weight
            logs.update({f"grad_norm_{name}": norm for name, norm in self.logged_gradient_norms.items()})
            drawn = self.sampler.drawn(self.state.global_step).tolist()
            logs.update({f"rows_{name}": count for name, count in zip(self.train_dataset.sizes, drawn)})
            logs.update(self._mean_measurements())
            self.logged_losses.zero_()
            self.logged_measurements, self.logged_gradient_norms = {}, {}
        super().log(logs, start_time)

    def _mean_measurements(self) -> dict[str, float]:
        """The means of what parts measured since the last log, of all processes; each has measured the same things."""
        names = sorted(self.logged_measurements)
        if not names:
            return {}
        pairs = self.accelerator.reduce(
            torch.stack([self.logged_measurements[name] for name in names]), reduction="sum"
        )
        return {name: total / count for name, (total, count) in zip(names, pairs.tolist()) if count}
