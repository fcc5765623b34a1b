"""The progress of a run on the screen: a line per log, a table per evaluation, everything else left to the loggers.

Transformers' `ProgressCallback` prints a log as one dictionary, which of ten tasks holds forty numbers.
"""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from transformers import PrinterCallback, ProgressCallback, TrainerCallback
from transformers.trainer import DEFAULT_PROGRESS_CALLBACK
from transformers.trainer_callback import CallbackHandler
from transformers.utils import is_in_notebook

from ..screen import Screen, clock, open_screen, table
from .processor_watch import ProcessorWatch
from .scoring import AVERAGE, RELATIVE, WORST, scores_of_tasks

# Keys of an evaluation that are no scores of tasks.
_TIMES = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time", "jit_compilation_time")
_NAN_HELP = (
    "Stop the run: look for empty or extreme rows and labels, take a smaller learning_rate, or bf16 or fp32 in place "
    "of fp16."
)
_LEGEND = "Each line: step, time left, speed, loss, learning rate, what changed most."


class _TaskLines(TrainerCallback):
    """What both callbacks do; they differ in whether a status line stands below the lines."""

    is_live = True
    screen: Screen | None = None
    first_step = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open the screen; what the evaluation before this run's first step said is its history's."""
        if not state.is_world_process_zero:
            return
        # A run before this one may have ended with an error.
        self.close()
        self.screen = open_screen(self.is_live, is_in_notebook())
        self.began, self.first_step, self.answered = time.monotonic(), state.global_step, 0
        # Seconds of evaluations, and when the one at hand began.
        self.away, self.left_at, self.has_nan = 0.0, 0.0, False
        self.losses: dict[str, float] = {}
        before = [entry for entry in state.log_history if f"eval_{AVERAGE}" in entry]
        self.scores: Mapping[str, float] = before[-1] if before else {}
        self.best = max((entry[f"eval_{AVERAGE}"] for entry in before), default=None)
        self.watch = ProcessorWatch() if args.device.type == "cpu" else None
        if args.logging_strategy != "no":
            self.screen.write(_LEGEND)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Move the status line on."""
        if self.screen is not None:
            self._show_status(state, "")
            if self.watch is not None and (warning := self.watch.warning()):
                self.screen.write(warning)
                self.watch = None

    def on_prediction_step(
        self, args: Any, state: Any, control: Any, eval_dataloader: Any = None, **kwargs: Any
    ) -> None:
        """Say in the status line how many batches are answered."""
        if not state.is_world_process_zero:
            return
        if self.screen is None:
            # An evaluation or prediction outside a run, which ends with `on_evaluate` or `on_predict`.
            self.screen, self.answered = open_screen(self.is_live, is_in_notebook()), 0
            self.first_step, self.began = -1, time.monotonic()
        if not self.answered:
            self.left_at = time.monotonic()
        self.answered += 1
        batches = _length(eval_dataloader)
        of_all = f" of {batches:,}" if batches else ""
        text = f"answering: batch {self.answered:,}{of_all}"
        if self.first_step < 0:
            self.screen.set_status(text, self.answered / max(batches, self.answered))
        else:
            self._show_status(state, text)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Print a log of losses as one line that fits the screen, and the end of a run."""
        if self.screen is None or logs is None:
            return
        if "loss" in logs:
            losses = {key.removeprefix("loss_"): value for key, value in logs.items() if key.startswith("loss_")}
            self.screen.write(self._line(state, logs, losses))
            lost = [name for name, loss in losses.items() if not math.isfinite(loss)]
            if lost and not self.has_nan:
                self.has_nan = True
                self.screen.write(f"The loss of {', '.join(lost)} is not a finite number. {_NAN_HELP}")
            self.losses.update(losses)
        elif "train_runtime" in logs:
            taken = state.global_step - self.first_step
            seconds = logs["train_runtime"]
            self.screen.write(f"{taken:,} steps in {clock(seconds)} ({_speed(taken, seconds)}).")

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: Mapping[str, float] | None = None, **kwargs: Any
    ) -> None:
        """Print the scores of an evaluation during a run, each with its change since the last one."""
        if self.screen is None:
            return
        if self.first_step < 0:
            self.close()
            return
        self._come_back()
        tasks = kwargs["model"].config.task_names
        given = metrics or {}
        if not any(name.startswith("eval_") for name in given):
            # Other rows, under another prefix.
            return
        lines = evaluation_lines(given, self.scores, tasks, "eval")
        average = given.get(f"eval_{AVERAGE}")
        if average is not None and (self.best is None or average > self.best):
            is_chosen_by = args.metric_for_best_model in (None, AVERAGE, f"eval_{AVERAGE}")
            lines += ["The best mean so far."] if self.best is not None and is_chosen_by else []
            self.best = average
        seconds = given.get("eval_runtime")
        took = f", in {clock(seconds)}" if seconds is not None else ""
        self.screen.write("", f"Validation after step {state.global_step:,} of {state.max_steps:,}{took}:", *lines, "")
        self.scores = dict(given)

    def on_predict(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        """Take away the status line of a prediction outside a run."""
        if self.screen is None:
            return
        if self.first_step < 0:
            self.close()
        else:
            self._come_back()

    def _come_back(self) -> None:
        """Take the time of answering from that of the steps."""
        if self.answered:
            self.away += time.monotonic() - self.left_at
        self.answered = 0

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close the screen."""
        if self.screen is not None:
            if args.load_best_model_at_end and state.best_model_checkpoint is not None:
                name, step = args.metric_for_best_model, state.best_global_step
                self.screen.write(f"The model is that of step {step:,}, the best by {name}: {state.best_metric:.4g}.")
            self.close()

    def close(self) -> None:
        """Take the status line away, where there is one."""
        if self.screen is not None:
            self.screen.close()
            self.screen = None

    def _show_status(self, state: Any, doing: str) -> None:
        assert self.screen is not None
        parts = [f"step {state.global_step:,}/{state.max_steps:,}", *self._pace(state), *filter(None, [doing])]
        self.screen.set_status("  ".join(parts), state.global_step / max(state.max_steps, 1))

    def _pace(self, state: Any) -> list[str]:
        """The time left and the speed, once a step is taken."""
        taken, seconds = state.global_step - self.first_step, time.monotonic() - self.began
        if taken <= 0:
            return []
        left = (state.max_steps - state.global_step) * seconds / taken
        return [f"{clock(left)} left", _speed(taken, seconds - self.away)]

    def _line(self, state: Any, logs: Mapping[str, Any], losses: Mapping[str, float]) -> str:
        """A log: as many tasks as the screen has room for, those first whose loss changed by the largest factor."""
        assert self.screen is not None
        most = f"{state.max_steps:,}"
        parts = [f"{state.global_step:>{len(most)},}/{most}", *self._pace(state), f"loss {logs['loss']:.3f}"]
        if "learning_rate" in logs:
            parts.append(f"lr {logs['learning_rate']:.1e}")
        line = "  ".join(parts)
        by_change = sorted(losses, key=lambda name: -_factor(losses[name], self.losses.get(name)))
        room = self.screen.width - len(line)
        for place, name in enumerate(by_change):
            value = _with_change(losses[name], self.losses.get(name))
            part = f"  {name} {value}"
            if not place and len(part) > room and (letters := room - len(value) - 4) > 2:
                part = f"  {name[:letters]}… {value}"
            if len(part) <= room:
                line, room = line + part, room - len(part)
        return line


class MultiTaskProgressCallback(_TaskLines, ProgressCallback):
    """Shows a run of several tasks in a terminal, a notebook or a log file, in place of Transformers'
    `ProgressCallback`: a status line (a log file has none), a line per log, a table per evaluation.
    """


class MultiTaskPrinterCallback(_TaskLines, PrinterCallback):
    """The same without a status line, in place of Transformers' `PrinterCallback` (``disable_tqdm=True``)."""

    is_live = False


def show_by_task(handler: CallbackHandler, given: Iterable[Any]) -> None:
    """Put the callback that shows a run by task in the place of Transformers' own; one that a caller gave stays alone.

    Args:
        handler: The trainer's callbacks.
        given: Those that the caller gave, as objects or classes.
    """
    shown = (ProgressCallback, PrinterCallback, DEFAULT_PROGRESS_CALLBACK)
    has_one = any(issubclass(one if isinstance(one, type) else type(one), shown) for one in given)
    for place, callback in enumerate(handler.callbacks):
        if type(callback) in shown and callback not in given and type(callback) not in given:
            is_plain = type(callback) is PrinterCallback
            ours = MultiTaskPrinterCallback() if is_plain else MultiTaskProgressCallback()
            handler.callbacks[place : place + 1] = [] if has_one else [ours]
            return


def evaluation_lines(
    metrics: Mapping[str, float], before: Mapping[str, float], tasks: Sequence[str], prefix: str
) -> list[str]:
    """Return an evaluation as a table: a line per task and metric, with the change since another evaluation.

    Args:
        metrics: What `MultiTaskTrainer.evaluate` returned.
        before: What it returned before; may be empty.
        tasks: The tasks' names.
        prefix: What the keys begin with.
    """
    scores, losses, left = scores_of_tasks(metrics, tasks, prefix)
    earlier = {key.removeprefix(f"{prefix}_"): value for key, value in before.items()}
    rows = []
    for task, by_metric in scores.items():
        loss = f"{losses[task]:.3f}" if task in losses else ""
        for place, (name, value) in enumerate(by_metric.items()):
            about = ["", name] if place else [task, name]
            rows.append([*about, *_cells_of_score(value, earlier.get(f"{task}_{name}")), "" if place else loss])
    for key, name in ((WORST, "worst task"), (RELATIVE, "over single-task models, %"), (AVERAGE, "mean over tasks")):
        if key in left and not (key == WORST and len(tasks) == 1):
            rows.append([name, "", *_cells_of_score(left[key], earlier.get(key)), ""])
    for key in (*_TIMES, "loss", WORST, RELATIVE, AVERAGE):
        left.pop(key, None)
    further = [f"{name} {value:.4g}" for name, value in left.items() if isinstance(value, float | int)]
    lines = table(["task", "metric", "score", "change", "loss"], rows, left=2)
    return [*lines, f"also: {', '.join(further)}"] if further else lines


def _cells_of_score(value: float, before: float | None) -> list[str]:
    return [f"{value:.1f}", "" if before is None else f"{value - before:+.1f}"]


def _with_change(loss: float, before: float | None) -> str:
    """A loss and its change, with as many digits as a small one needs."""
    digits = 2 if loss >= 0.1 else 3
    change = 0.0 if before is None else round(loss - before, digits)
    return f"{loss:.{digits}f}" + (f" {change:+.{digits}f}" if change else "")


def _factor(loss: float, before: float | None) -> float:
    """How much a loss has changed, as a factor of at least 1."""
    least = 1e-6
    if before is None:
        return 1.0
    high, low = max(loss, before, least), max(min(loss, before), least)
    return high / low if high == high else float("inf")


def _speed(steps: int, seconds: float) -> str:
    each = seconds / max(steps, 1)
    return f"{each:.1f} s/it" if each >= 2 else f"{1 / max(each, 1e-6):.1f} it/s"


def _length(loader: Any) -> int:
    try:
        return len(loader)
    except TypeError:
        return 0


def close_screens(handler: CallbackHandler) -> None:
    """Take status lines away where a run ended with an error."""
    for callback in handler.callbacks:
        if isinstance(callback, _TaskLines):
            callback.close()


__all__ = [
    "MultiTaskPrinterCallback",
    "MultiTaskProgressCallback",
    "close_screens",
    "evaluation_lines",
    "show_by_task",
]
