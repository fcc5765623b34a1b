"""The card of a checkpoint: what it does, how well, compared with what, how to ask it, who may use it.

One template for every model: what is not known is left out, heading and all.
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml
from huggingface_hub import EvalResult, EvalResultEntry, ModelCardData, eval_result_entries_to_yaml

from .problem_types import PROBLEM_TYPES
from .task_config import TaskConfig

# What examples of the card ask, by input field; written for it.
_EXAMPLE_INPUTS: dict[str, Any] = {
    "text": "The kettle I ordered on Monday arrived broken, please send my money back.",
    "text_pair": "A customer wants a refund for a damaged kettle.",
    "tokens": ["Anna", "Weber", "wrote", "from", "Hamburg", "on", "Monday", "."],
    "question": "When was the kettle ordered?",
    "context": "The kettle was ordered on Monday and arrived broken on Thursday.",
    "choices": ["The customer gets a new kettle.", "The kettle grows wings."],
}
_MASKED_TEXT = "The kettle I ordered on Monday arrived {mask} on Thursday."
_TAGS = ("multitask-learning", "hf_mtl")
_MANY_LABELS = 8
_LONG_ANSWER = 100

_INTRODUCTION = """# {name}

One encoder that answers {count} in one pass: {tasks}.{base} It was trained with `hf_mtl`, multitask learning for
Transformers{loads}."""

_USE = """## Use

```python
{python}
```

`trust_remote_code=True` runs the model's code, which lies beside its weights; after `import hf_mtl` it is not needed.
Scores are the model's own probabilities: they are not calibrated. From the command line, with `hf_mtl` installed:

```bash
{shell}
```"""


@dataclass
class TaskFacts:
    """Facts of a task on its model's card; what is None or empty is not known, and left out.

    Args:
        config: The task.
        metrics: Scores on the validation split by metric, 0-100.
        trivial: The same of the best answer that ignores the input.
        tfidf: The same of a linear model over TF-IDF.
        single_task: The same of a model of this task alone.
        test: The same of this model, on the test split.
        train_rows: How many rows it learned from.
        validation_rows: How many rows scored it.
        dataset: Where the rows come from: a data set of the Hub, or a name.
        subset: Its configuration.
        split: The split that scored it.
        example: The row that the card asks; by default `example_row`'s.
        answer: The model's answer to it.
    """

    config: TaskConfig
    metrics: Mapping[str, float] = field(default_factory=dict)
    trivial: Mapping[str, float] = field(default_factory=dict)
    tfidf: Mapping[str, float] = field(default_factory=dict)
    single_task: Mapping[str, float] = field(default_factory=dict)
    test: Mapping[str, float] = field(default_factory=dict)
    train_rows: int | None = None
    validation_rows: int | None = None
    dataset: str | None = None
    subset: str | None = None
    split: str = "validation"
    example: Mapping[str, Any] | None = None
    answer: Any = None


@dataclass
class CardFacts:
    """Facts of a checkpoint on its card; what is None or empty is not known, and left out.

    Args:
        name: The model's name.
        checkpoint: What `from_pretrained` is given, a folder or a repository; None for an adapter.
        tasks: Its tasks.
        base_model: The encoder, as a name of the Hub.
        encoder: The encoder, however it was named.
        languages: Codes such as ``en``.
        datasets: Further data sets of the Hub.
        reads_hub: Whether the rows were read from the Hub, so that its data sets can show the scores, or from files
            of somebody's.
        license: A licence of the Hub, such as ``apache-2.0``.
        license_note: What else is known of who may use it.
        tags: Further tags.
        training: Lines on mixture, weighting and schedule.
        data: Lines on leaks and on what was cut off.
        parts: The report of what the model's parts contribute.
        figures: Pictures beside the card, by what they show.
        command: What trains it again.
        environment: Versions, hardware and time by name.
        limits: Further lines on what it does not do.
    """

    name: str
    checkpoint: str | None
    tasks: Sequence[TaskFacts]
    base_model: str | None = None
    encoder: str | None = None
    languages: Sequence[str] = ()
    datasets: Sequence[str] = ()
    reads_hub: bool | None = None
    license: str | None = None
    license_note: str | None = None
    tags: Sequence[str] = ()
    training: Sequence[str] = ()
    data: Sequence[str] = ()
    parts: Sequence[str] = ()
    figures: Mapping[str, str] = field(default_factory=dict)
    command: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    limits: Sequence[str] = ()


def example_row(task: TaskConfig, mask_token: str = "[MASK]") -> dict[str, Any]:
    """Return the example that the card asks a task."""
    if task.problem.inputs == "masked":
        return {"text": _MASKED_TEXT.format(mask=mask_token)}
    return {name: _EXAMPLE_INPUTS[name] for name in task.input_fields}


def render_card(facts: CardFacts) -> str:
    """Return the text of a README.md, front matter included."""
    sections = [
        _introduction(facts),
        *(f"![{title}]({file})" for title, file in facts.figures.items()),
        _section("Tasks and scores", _scores(facts)),
        _use(facts),
        _section("Data", "\n".join(_data_lines(facts))),
        _section("Training", _training(facts)),
        _section("What the parts contribute", _code(facts.parts)),
        _section("Limits", "\n".join(f"- {line}" for line in [*_limits(facts), *facts.limits])),
        _section("Licence", facts.license_note or ""),
    ]
    return f"---\n{_front_matter(facts)}---\n\n" + "\n\n".join(filter(None, sections)) + "\n"


def eval_results(facts: CardFacts) -> str | None:
    """Return the Hub's file of results on data sets of the Hub; None where there are none."""
    entries = [
        EvalResultEntry(
            dataset_id=str(task.dataset),
            task_id=task.subset or "default",
            value=round(value, 2),
            notes=f"{metric} (0-100) on the {task.split} split",
        )
        for task in facts.tasks
        if facts.reads_hub and task.dataset
        for metric, value in task.metrics.items()
    ]
    return yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False) if entries else None


def _front_matter(facts: CardFacts) -> str:
    datasets = [task.dataset for task in facts.tasks if facts.reads_hub and task.dataset]
    tags = [_pipeline_tag(task) for task in facts.tasks]
    results = [
        EvalResult(
            task_type=_pipeline_tag(task),
            task_name=task.config.name,
            dataset_type=task.dataset or task.config.name,
            dataset_name=" ".join(filter(None, [task.dataset or task.config.name, task.subset])),
            dataset_config=task.subset,
            dataset_split=task.split,
            metric_type=metric,
            metric_name=metric,
            metric_value=round(value, 2),
        )
        for task in facts.tasks
        for metric, value in task.metrics.items()
    ]
    data = ModelCardData(
        base_model=facts.base_model,
        datasets=list(dict.fromkeys([*datasets, *facts.datasets])) or None,
        language=list(facts.languages) or None,
        library_name="transformers",
        license=facts.license,
        pipeline_tag=max(dict.fromkeys(tags), key=tags.count),
        tags=list(dict.fromkeys([*_TAGS, *tags, *facts.tags])),
        metrics=list(dict.fromkeys(metric for task in facts.tasks for metric in task.metrics)) or None,
        model_name=facts.name if results else None,
        eval_results=results or None,
    )
    return data.to_yaml() + "\n"


def _pipeline_tag(task: TaskFacts) -> str:
    return PROBLEM_TYPES[task.config.problem_type].pipeline_tag


def _introduction(facts: CardFacts) -> str:
    names = [f"`{task.config.name}`" for task in facts.tasks]
    base = f" Its encoder is {facts.base_model or facts.encoder}." if facts.base_model or facts.encoder else ""
    count = "one task" if len(names) == 1 else f"{len(names)} tasks"
    loads = ", and loads without it" if facts.checkpoint else ""
    return _INTRODUCTION.format(name=facts.name, count=count, tasks=", ".join(names), base=base, loads=loads)


def _section(title: str, text: str) -> str:
    return f"## {title}\n\n{text}" if text.strip() else ""


def _code(lines: Sequence[str]) -> str:
    return "\n".join(["```text", *lines, "```"]) if lines else ""


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of those columns in which a row says something."""
    keep = [place for place in range(len(header)) if any(row[place] for row in rows)]
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line[place] or '–' for place in keep)} |" for line in lines)


def _scores(facts: CardFacts) -> str:
    rows = []
    for task in facts.tasks:
        about = [task.config.name, task.config.problem_type, _labels(task.config)]
        if not task.metrics:
            rows.append([*about, *[""] * 6])
        for metric, value in task.metrics.items():
            columns = (task.trivial, task.tfidf, task.single_task, task.test)
            scores = [f"{value:.1f}", *(f"{one[metric]:.1f}" if metric in one else "" for one in columns)]
            rows.append([*about, metric, *scores])
            about = [" ", " ", " "]
    header = ["task", "type", "labels", "metric", "score", "trivial", "TF-IDF + linear", "single task", "test split"]
    said = {
        "score": "on validation rows, 0-100",
        "trivial": "the best answer that ignores the input",
        "TF-IDF + linear": "a linear model over words and pairs of words",
        "single task": "the same encoder trained on this task alone",
        "test split": "rows that chose nothing",
    }
    shown = [f"{name}: {what}" for place, name in enumerate(header) if (what := said.get(name)) and _says(rows, place)]
    return "\n\n".join(filter(None, [_table(header, rows), "; ".join(shown) + ("." if shown else "")]))


def _says(rows: Sequence[Sequence[str]], place: int) -> bool:
    return any(row[place] for row in rows)


def _labels(task: TaskConfig) -> str:
    labels = [str(label).replace("|", "\\|") for label in task.labels or ()]
    more = f" and {len(labels) - _MANY_LABELS} more" if len(labels) > _MANY_LABELS else ""
    return ", ".join(labels[:_MANY_LABELS]) + more


def _use(facts: CardFacts) -> str:
    if facts.checkpoint is None:
        return ""
    lines = [
        "from transformers import AutoModel",
        "",
        f"checkpoint = {json.dumps(facts.checkpoint)}",
        "model = AutoModel.from_pretrained(checkpoint, trust_remote_code=True)",
    ]
    for task in facts.tasks:
        lines += ["", f"row = {_python(_example(task))}"]
        lines.append(f"print(model.predict(row, tasks={json.dumps(task.config.name)}))")
        if task.answer is not None:
            lines.append(f"# {_shortened(repr(task.answer))}")
    return _USE.format(python="\n".join(lines), shell=_shell(facts, facts.checkpoint))


def _example(task: TaskFacts) -> Mapping[str, Any]:
    return example_row(task.config) if task.example is None else task.example


def _python(row: Mapping[str, Any]) -> str:
    """Return a row as code, a line per field where it has several."""
    text = json.dumps(row, ensure_ascii=False)
    if len(row) == 1 and len(text) < _LONG_ANSWER:
        return text
    fields = [f"    {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}," for name, value in row.items()]
    return "\n".join(["{", *fields, "}"])


def _shell(facts: CardFacts, checkpoint: str) -> str:
    row = _example(facts.tasks[0])
    given = {name: value if isinstance(value, list) else [value] for name, value in row.items()}
    given = {"text" if name == "tokens" else name: value for name, value in given.items()}
    flags = [
        f"--{name} {shlex.quote(' '.join(value)) if name == 'text' else shlex.join(value)}"
        for name, value in given.items()
    ]
    return " ".join(["hf-mtl predict", shlex.quote(checkpoint), *flags])


def _shortened(text: str) -> str:
    return text if len(text) <= _LONG_ANSWER else text[: _LONG_ANSWER - 2] + " …"


def _data_lines(facts: CardFacts) -> list[str]:
    rows = [
        [
            task.config.name,
            " ".join(filter(None, [task.dataset, task.subset])),
            ", ".join(task.config.input_fields),
            "" if task.train_rows is None else f"{task.train_rows:,}",
            "" if task.validation_rows is None else f"{task.validation_rows:,}",
        ]
        for task in facts.tasks
    ]
    table = _table(["task", "data set", "input", "training rows", "validation rows"], rows)
    lines = list(facts.data)
    if facts.reads_hub is False and any(task.dataset for task in facts.tasks):
        lines.insert(0, "Rows were read from files that stand for these data sets, not from the Hub.")
    return [table, "", *(f"- {line}" for line in lines)] if lines else [table]


def _training(facts: CardFacts) -> str:
    parts = ["\n".join(f"- {line}" for line in facts.training)] if facts.training else []
    if facts.command:
        parts.append(f"To train it again, from `recipe.yaml` beside the weights:\n\n```text\n{facts.command}\n```")
    if facts.environment:
        parts.append("; ".join(f"{name}: {value}" for name, value in facts.environment.items()) + ".")
    return "\n\n".join(parts)


def _limits(facts: CardFacts) -> list[str]:
    lengths = {task.config.setting("max_length") for task in facts.tasks if task.config.problem.inputs != "windows"}
    lines = []
    if lengths:
        most = ", ".join(f"{length}" for length in sorted(lengths))
        lines.append(
            f"Inputs of more than {most} word pieces (of the task's own length) are cut; such an answer says "
            "`truncated`."
        )
    lines.append("It answers what its training rows are like; on other texts its scores may mean nothing.")
    return lines
