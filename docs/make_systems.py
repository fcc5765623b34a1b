"""Makes docs/systems.md of the tables that the library reads and of docs/source_rows.yaml.

Run: python docs/make_systems.py
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING
from pathlib import Path
from typing import Any

import yaml

from hf_mtl.modeling.aggregation import TASK_AGGREGATIONS
from hf_mtl.modeling.attention_scorers import ATTENTION_SCORERS
from hf_mtl.modeling.branch import TASK_BRANCHES
from hf_mtl.modeling.encoder_conditioning import TASK_CONDITIONINGS
from hf_mtl.modeling.gate import TASK_GATES
from hf_mtl.modeling.head import HEAD_READINGS
from hf_mtl.modeling.interaction import TASK_INTERACTIONS
from hf_mtl.modeling.pooling import TASK_POOLINGS
from hf_mtl.modeling.systems import _PLAIN, SYSTEMS, System
from hf_mtl.recipe_format.model_settings import setting_fields

DOCS = Path(__file__).parent
PAGE = DOCS / "systems.md"
SOURCE_ROWS = DOCS / "source_rows.yaml"
RECIPES = DOCS.parent / "recipes"
# Made by benchmarks/systems_table, where it was run.
MEASURED = DOCS / "systems_table.json"

# Each table of parts: the key that chooses from it, the classes by name, and what else turns them.
PARTS: list[tuple[str, Mapping[str, type], str]] = [
    (
        "conditioning",
        TASK_CONDITIONINGS,
        "`conditioning_size` (of `modulation` and of what tells layers), `conditioning_heads` (of "
        "`projected_attention_layers`), `adapter_size` (of `hyper_adapters`), `attention_blocks` and "
        "`attention_block_size` (of `conditional_attention`); `task_token_position`, `task_token_scale` (of "
        "`task_tokens`); `adversarial_weight`, `orthogonality_weight`, `expert_size` (of `private_encoders`). What "
        "makes token states depend on the task (all but `none` and `task_tokens`) costs up to T passes of the encoder "
        "to answer T tasks of a row, since each is encoded anew (`private_encoders` one more).",
    ),
    (
        "pooling",
        TASK_POOLINGS,
        "`pooling_scorer` (a scorer, below), `lexical_rank`, `pooling_floor`, `pooling_dropout` and `pooling_entropy` "
        "of `task_queries` and `dynamic_queries`; `task_layers` of `task_layer`.",
    ),
    (
        "attention_scorer",
        ATTENTION_SCORERS,
        "`interaction_heads`. `attention_scorer` is how tasks score tasks, `multi_head` by default; `pooling_scorer` "
        "how a task scores tokens, `general` by default.",
    ),
    (
        "task_interaction",
        TASK_INTERACTIONS,
        "`interaction_layers` of them follow one another. Of attention: `self_attention_prior`, `task_affinities` (a "
        "number a pair), `task_dropout`, `attention_top_k`, `signed_attention`, `relation_penalty`, "
        "`interaction_size`, `interaction_dropout`; of experts: `shared_experts`, `task_experts`, `expert_layers`, "
        "`expert_size`; `inducing_points`; of MRAN: `mran_relations`, `feature_groups`, "
        "`relation_norm`, `relation_mixing`, `parameter_penalty`; `adversarial_weight`, `orthogonality_weight`. A "
        "task's `reads` says whom it may read.",
    ),
    (
        "branch",
        TASK_BRANCHES,
        "`expert_size`. The networks H_i of `attention_over_heads`; `head` puts the same ones behind the mixture.",
    ),
    ("gate", TASK_GATES, "`gate_size`, `gate_bias`."),
    ("head", HEAD_READINGS, "`expert_size`, `head_dropout`."),
    (
        "aggregation",
        TASK_AGGREGATIONS,
        "`aggregation_of`, `aggregation_weights`. Tasks are of one label space if they have the same labels, or are "
        "regressions of one scale.",
    ),
]

BEGINNING = """
# Systems and parts

*Made by `python docs/make_systems.py`; change that, the docstrings or `docs/source_rows.yaml`, not this page.*

A model is an encoder and a few parts, each chosen by name in the configuration (or in a recipe, or on the command
line):

```
x ──encoder──► Z ──pooling──► S ──task_interaction──► R     H = S + G ⊙ (R − S)     head reads H_t ──► logits_t
    ▲                                                           gate                     aggregation merges logits_t
    conditioning                                                                         task_parents: H_t += W_tp y_p
```

Every part but `aggregation: mean` starts closed: the untrained model gives the logits of hard sharing with the same
pooling, bit for bit (up to rounding where `conditioning` changes which rows are encoded together). What it does
beyond that, it learned. `system: NAME` sets the parts to a system of the literature, and other keys change it; a
system that is typed goes before the keys of a file:

```
hf-mtl train recipes/glue_small/train.yaml --system mmoe --shared_experts 8 --output_dir out/mmoe
```

## Systems

A setting that is not named is `pooling: mean`, `task_interaction: none`, `gate: none`, or the configuration's default.
"""

AFTER_SYSTEMS = """
The default model is `task_transformer` behind the information gate: `multitask_transformer` without the task in the
encoder's input, for which every row would be encoded once per task. Many tasks: `--system many_tasks`, which is narrow
and whose cost grows with the number of tasks, not with its square.

Some of these are one: cross-stitch is attention over tasks whose logits are log α; the gate of MMoE is attention with
parameters as keys; PLE of one layer is CGC; MMoE with equal gates is OMoE, and with one expert hard sharing behind a
layer more. Tests hold these equalities. What MRAN writes for scorers of one head (`relation_mixing: rescale`)
multiplies each task by a number, which a layer norm after it takes away again; by default tasks read each other
instead. `trace_norm` draws the heads of all tasks into few directions, whatever the system.

## Parts
"""

AFTER_PARTS = """
With `output_task_attentions=True` the model returns what pooling, interaction and gate weigh: `pooling_weights` (rows,
tasks, tokens), `interaction_weights` (rows, heads, tasks, tasks; of experts (rows, tasks, experts)), `gates` (rows,
tasks, hidden). Such weights say what is read, not how tasks are related, and the sign of a signed one does not say
whether tasks agree ([measured](published.md)).

A new part is one class and one line in its table. An interaction, say, is a subclass of `ScaledInteraction`
(`hf_mtl/modeling/interaction_base.py`) whose `mix(states, embeddings)` takes states (rows, tasks, hidden) and task
embeddings (tasks, hidden) and returns what the tasks become, in the shape of the states; its line stands in
`TASK_INTERACTIONS` (`hf_mtl/modeling/interaction.py`), and `task_interaction: NAME` chooses it. The tests of
limits (equal weights at equal scores, hard sharing at the start, order of tasks, padding, rows apart, gradients, ...)
read those tables and test it too.

## Settings

Of the configuration, of `from_encoder(...)`, of a recipe and of the command line alike:

SETTINGS

## The sources, row by row

Five texts describe these systems; each row of theirs is built as written, or built otherwise with what measured the
reason, or named with the reason why it is not built. Everything enters by a factor that starts at zero; that is not
said again. The tests named state what the row must compute; `tests/modeling/test_mutations.py` makes
formulas wrong on purpose, and they fail.
"""


def render() -> str:
    """Return the page."""
    found = [
        BEGINNING.strip(),
        table(["system", "setting", "paper", "what differs", "recipe"], map(system_row, SYSTEMS)),
    ]
    found += filter(None, [measured_section()])
    found.append(AFTER_SYSTEMS.strip())
    found += [part_section(*part) for part in PARTS]
    found.append(AFTER_PARTS.strip().replace("SETTINGS", table(["setting", "default", "what it is"], setting_rows())))
    sources = read_source_rows()
    for name, title in sources["sources"].items():
        lines = [source_row(row) for row in sources["rows"] if row["id"].partition(".")[0] == name]
        found.append("\n".join([f"### {name}: {title}", "", *lines]))
    return "\n\n".join(found) + "\n"


def read_source_rows() -> dict[str, Any]:
    """Return docs/source_rows.yaml."""
    return dict(yaml.safe_load(SOURCE_ROWS.read_text("utf-8")))


def setting_rows() -> list[list[str]]:
    """Return the cells of each setting of the model."""
    fields = [(name, made) for name, _, made in setting_fields()]
    defaults = [made.default_factory() if made.default is MISSING else made.default for _, made in fields]
    return [
        [f"`{name}`", f"`{default}`", made.metadata["help"].replace("%%", "%")]
        for (name, made), default in zip(fields, defaults)
    ]


def system_row(name: str) -> list[str]:
    """Return a system's cells."""
    system = SYSTEMS[name]
    return [f"`{name}`", system_settings(system), system.source, system.differs, f"[recipe](../recipes/{name})"]


def measured_section() -> str:
    """Return each system beside hard sharing as it was measured; nothing where there are no figures."""
    if not MEASURED.is_file():
        return ""
    tables = json.loads(MEASURED.read_text("utf-8"))
    names = [name for name in SYSTEMS if any(name in one["systems"] for one in tables)]
    header = ["system", *(f"`{one['dataset']}`" for one in tables), "cost"]
    lines = [
        [f"`{name}`", *(measured_cell(one, name) for one in tables), measured_cost(tables, name)] for name in names
    ]
    parts = [
        "### Better than hard sharing?",
        "Mean score over tasks beside hard sharing's, with a 95 % interval (bold: a difference once corrected for all "
        "comparisons), and the seconds of a run beside it; how it was measured, and all figures: "
        "[systems_table.md](systems_table.md).",
        table(header, lines),
        "\n".join(f"- {one['statement']}" for one in tables),
    ]
    return "\n\n".join(parts)


def measured_cell(measured: Mapping[str, Any], name: str) -> str:
    """Return a system's difference to hard sharing on a data set."""
    system = measured["systems"].get(name)
    if system is None:
        return "cannot be run" if name in measured["refusals"] else "not run"
    if system["difference"] is None:
        return f"{system['mean']:.1f} itself"
    mean, low, high = system["difference"]
    shown = f"{mean:+.1f}" if system["verdict"] == "same" else f"**{mean:+.1f}**"
    return shown if low is None else f"{shown} ({low:+.1f} to {high:+.1f})"


def measured_cost(tables: Iterable[Mapping[str, Any]], name: str) -> str:
    """Return how long a system takes beside hard sharing, on each data set."""
    systems = [one["systems"][name] for one in tables if name in one["systems"]]
    return ", ".join(f"{system['cost']:.2f}" for system in systems)


def system_settings(system: System) -> str:
    """Return the settings in which a system differs from mean pooling alone."""
    changed = [f"`{key}: {value}`" for key, value in system.settings.items() if _PLAIN.get(key) != value]
    return ", ".join(changed) or "nothing else"


def part_section(key: str, parts: Mapping[str, type], settings: str) -> str:
    """Return a table of parts as a list."""
    lines = [f"- `{name}`: {first_sentence(part)}" for name, part in parts.items()]
    return "\n".join([f"### `{key}`", "", *lines, "", f"Settings: {settings}"])


def first_sentence(part: type) -> str:
    """Return the first sentence of a class's docstring, on one line."""
    paragraph = " ".join((part.__doc__ or "").split("\n\n")[0].split())
    # A sentence ends before a capital letter: "et al. 2019" goes on.
    return re.split(r"(?<=[.!?]) (?=[A-Z])", paragraph)[0]


def source_row(row: Mapping[str, Any]) -> str:
    """Return a row of the sources as an item of a list."""
    kinds = {
        "Built, differs" if "differs" in row else "Built as written": [
            f"`{place.removeprefix('hf_mtl/')}`" for place in row.get("built", ())
        ],
        "Recipes": [f"[{name}](../recipes/{name})" for name in row.get("recipes", ())],
        "Keys": [f"`{key}`" for key in row.get("keys", ())],
        "Tests": [f"`{place.removeprefix('tests/')}`" for place in row.get("tests", ())],
    }
    parts = [f"{kind}: {', '.join(found)}." for kind, found in kinds.items() if found]
    if row.get("differs"):
        places = ", ".join(f"`{place.removeprefix('tests/')}`" for place in row["measured"])
        parts.append(f"**Differs**: {row['differs']} Measured: {places}.")
    if row.get("left_out"):
        parts.append(f"**Left out**: {row['left_out']}")
    return f"- **{row['id']}** {row['title']}. {' '.join(parts)}"


def table(header: list[str], rows: Iterable[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(render(), "utf-8")
