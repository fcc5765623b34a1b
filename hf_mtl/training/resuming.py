"""A Trainer that goes on from its checkpoints: what they keep, and what must be as it was."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from torch.optim.lr_scheduler import LambdaLR

from ..data.mixing import DevGapMixing
from ..data.streams import StreamedMixture
from ..modeling.errors import InputError
from .balanced_step import SET_BY_BALANCING
from .checkpoints import CheckpointingTrainer
from .ignored_arguments import refuse_ignore_keys, refuse_ignored_arguments
from .progress import close_screens
from .run_identity import check_run, fingerprints, run_arguments, run_settings, run_tasks
from .sampling import run_steps
from .task_trainer import TaskTrainer

# What a trainer is built with: the precision of its arithmetic, its device, its processes.
_SET_WHEN_BUILT = (
    "bf16",
    "fp16",
    "use_cpu",
    "full_determinism",
    "torch_compile",
    "accelerator_config",
    "parallelism_config",
    "fsdp",
    "deepspeed",
    "report_to",
    "disable_tqdm",
    "image_augmentation",
)


class ResumingTrainer(CheckpointingTrainer, TaskTrainer):
    """A Trainer whose checkpoints keep the state of the mixture, the tasks and their weights."""

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> Any:
        """Train, with the arguments as they are now; see `CheckpointingTrainer.train`.

        Raises:
            InputError: There are no training rows, or `ignore_keys_for_eval` are given (see `evaluate`).
        """
        if self.train_dataset is None:
            raise InputError("This trainer has no training rows; give train_dataset={task: Dataset} when it is made.")
        refuse_ignore_keys(ignore_keys_for_eval)
        self.follow_arguments()
        try:
            return super().train(resume_from_checkpoint, trial=trial)
        finally:
            close_screens(self.callback_handler)

    def follow_arguments(self) -> None:
        """Check what was changed of the arguments since the trainer was made.

        Raises:
            InputError: An argument that gradient balancing sets itself, that a trainer is built with, or that would
                have no effect.
        """
        refuse_ignored_arguments(self.args)
        values = vars(self.args)
        for name in _SET_WHEN_BUILT:
            if values[name] != self.values_given[name]:
                raise InputError(
                    f"{name} was changed from {self.values_given[name]!r} to {values[name]!r} after the trainer was "
                    "made with it; make a new trainer."
                )
        for name in SET_BY_BALANCING if self.balancer is not None else ():
            if values[name] != self.values_given[name]:
                raise InputError(
                    f"{name} was changed to {values[name]!r} after the trainer was made, and gradient_balancing has "
                    "set how steps are drawn; make a new trainer."
                )
        if self.args.max_steps == 0:
            # By epochs too, and Transformers' loop would take one step.
            self.args.adjust(max_steps=-1)
        self.args.check_derived()

    def total_steps(self) -> int:
        """Return how many steps the run takes."""
        return run_steps(self.sampler, self.args)

    @cached_property
    def _row_fingerprints(self) -> dict[str, list[Any]]:
        return fingerprints(self.mixture.train)

    def run_identity(self) -> dict[str, Any]:
        """Return what a continued run must share, and its length: JSON values."""
        return {
            "arguments": run_arguments(self.args),
            "tasks": run_tasks(self.specs.values()),
            "settings": run_settings(self.accelerator.unwrap_model(self.model).config),
            "rows": self._row_fingerprints,
            "total_steps": self.total_steps(),
        }

    def run_state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of the mixture and the tasks: JSON values."""
        history = self.mixing.history if isinstance(self.mixing, DevGapMixing) else []
        return {
            "run": self.run_identity(),
            "mixing": history,
            "freezing": self.freezer.state(),
            "loss_weighting": self.loss_weighting.state(),
            "gradient_balancing": None if self.balancer is None else self.balancer.state(),
        }

    def check_run_state(self, state: Mapping[str, Any], folder: str) -> None:
        """Refuse another run's checkpoint by name, and another length where the rows that were drawn depend on it."""
        then = state.get("run")
        if then is None:
            return
        now = self.run_identity()
        check_run(then, now, folder)
        before, total = then["total_steps"], now["total_steps"]
        if before != total and self.mixing.changes and not isinstance(self.mixing, DevGapMixing):
            raise InputError(
                f"The checkpoint {folder!r} is of a run of {before} steps, this one has {total}; the tasks' shares "
                "follow the progress of the run, so rows that were drawn would be drawn again. Keep the length, or "
                "begin a new run in another output_dir."
            )

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        schedule = self.lr_scheduler
        if checkpoint is None or not isinstance(schedule, LambdaLR) or self.optimizer is None:
            return
        # The optimizer kept the rate that a run of another length had reached.
        place = schedule.last_epoch
        rates = [base * rate_at(place) for base, rate_at in zip(schedule.base_lrs, schedule.lr_lambdas)]
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        schedule._last_lr = rates

    def load_run_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what a checkpoint kept; say so where the run has another length."""
        total = self.total_steps()
        before = state["run"]["total_steps"] if "run" in state else total
        if before != total and self.is_world_process_zero():
            print(f"The run has {total} steps instead of {before}; its learning rate goes on as in a run of {total}.")
        if isinstance(self.mixing, DevGapMixing):
            self.mixing.history = [(int(first), list(shares)) for first, shares in state["mixing"]]
        self.freezer.load_state(state["freezing"])
        self.loss_weighting.load_state(state["loss_weighting"])
        if self.balancer is not None:
            self.balancer.load_state(state["gradient_balancing"])

    def process_state(self) -> dict[str, Any] | None:
        """Return what a checkpoint keeps of this process: where its streams stood."""
        return self.stream_state

    def load_process_state(self, state: Mapping[str, Any]) -> None:
        """Go on reading streams where the checkpoint was written."""
        if isinstance(self.train_dataset, StreamedMixture):
            self.train_dataset.load_state(state)
