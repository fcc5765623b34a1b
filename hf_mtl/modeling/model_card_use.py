"""The part of a card that says how to ask the model: a block of Python that asks every task, and a command."""

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from .modalities import TABLE, modalities_of
from .model_card_facts import CardFacts, TaskFacts, example_row

_LONG_ANSWER = 116

_USE = """## Use

```python
{python}
```

`trust_remote_code=True` runs the model's code, which lies beside its weights; after `import hf_mtl.modeling` it is not
needed. `pipeline(model=checkpoint, trust_remote_code=True)` answers the same. Scores are the model's own
probabilities: they are not calibrated. From the command line, with `hf_mtl` installed:

```bash
{shell}
```"""


def usage_section(facts: CardFacts) -> str:
    """Return the section that asks every task; nothing for an adapter."""
    if facts.checkpoint is None:
        return ""
    lines = [
        "from transformers import AutoModel",
        "",
        f"checkpoint = {json.dumps(facts.checkpoint)}",
        "model = AutoModel.from_pretrained(checkpoint, trust_remote_code=True)",
    ]
    rows = _example_rows(facts.tasks)
    for row, tasks in rows:
        named = f", tasks={json.dumps([task.config.name for task in tasks])}" if len(rows) > 1 else ""
        lines += ["", f"row = {_python(row)}", f"for task, answer in model.predict(row{named})[0].items():"]
        lines.append("    print(task, answer)")
        lines += [
            f"# {_shortened(f'{task.config.name} {_rounded(task.answer)}')}"
            for task in tasks
            if task.answer is not None
        ]
        if files := [row[name] for name in ("image", "audio") if name in row]:
            silent = ", ".join(task.config.name for task in tasks if task.answer is None)
            what = "a file" if len(files) == 1 else "files"
            lines.append(f"# {silent}: what they say of {' and '.join(files)}, {what} of your own")
    return _USE.format(python="\n".join(lines), shell=_shell(facts, facts.checkpoint))


def _example_rows(tasks: Sequence[TaskFacts]) -> list[tuple[dict[str, Any], list[TaskFacts]]]:
    """Return as few rows as hold the examples of all tasks, and the tasks that each is for."""
    rows: list[tuple[dict[str, Any], list[TaskFacts]]] = []
    for task in tasks:
        example = _example(task)
        for row, together in rows:
            if all(row.get(name, value) == value for name, value in example.items()):
                row.update(example)
                together.append(task)
                break
        else:
            rows.append((dict(example), [task]))
    return rows


def _example(task: TaskFacts) -> Mapping[str, Any]:
    return example_row(task.config) if task.example is None else task.example


def _rounded(value: Any) -> Any:
    """Return an answer whose numbers have three digits."""
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value


def _python(row: Mapping[str, Any]) -> str:
    """Return a row as code, a line per field where it has several."""
    text = "{" + ", ".join(f"{json.dumps(name)}: {_literal(value)}" for name, value in row.items()) + "}"
    if len(row) == 1 and len(text) < _LONG_ANSWER - len("row = "):
        return text
    fields = [f"    {json.dumps(name)}: {_literal(value)}," for name, value in row.items()]
    return "\n".join(["{", *fields, "}"])


def _literal(value: Any) -> str:
    """A value as code, on lines of its own where it is the row of a table."""
    if not isinstance(value, Mapping):
        return json.dumps(value, ensure_ascii=False) if value is not None else "None"
    lines = ["{"]
    for name, cell in value.items():
        item = f"{json.dumps(name, ensure_ascii=False)}: {_literal(cell)}, "
        if len(lines[-1]) + len(item) > _LONG_ANSWER - 8:
            lines.append("")
        lines[-1] += item
    return ("\n" + 8 * " ").join(line.rstrip() for line in lines).rstrip(",") + "}"


def _shell(facts: CardFacts, checkpoint: str) -> str:
    """A command for each modality, that of tables with a file, whose rows have more cells than a line."""
    commands: dict[tuple[str, ...], str] = {}
    for task in facts.tasks:
        row = _example(task)
        if (read := modalities_of(row)) not in commands:
            flags = ["--file rows.csv --output answers.csv"] if TABLE in row else _flags(row)
            commands[read] = " ".join(["hf-mtl predict", shlex.quote(checkpoint), *flags])
    return "\n".join(commands.values())


def _flags(row: Mapping[str, Any]) -> list[str]:
    given = {name: value if isinstance(value, list) else [value] for name, value in row.items()}
    given = {"text" if name == "tokens" else name: value for name, value in given.items()}
    return [
        f"--{name} {shlex.quote(' '.join(value)) if name == 'text' else shlex.join(value)}"
        for name, value in given.items()
    ]


def _shortened(text: str) -> str:
    return text if len(text) <= _LONG_ANSWER else text[: _LONG_ANSWER - 2] + " …"
