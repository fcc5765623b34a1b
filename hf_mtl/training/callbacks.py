"""Callbacks around the steps of a run."""

import signal
import sys
from types import FrameType
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

_INTERRUPTED = "\nInterrupted: this step is finished and a checkpoint written; Ctrl-C once more stops at once."


class InterruptCallback(TrainerCallback):
    """On Ctrl-C, finishes the step at hand, has a checkpoint written and stops; a second Ctrl-C stops at once."""

    def __init__(self) -> None:
        self.interrupted = False
        self._previous: Any = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take over the interrupt signal, once if a run begins anew."""
        if self._previous is None:
            self._previous = signal.signal(signal.SIGINT, self._interrupt)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Give the interrupt signal back."""
        signal.signal(signal.SIGINT, self._previous)
        self._previous = None

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Save and stop where an interrupt came during the step, after an evaluation that is due."""
        if self.interrupted:
            control.should_save = True
            control.should_training_stop = True

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leave out what an epoch's end does where an interrupt came in the middle of one."""
        if self.interrupted and state.epoch != round(state.epoch or 0):
            control.should_evaluate = control.should_save = control.should_log = False

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Save and stop where an interrupt came during an evaluation, after which there may be no step."""
        if self.interrupted:
            control.should_save = True
            control.should_training_stop = True

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.interrupted:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None
            raise KeyboardInterrupt
        self.interrupted = True
        print(_INTERRUPTED, file=sys.stderr, flush=True)


class StepsOfTrainer(TrainerCallback):
    """Tells the sampler its epoch, which Transformers cannot reach behind the wrappers of several processes, and the
    trainer that the optimizer has taken its step.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Say which epoch begins."""
        sampler = self.trainer.sampler
        sampler.set_epoch(state.global_step // sampler.epoch_steps)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Say how much of the run is over."""
        self.trainer.model.set_progress(state.global_step / max(state.max_steps, 1))

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure the losses after the step, where a weighting reads them."""
        if self.trainer.loss_weighting.needs == "losses_after":
            self.trainer.measure_after_step()
