"""Multitask learning for Hugging Face Transformers: one encoder, many tasks, attention between them."""

import importlib

__version__ = "0.1.0"

# Name -> module; nothing heavy is imported before one of them is touched (PEP 562).
_LAZY = {
    "GLUE": "tasks",
    "InputError": "modeling",
    "METRICS": "metrics",
    "Mixture": "data.mixture",
    "MultiTaskAttentionConfig": "modeling",
    "MultiTaskAttentionModel": "modeling",
    "MultiTaskCollator": "data.collator",
    "MultiTaskOutput": "modeling",
    "MultiTaskProcessor": "modeling",
    "MultiTaskTrainer": "training.trainer",
    "MultiTaskTrainingArguments": "training.arguments",
    "RunReportCallback": "inspection.run_report",
    "TaskConfig": "modeling",
    "TaskSpec": "tasks",
    "load_mixture": "data.mixture",
}

__all__ = sorted(_LAZY)


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
