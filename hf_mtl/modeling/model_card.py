"""The card of a checkpoint: what it does, how well, compared with what, how to ask it, who may use it.

One template for every model: what is not known is left out, heading and all.
"""

from collections.abc import Sequence

import yaml
from huggingface_hub import EvalResult, EvalResultEntry, ModelCardData, eval_result_entries_to_yaml

from .hub_card import sealed
from .modalities import MODALITIES, TABLE, modalities_of
from .model_card_facts import CardFacts, TaskFacts
from .model_card_use import usage_section
from .problem_types import PROBLEM_TYPES
from .task_config import TaskConfig

_TAGS = ("multitask-learning", "hf_mtl")
_MANY_LABELS = 8

_INTRODUCTION = """# {name}

{description}{encoders} {count} in one pass: {tasks}.{base} It was trained with `hf_mtl`,
multitask learning for Transformers{loads}."""


def render_card(facts: CardFacts) -> str:
    """Return the text of a README.md, front matter included."""
    sections = [
        _introduction(facts),
        *(f"![{title}]({file})" for title, file in facts.figures.items()),
        _section("Tasks and scores", _scores(facts)),
        usage_section(facts),
        _section("Data", "\n".join(_data_lines(facts))),
        _section("Training", _training(facts)),
        _section("What the parts contribute", _code(facts.parts)),
        _section("Limits", "\n".join(f"- {line}" for line in [*_limits(facts), *facts.limits])),
        _section("Licence", facts.license_note or ""),
    ]
    return sealed(f"---\n{_front_matter(facts)}---\n\n" + "\n\n".join(filter(None, sections)) + "\n")


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
    problem = PROBLEM_TYPES[task.config.problem_type]
    modality = next((name for name in task.config.input_fields if name in MODALITIES), None)
    if modality != TABLE:
        return problem.pipeline_tag if modality is None else f"{modality}-classification"
    return "tabular-regression" if problem.labels == "number" else "tabular-classification"


def _introduction(facts: CardFacts) -> str:
    names = [f"`{task.config.name}`" for task in facts.tasks]
    base = f" Its encoder is {facts.base_model or facts.encoder}." if facts.base_model or facts.encoder else ""
    count = "one task" if len(names) == 1 else f"{len(names)} tasks"
    loads = ", and loads without it" if facts.checkpoint else ""
    description = f"{facts.description.strip()}\n\n" if facts.description else ""
    read = modalities_of(field for task in facts.tasks for field in task.config.input_fields)
    encoders = (
        "One encoder that answers"
        if len(read) == 1
        else f"Encoders of {', '.join(read[:-1])} and {read[-1]} that answer"
    )
    return _INTRODUCTION.format(
        name=facts.name,
        description=description,
        encoders=encoders,
        count=count,
        tasks=", ".join(names),
        base=base if len(read) == 1 else base.replace("Its encoder", "Its first encoder"),
        loads=loads,
    )


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
    below = [
        f"{task.config.name} ({metric})"
        for task in facts.tasks
        for metric, value in task.metrics.items()
        if metric in task.tfidf and _is_worse(task, metric, value)
    ]
    legend = "; ".join(shown) + "." if shown else ""
    return "\n\n".join(
        filter(None, [_table(header, rows), legend, f"Below TF-IDF + linear: {', '.join(below)}." if below else ""])
    )


def _is_worse(task: TaskFacts, metric: str, value: float) -> bool:
    return value > task.tfidf[metric] if metric in task.lower_is_better else value < task.tfidf[metric]


def _says(rows: Sequence[Sequence[str]], place: int) -> bool:
    return any(row[place] for row in rows)


def _labels(task: TaskConfig) -> str:
    labels = [str(label).replace("|", "\\|") for label in task.labels or ()]
    more = f" and {len(labels) - _MANY_LABELS} more" if len(labels) > _MANY_LABELS else ""
    return ", ".join(labels[:_MANY_LABELS]) + more


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
        parts.append(f"To train it again:\n\n```text\n{facts.command}\n```")
    if facts.environment:
        parts.append("; ".join(f"{name}: {value}" for name, value in facts.environment.items()) + ".")
    return "\n\n".join(parts)


def _limits(facts: CardFacts) -> list[str]:
    texts = [task.config for task in facts.tasks if set(task.config.input_fields) - MODALITIES.keys()]
    lengths = {task.setting("max_length") for task in texts if task.problem.inputs != "windows"}
    lines = []
    if lengths:
        most = ", ".join(f"{length}" for length in sorted(lengths))
        whose = " (each task has its own length)" if len(lengths) > 1 else ""
        what = "Texts" if len(texts) < len(facts.tasks) else "Inputs"
        lines.append(f"{what} of more than {most} word pieces{whose} are cut; such an answer says `truncated`.")
    others = "texts" if len(texts) == len(facts.tasks) else "inputs"
    lines.append(f"It answers what its training rows are like; on other {others} its scores may mean nothing.")
    return lines
