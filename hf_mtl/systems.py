"""Systems of the literature as settings of the model's parts.

A system is what `MultiTaskAttentionConfig` must say for the model to be it; `docs/systems.md` says which equations.
To add one, write its line in `SYSTEMS`.
"""

from typing import Any

PLAIN = {"pooling": "mean", "gate": "none"}

SYSTEMS: dict[str, dict[str, Any]] = {
    "hard_sharing": {**PLAIN, "task_interaction": "none"},
    "token_attention": {"pooling": "task_queries", "task_interaction": "none", "gate": "none"},
    "attention_over_heads": {**PLAIN, "task_interaction": "attention_over_heads", "attention_scorer": "general"},
    "gated": {"pooling": "mean", "task_interaction": "attention_over_heads", "gate": "information_gate"},
    "omoe": {**PLAIN, "task_interaction": "omoe"},
    "mmoe": {**PLAIN, "task_interaction": "mmoe"},
    "cgc": {**PLAIN, "task_interaction": "cgc"},
    "ple": {**PLAIN, "task_interaction": "ple"},
    "cross_stitch": {"pooling": "task_queries", "task_interaction": "cross_stitch", "gate": "none"},
    "adversarial": {"pooling": "task_queries", "task_interaction": "shared_private", "gate": "none"},
    "mran": {"pooling": "task_queries", "task_interaction": "mran", "gate": "none", "attention_scorer": "general"},
    "task_transformer": {"pooling": "task_queries", "task_interaction": "cross_task_attention", "gate": "none"},
}
