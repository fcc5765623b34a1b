"""Trains recipes and keeps the cards of their checkpoints here; says how to push them.

    python model_cards/make_cards.py --data_dir DATA                  # all of CARDS
    python model_cards/make_cards.py --cards support_desk             # some; support_desk needs no data
    python model_cards/make_cards.py --compare out/support_desk/README.md --cards support_desk

The last form trains nothing: it compares the card of a run with the one that stands here, scores within TOLERANCE
points and everything but places, versions, hardware and time word for word; CI does so.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from hf_mtl.modeling.hub_card import with_repository

HERE = Path(__file__).parent
RECIPES = HERE.parent / "recipes"
MODALITIES = ("multimnist", "fsdd", "census_income", "cross_modal")
CARDS = ("support_desk", "glue_small", "everything_small", "adversarial", "mmoe", *MODALITIES)
# Long trainings learn from a part of their rows, which their cards say.
ARGUMENTS = {
    "adversarial": ("--max_train_samples", "300", "--max_eval_samples", "150"),
    "mmoe": ("--max_train_samples", "1500"),
}
FIGURES = ("scores.png", "learning_curves.png")
# Points that another processor's sums may move a score of a few hundred rows.
TOLERANCE = 4.0
# What differs from run to run, or from machine to machine.
VOLATILE = re.compile(r"^(hf_mtl: .*|checkpoint = .*|# \S+ \{.*|<!-- A card of .*)$", re.MULTILINE)
NUMBER = re.compile(r"[+-]?\d+\.\d+")
# Rows of the part report, whose intervals move further than scores, and its verdicts, which follow from them.
INTERVAL = re.compile(r"[+-]\d+\.\d+ \([+-]\d+\.\d+ to [+-]\d+\.\d+\)")
VERDICT = re.compile(r"^(  (?:the interaction|telling tasks apart)).*")


def repository(name: str) -> str:
    """Return what a card's checkpoint is called on the Hub."""
    return f"USER/{name.replace('_', '-')}"


def train(name: str, output: Path, data_dir: Path | None) -> Path:
    """Train a recipe, or go on with it; return its folder."""
    folder = output / name
    command = [sys.executable, "-m", "hf_mtl.cli", "train", str(RECIPES / name / "train.yaml")]
    command += ["--output_dir", str(folder), *ARGUMENTS.get(name, ())]
    if data_dir is not None and name != "support_desk":
        command += ["--data_dir", str(data_dir)]
    subprocess.run(command, check=True, env={**os.environ, "TOKENIZERS_PARALLELISM": "false"})
    return folder


def keep(name: str, folder: Path) -> None:
    """Copy a run's card here as a push would send it, and its figures under the card's name."""
    text = with_repository((folder / "README.md").read_text("utf-8"), repository(name))
    for figure in FIGURES:
        if (folder / figure).is_file():
            shutil.copyfile(folder / figure, HERE / f"{name}_{figure}")
            text = text.replace(f"({figure})", f"({name}_{figure})")
    (HERE / f"{name}.md").write_text(text, "utf-8")


def differences(kept: str, new: str) -> list[str]:
    """Return the lines in which two cards differ by more than other processors make them."""
    lines = [VOLATILE.sub("", text).splitlines() for text in (kept, new)]
    if len(lines[0]) != len(lines[1]):
        return [f"{len(lines[0])} lines are kept, {len(lines[1])} are new"]
    found = []
    for old, line in zip(*lines):
        numbers = [[float(number) for number in NUMBER.findall(one)] for one in (old, line)]
        far = any(abs(first - second) > TOLERANCE for first, second in zip(*numbers))
        same = [re.sub(r"\w+\.png", "figure.png", NUMBER.sub("#", one)) for one in (old, line)]
        if (far and not INTERVAL.search(line)) or _without_verdict(same[0]) != _without_verdict(same[1]):
            found.append(f"kept: {old}\nnew:  {line}")
    return found


def _without_verdict(line: str) -> str:
    """Return a line without its verdict, and without what its numbers' widths move."""
    return re.sub(r"[ -]+", " ", VERDICT.sub(r"\1", line))


def main() -> int:
    """Train and keep, or compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cards", nargs="+", choices=CARDS, default=list(CARDS))
    parser.add_argument("--data_dir", type=Path, help="a folder with cola/, ..., in place of the Hub")
    parser.add_argument("--output", type=Path, default=Path("out/model_cards"), help="keeps the checkpoints")
    parser.add_argument("--compare", type=Path, metavar="CARD", help="a new card of the one card that is named")
    given = parser.parse_args()
    if given.compare is not None:
        if len(given.cards) != 1:
            parser.error("--compare takes one of --cards")
        name = given.cards[0]
        new = with_repository(given.compare.read_text("utf-8"), repository(name))
        found = differences((HERE / f"{name}.md").read_text("utf-8"), new)
        print("\n".join(found) or f"The card is that of model_cards/{given.cards[0]}.md.")
        return 1 if found else 0
    for name in given.cards:
        keep(name, train(name, given.output, given.data_dir))
    print("\nTo push them:")
    for name in given.cards:
        print(f"  hf-mtl push {given.output / name} {repository(name)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
