"""Makes docs/encoders.md and what `hf-mtl encoders` prints, by wrapping every model type of Transformers.

    python docs/make_encoders.py --readable ../shared/design/architectures.json     # about ten minutes on two cores
    python docs/make_encoders.py --answers wrapped.json                             # of a sweep that was run before

Types are *readable* where somebody read a hidden state of them by some route before: those of a JSON of types with
their `routes`; without one those that were readable the last time.
"""

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

import transformers
from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from hf_mtl.commands.encoders import encoder_rows  # noqa: E402
from tests.encoders.sweep import sweep  # noqa: E402

# Letters of a reason.
_REASON = 160
MATRIX = ROOT / "hf_mtl" / "encoder_matrix.json"
PAGE = ROOT / "docs" / "encoders.md"
HEADER = """# Encoders

Made by `python docs/make_encoders.py` with Transformers {version}; `hf-mtl encoders` prints it. Each type was built
tiny with random weights, wrapped by `MultiTaskAttentionModel.from_encoder`, run forward and backward, saved, reloaded
(tensors bit for bit, logits within 1e-6) and asked for its answers. That says that it works, and nothing of how well
it learns.

- *tower*: of a model of several encoders the one that is wrapped, `from_encoder(name, tasks=..., tower=NAME)` or
  `tower: NAME` in a recipe; `-` is the model itself, of one with a decoder its encoder.
- *reads*: its main input. `model(...)` takes every input of the encoder's `forward` by its name, and no other.
- *pooling*: the default. An encoder that reads from left to right is pooled at its last token.
- The width of the states and its axis are measured when it is wrapped, by inputs of two sizes. Maps of features become
  one state per place, several frames one per frame and place; what has one state per row has one token. A wave, where
  it is all that an encoder returns, becomes one state per `hop_length` samples.

"""


def matrix_of(answers: dict[str, Any], readable: set[str]) -> dict[str, Any]:
    """Return what the program prints."""
    types = {name: {**_in_short(answer), "readable": name in readable} for name, answer in answers.items()}
    count = sum("towers" in types[name] for name in readable)
    return {"transformers": transformers.__version__, "wrapped": count, "readable": len(readable), "types": types}


def _in_short(answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer whose reasons, which several attempts may have in common, are said once."""
    if "failed" not in answer:
        return answer
    # Where a package lies on a machine is nobody's to know.
    text = re.sub(r" from '/[^']*'", "", answer["failed"])
    text = re.sub(r"'?/[\w./-]+'?", "...", text)
    reasons = (reason.rpartition(" (")[0] or reason for reason in text.split(" | "))
    return {"failed": " | ".join(dict.fromkeys(" ".join(reason.split())[:_REASON] for reason in reasons))[:_REASON]}


def page_of(matrix: dict[str, Any]) -> str:
    """Return docs/encoders.md."""
    wrapped = {name: row for name, row in matrix["types"].items() if "towers" in row}
    failed = {name: row for name, row in matrix["types"].items() if "failed" in row}
    lines = ["| type | model | tower | reads | pooling |", "|---|---|---|---|---|"]
    lines += [f"| {' | '.join(row)} |" for row in encoder_rows(wrapped)]
    lines += [f"| **{matrix['wrapped']} of {matrix['readable']} wrapped** | | | | |", ""]
    more = len(wrapped) - matrix["wrapped"]
    lines += [f"{more} of these types are wrapped beside the {matrix['readable']} that were readable before.", ""]
    lines += ["## Not wrapped", "", "They were built tiny by rules; of their own size some may be wrapped.", ""]
    lines += ["| type | why |", "|---|---|"]
    lines += [f"| {name} | {_cell(row['failed'])} |" for name, row in failed.items()]
    return HEADER.format(version=matrix["transformers"]) + "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "/").replace("<", "&lt;")


def main() -> int:
    """Sweep and write; return 1 where a readable type is not wrapped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--readable", type=Path, help="a JSON of types; those with `routes` are readable")
    parser.add_argument("--answers", type=Path, help="what tests.encoders.sweep wrote, in place of a sweep")
    arguments = parser.parse_args()
    if arguments.readable:
        entries = json.loads(arguments.readable.read_text("utf-8"))
        readable = {name for name, entry in entries.items() if entry.get("routes")}
    else:
        before = json.loads(MATRIX.read_text("utf-8"))["types"]
        readable = {name for name, row in before.items() if row["readable"]}
    if arguments.answers:
        answers = json.loads(arguments.answers.read_text("utf-8"))
    else:
        answers = sweep(list(MODEL_MAPPING_NAMES))
    matrix = matrix_of(answers, readable)
    MATRIX.write_text(json.dumps(matrix, indent=1, sort_keys=True) + "\n", "utf-8")
    PAGE.write_text(page_of(matrix), "utf-8")
    missing = sorted(name for name in readable if "towers" not in answers.get(name, {}))
    print(f"{matrix['wrapped']} of {matrix['readable']} wrapped{': not ' if missing else ''}{', '.join(missing)}")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
