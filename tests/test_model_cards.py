"""The cards that are kept: they are whole, and another machine's sums make no difference that is told."""

import re

import pytest
from huggingface_hub import ModelCard

from model_cards.make_cards import CARDS, HERE, TOLERANCE, differences

CARD = (HERE / "support_desk.md").read_text("utf-8")


@pytest.mark.parametrize("name", CARDS)
def test_a_kept_card_is_whole(name):
    card = ModelCard.load(HERE / f"{name}.md")
    assert {"hf_mtl", "multitask-learning"} <= set(card.data.tags) and card.data.library_name == "transformers"
    assert card.data.eval_results
    for file in re.findall(r"!\[.*\]\((.*)\)", card.text):
        assert (HERE / file).read_bytes().startswith(b"\x89PNG")
    for heading in ("Tasks and scores", "Use", "Data", "Training", "Limits", "Licence"):
        assert f"\n## {heading}\n" in card.text
    assert not re.search(r"(?<![\w.])/(?:work|home|root|tmp)/", card.content), "the place of somebody's folder"


def test_a_card_is_itself_wherever_it_was_made():
    assert differences(CARD, CARD) == []
    moved = CARD.replace("scores.png", "support_desk.png")
    moved = re.sub(r"^hf_mtl: .*$", "hf_mtl: 9; hardware: cuda; time: 1.0 minutes.", moved, flags=re.MULTILINE)
    assert differences(CARD, re.sub(r"^checkpoint = .*$", 'checkpoint = "x/y"', moved, flags=re.MULTILINE)) == []


def test_what_differs_is_told():
    row = next(line for line in CARD.splitlines() if re.search(r"\| \d+\.\d \|", line))
    score = re.search(r"\d+\.\d", row).group()
    for points, told in ((TOLERANCE / 2, 0), (2 * TOLERANCE, 1)):
        other = row.replace(score, f"{float(score) - points:.1f}", 1)
        assert len(differences(CARD, CARD.replace(row, other))) == told
    assert len(differences(CARD, CARD.replace("## Limits", "## Borders"))) == 1
    assert differences(CARD, CARD + "More.\n")[0].startswith(f"{len(CARD.splitlines())} lines are kept")
