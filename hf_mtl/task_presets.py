"""Well-known tasks as rows."""

from typing import Any


def _glue(name: str, first: str, second: str | None, metrics: list[str], **changes: Any) -> dict[str, Any]:
    columns = {"text": first, **({"text_pair": second} if second else {})}
    row = {"name": name, "problem_type": "single_label_classification", "dataset": "nyu-mll/glue", "subset": name}
    return {**row, "columns": columns, "metrics": metrics, **changes}


PRESETS: dict[str, dict[str, Any]] = {
    "glue/cola": _glue("cola", "sentence", None, ["matthews_correlation"]),
    "glue/sst2": _glue("sst2", "sentence", None, ["accuracy"]),
    "glue/mrpc": _glue("mrpc", "sentence1", "sentence2", ["accuracy", "f1"]),
    "glue/qqp": _glue("qqp", "question1", "question2", ["accuracy", "f1"]),
    "glue/stsb": _glue("stsb", "sentence1", "sentence2", ["pearson", "spearman"], problem_type="regression"),
    "glue/mnli": _glue("mnli", "premise", "hypothesis", ["accuracy"], splits={"validation": "validation_matched"}),
    "glue/qnli": _glue("qnli", "question", "sentence", ["accuracy"]),
    "glue/rte": _glue("rte", "sentence1", "sentence2", ["accuracy"]),
    "glue/wnli": _glue("wnli", "sentence1", "sentence2", ["accuracy"]),
}
