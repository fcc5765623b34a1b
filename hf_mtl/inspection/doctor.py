"""Looks a run over before it trains, for what would otherwise go wrong without a word.

To add a check, write a function of a trainer that returns findings, and its line in `CHECKS`.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from datasets import Dataset

from ..data.features import FeatureDataset
from ..data.label_kinds import label_kind
from ..data.overlap import count_inputs, repeats_by_chance
from ..modeling.label_checks import IGNORED_LABEL
from ..screen import rough_duration, table
from ..tasks import LABEL_FIELD, TaskSpec
from ..training.processor_watch import ProcessorWatch
from .answer_checks import Finding, answers_in_no_window, long_answers, truncated, words_without_pieces
from .gradient_reach import gradient_reach, unreached_parameters
from .step_timing import kept_statistics, step_seconds, typical_batches
from .task_dependence import parts_without_tasks
from .unread_settings import unread_settings

if TYPE_CHECKING:
    from ..training.trainer import MultiTaskTrainer

# Of two tasks' inputs, the share in common from which they count as one data set.
_SAME_DATA = 0.9
# Share of the most frequent class from which accuracy says little.
_ONE_SIDED = 0.9
# Rows of each task whose loss is sent backward.
_ROWS_SENT = 4
# Names that a finding lists.
_NAMED = 4


@dataclass(frozen=True)
class Diagnosis:
    """The doctor's findings.

    Args:
        findings: In the order of the checks.
        shared_inputs: By task with training rows and task with validation rows, how many training rows have an input
            that stands in both.
        step_seconds: What the passes of one step take here; None where they could not be run.
        plain_seconds: The same with fixed weights and summed gradients, where the run does otherwise.
        total_steps: Steps of the run.
        busy: A word on other programs that hold the run up; None where there are none.
    """

    findings: list[Finding]
    shared_inputs: dict[tuple[str, str], int]
    step_seconds: float | None
    plain_seconds: float | None
    total_steps: int
    busy: str | None = None

    def lines(self) -> list[str]:
        """Return the diagnosis for the screen."""
        report = []
        if self.step_seconds is not None:
            total = rough_duration(self.step_seconds * self.total_steps)
            report.append(f"A step's passes take {self.step_seconds:.2f} s here, {self.total_steps:,} steps {total}.")
        if self.step_seconds is not None and self.plain_seconds is not None:
            ratio = self.step_seconds / self.plain_seconds
            report.append(f"Without loss weighting and gradient balancing {self.plain_seconds:.2f} s ({ratio:.2f}:1).")
        if self.busy is not None:
            report.append(self.busy)
        if self.shared_inputs:
            rows = [[train, held_out, f"{count:,}"] for (train, held_out), count in self.shared_inputs.items()]
            report += ["Training rows whose input stands in a validation split:"]
            report += [f"  {line}" for line in table(["training", "validation", "rows"], rows)]
        return [*report, *(f"- {finding}" for finding in self.findings)]


def diagnose(trainer: "MultiTaskTrainer") -> Diagnosis:
    """Run every check and time one step; the model, the method and the run's random draws are left as they were.

    Every process must call it.
    """
    watch = ProcessorWatch()
    findings = [finding for check in CHECKS for finding in check(trainer)]
    inputs = {name: count_inputs(rows, trainer.specs[name]) for name, rows in trainer.mixture.train.items()}
    findings += _same_data(trainer, inputs)
    shared = _shared_inputs(trainer, inputs)
    findings += _leaks(shared)
    seconds: tuple[float | None, float | None] = (None, None)
    if not any(finding.check == "labels_out_of_range" for finding in findings) and not _is_divided(trainer):
        batches = _batches_by_task(trainer)
        with kept_statistics(trainer.model):
            findings += _gradients(trainer, batches)
            findings += _task_dependence(trainer, next(iter(batches.values())))
            seconds = step_seconds(trainer)
    busy = watch.warning(least_seconds=2.0) if trainer.args.device.type == "cpu" else None
    return Diagnosis(findings, shared, *seconds, trainer.total_steps(), busy)


def _is_divided(trainer: "MultiTaskTrainer") -> bool:
    """Return whether the model's weights are divided among processes once it trains."""
    return trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled


def never_drawn(trainer: "MultiTaskTrainer") -> list[Finding]:
    """Sources of which the run draws no row, and tasks without weight."""
    steps = trainer.total_steps()
    findings = [
        Finding(
            "never_drawn",
            share.task,
            f"no row of it is drawn in {steps:,} steps",
            "Take more steps, another mixing_strategy, or a larger share.",
        )
        for share in trainer.preview_mixture()
        if share.draws == 0
    ]
    for name, spec in trainer.specs.items():
        if spec.weight == 0:
            what = "its weight is 0, so nothing trains its head"
            findings.append(Finding("never_drawn", name, what, "Give it a weight, or leave the task out."))
    return findings


def labels_out_of_range(trainer: "MultiTaskTrainer") -> list[Finding]:
    """Labels that the task's head has no output for, in a mixture that was not checked when it was made."""
    findings = []
    for split, name, rows in _splits(trainer):
        spec = trainer.specs[name]
        if spec.problem.inputs == "choices":
            given = zip(rows[LABEL_FIELD][:], rows["choices"][:])
            wrong = sum(not 0 <= label < len(choices) and label != IGNORED_LABEL for label, choices in given)
            expected = "a place in its row's choices"
        elif spec.problem.has_label_names:
            labels = [index for label in rows[LABEL_FIELD] for index in label_kind(spec).ids(label)]
            wrong = sum(not 0 <= label < spec.num_outputs and label != IGNORED_LABEL for label in labels)
            expected = f"in 0 to {spec.num_outputs - 1}"
        else:
            continue
        if wrong:
            what = f"{wrong:,} {split} labels are not {expected}"
            findings.append(Finding("labels_out_of_range", name, what, "Correct the labels, or list all in `labels`."))
    return findings


def constant_label(trainer: "MultiTaskTrainer") -> list[Finding]:
    """Tasks whose labels are all one."""
    findings = []
    for split, name, rows in _splits(trainer):
        spec = trainer.specs[name]
        labels = [label for label in label_kind(spec).constants(rows[LABEL_FIELD][:]) if label != IGNORED_LABEL]
        if len(rows) > 1 and len(set(map(str, labels))) == 1:
            advice = "Check the label column, or leave the task out."
            what = f"every label of its {len(rows):,} {split} rows is {_label_name(spec, labels[0])}"
            if split == "validation":
                what, advice = f"{what}; its scores say nothing", "Check the label column and how the rows were split."
            findings.append(Finding("constant_label", name, what, advice))
    return findings


def metric_fits(trainer: "MultiTaskTrainer") -> list[Finding]:
    """Metrics under which a task looks solved that is not."""
    findings = []
    for name, rows in trainer.mixture.validation.items():
        spec = trainer.specs[name]
        if spec.problem.labels != "class" or spec.metric_names != ["accuracy"]:
            continue
        labels = [label for label in rows[LABEL_FIELD][:] if label != IGNORED_LABEL]
        share = max(Counter(labels).values(), default=0) / max(len(labels), 1)
        if _ONE_SIDED <= share < 1:
            what = f"{share:.0%} of the validation rows have one label, and accuracy alone scores it"
            advice = "Take metrics: [f1_macro] or [matthews_correlation], and perhaps balance_classes: true."
            findings.append(Finding("metric_fits", name, what, advice))
    return findings


def _same_data(trainer: "MultiTaskTrainer", inputs: Mapping[str, Counter]) -> list[Finding]:
    """Tasks that read the same rows without saying so.

    Args:
        trainer: The trainer.
        inputs: By task, its training inputs.
    """
    findings = []
    for place, (name, texts) in enumerate(inputs.items()):
        for other, others in list(inputs.items())[place + 1 :]:
            least = min(len(texts), len(others))
            specs = (trainer.specs[name], trainer.specs[other])
            # What is masked is another input, though it is made of the same text.
            masked = any(not spec.problem.has_label_column for spec in specs)
            one_source = specs[0].source_name == specs[1].source_name
            if least and not masked and not one_source and len(texts.keys() & others.keys()) >= _SAME_DATA * least:
                what = f"{len(texts.keys() & others.keys()):,} of its inputs are those of {other}"
                advice = "Give both tasks one `source`, and each row is encoded once; or drop one of them."
                findings.append(Finding("same_data", name, what, advice))
    return findings


def outside_optimizer(trainer: "MultiTaskTrainer") -> list[Finding]:
    """Trained parameters that no optimizer holds, or holds at a learning rate of 0; tasks that train nothing."""
    findings = []
    for name in trainer.specs:
        if not any(parameter.requires_grad for parameter in trainer.model.task_parameters(name)):
            advice = "Set requires_grad on its head, or leave the task out."
            findings.append(Finding("outside_optimizer", name, "all parameters of its own are frozen", advice))
    if _is_divided(trainer):
        return findings
    given = trainer.optimizer
    groups = trainer.create_optimizer().param_groups
    trainer.optimizer = given
    # A scheduler that warms up has set the rate itself to 0.
    rates = {id(parameter): group.get("initial_lr", group["lr"]) for group in groups for parameter in group["params"]}
    trained = {name: parameter for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    outside = [name for name, parameter in trained.items() if id(parameter) not in rates]
    still = [name for name, parameter in trained.items() if rates.get(id(parameter)) == 0]
    if outside:
        advice = "Build the optimizer after the model is whole, or leave `optimizers` to the trainer."
        what = "the optimizer does not hold these trained parameters"
        findings.append(Finding("outside_optimizer", _modules_of(outside), what, advice))
    if still:
        what = "their learning rate is 0, so they stay as they are"
        advice = "Set learning_rate, parts_learning_rate or the task's own; or freeze them, which costs less."
        findings.append(Finding("outside_optimizer", _modules_of(still), what, advice))
    return findings


def settings(trainer: "MultiTaskTrainer") -> list[Finding]:
    """Settings of the model that change nothing."""
    if trainer.model.num_tasks < 2:
        return []
    unread = ", ".join(f"{name}={value}" for name, value in unread_settings(trainer.model).items())
    advice = "Leave it out, or choose the part that it belongs to."
    return [Finding("settings", unread, "no part of this model reads it", advice)] if unread else []


def _gradients(trainer: "MultiTaskTrainer", batches: Mapping[str, Mapping[str, Any]]) -> list[Finding]:
    """Parts and heads that no loss reaches, and losses that are not finite."""
    model = trainer.model
    with trainer.compute_loss_context_manager():
        reach = gradient_reach(model, batches)
    findings = [
        Finding(
            "gradients",
            name,
            "its loss or gradient is not a finite number",
            "Look for empty or extreme rows and labels; train in bf16 or fp32 instead of fp16.",
        )
        for name in reach.bad_tasks
    ]
    unreached = unreached_parameters(model, reach)
    if unreached:
        what = "no task's loss gives these trained parameters a gradient"
        advice = "Something detaches them or nothing reads them; repair it, or freeze them with requires_grad_(False)."
        findings.append(Finding("gradients", _modules_of(unreached), what, advice))
    return findings


def _task_dependence(trainer: "MultiTaskTrainer", batch: Mapping[str, Any]) -> list[Finding]:
    """Parts that are told of the task and do not tell tasks apart."""
    with trainer.compute_loss_context_manager():
        spreads = parts_without_tasks(trainer.model, batch).items()
    what = "it gives every task the same state (they differ by {:.1e} of their norm)"
    advice = "Leave out the settings that turn it, or choose another; it takes its time and tells no tasks apart."
    return [Finding("task_dependence", part, what.format(spread), advice) for part, spread in spreads]


def _shared_inputs(trainer: "MultiTaskTrainer", inputs: Mapping[str, Counter]) -> dict[tuple[str, str], int]:
    """Return, by task with training rows and task with validation rows, how many training inputs stand in both.

    Args:
        trainer: The trainer.
        inputs: By task, its training inputs.
    """
    rows_of, specs = trainer.mixture.validation.items(), trainer.specs
    held_out = {name: count_inputs(rows, specs[name]) for name, rows in rows_of}
    counts = {}
    for name, texts in inputs.items():
        if repeats_by_chance(specs[name]):
            continue
        for other, others in held_out.items():
            if count := sum(texts[key] for key in texts.keys() & others.keys()):
                counts[name, other] = count
    return counts


def _leaks(shared: Mapping[tuple[str, str], int]) -> list[Finding]:
    if not shared:
        return []
    tasks = ", ".join(dict.fromkeys(train for train, _ in shared))
    what = "some of their training rows have an input of a validation split (table above)"
    advice = "In a recipe leave exclude_overlap: true; else drop those rows, or the scores are too good."
    return [Finding("leaks", tasks, what, advice)]


# Those that read neither inputs nor gradients; `_gradients` comes last, where labels fit.
CHECKS: tuple[Callable[["MultiTaskTrainer"], list[Finding]], ...] = (
    never_drawn,
    labels_out_of_range,
    constant_label,
    metric_fits,
    truncated,
    answers_in_no_window,
    long_answers,
    words_without_pieces,
    outside_optimizer,
    settings,
)


def _modules_of(names: Sequence[str]) -> str:
    """Return the modules in which parameters lie, the first few of them."""
    modules = list(dict.fromkeys(name.rpartition(".")[0] for name in names))
    more = f" and {len(modules) - _NAMED} more" if len(modules) > _NAMED else ""
    return ", ".join(modules[:_NAMED]) + more


def _splits(trainer: "MultiTaskTrainer") -> list[tuple[str, str, Dataset]]:
    mixture = trainer.mixture
    named = (("training", mixture.train), ("validation", mixture.validation))
    return [(split, name, rows) for split, tasks in named for name, rows in tasks.items()]


def _label_name(spec: TaskSpec, label: Any) -> str:
    named = spec.labels is not None and isinstance(label, int) and 0 <= label < len(spec.labels)
    return repr(spec.labels[label] if spec.labels is not None and named else label)


def _batches_by_task(trainer: "MultiTaskTrainer") -> dict[str, dict[str, Any]]:
    """Some rows of each task; of streams, the first step's rows for all of them."""
    mixture, move = trainer.mixture, trainer._prepare_inputs
    if mixture.streams:
        batch = {key: value for key, value in typical_batches(trainer)[0].items() if key != "stream_state"}
        return dict.fromkeys(trainer.specs, move(batch))
    by_task = {}
    for name, rows in mixture.train.items():
        few = FeatureDataset(
            trainer.processor, trainer.specs, {name: rows.select(range(min(_ROWS_SENT, len(rows))))}, progress=False
        )
        by_task[name] = move(trainer.data_collator([few[place] for place in range(min(len(few), _ROWS_SENT))]))
    return by_task


__all__ = ["CHECKS", "Diagnosis", "diagnose"]
