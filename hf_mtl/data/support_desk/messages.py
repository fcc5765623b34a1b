"""Sentences of a phrase bank become the rows of the four tasks."""

import random
import re
from collections.abc import Callable

from hf_mtl.data.support_desk.grammar import Message, PhraseBank, Piece, join, text_of
from hf_mtl.data.support_desk.noise import roughen

Row = dict[str, str | float | list[str]]

INTENTS = (
    "cancel_subscription",
    "change_address",
    "damaged_item",
    "delivery_delay",
    "invoice_request",
    "password_reset",
    "payment_failed",
    "product_question",
    "refund",
    "warranty_repair",
)
FLAGS = ("angry", "asks_refund", "churn_risk", "legal_threat", "praise", "repeat_contact")
ENTITY_TYPES = ("AMOUNT", "DATE", "ORDER", "PERSON", "PLACE", "PRODUCT")

URGENCY_NOISE = 0.4
HIGHEST_URGENCY = 10.0


def intent_row(bank: PhraseBank, rng: random.Random, label_noise: float) -> Row:
    """One intent, mostly with a sentence that names another intent only to set it aside."""
    intent = rng.choice(INTENTS)
    sentences = [bank.sentence(rng, "intent", intent)]
    if rng.random() < 0.65:
        sentences.append(_denied_intent(bank, rng, intent))
    if rng.random() < 0.4:
        sentences.append(bank.sentence(rng, "background"))
    label = rng.choice(INTENTS) if rng.random() < label_noise else intent
    return {"text": text_of(_compose(bank, rng, sentences)), "label": label}


def urgency_row(bank: PhraseBank, rng: random.Random, label_noise: float) -> Row:
    """A problem and one to three hints at how much it presses; the score is their sum."""
    hints = rng.sample(["deadline", "impact", "waiting", "tone"], k=rng.choice([1, 2, 2, 3]))
    sentences = []
    score = 0.0
    for group in ["problem", *hints]:
        level = rng.choice(bank.keys("urgency", group))
        sentences.append(bank.sentence(rng, "urgency", group, level))
        score += float(level)
    score += rng.gauss(0.0, URGENCY_NOISE)
    if rng.random() < label_noise:
        score = rng.uniform(0.0, HIGHEST_URGENCY)
    label = round(min(max(score, 0.0), HIGHEST_URGENCY), 1)
    return {"text": text_of(_compose(bank, rng, sentences)), "label": label}


def flags_row(bank: PhraseBank, rng: random.Random, label_noise: float) -> Row:
    """A neutral sentence, up to three flags that hold, and often a sentence that denies another flag."""
    raised = rng.sample(FLAGS, k=rng.choice([0, 0, 1, 1, 1, 2, 2, 3]))
    # Nobody both threatens a lawsuit or fumes and praises in these messages, so that labels stay clear to a reader.
    if "praise" in raised and {"angry", "legal_threat"} & set(raised):
        raised.remove("praise")
    sentences = [bank.sentence(rng, "flags_core")]
    sentences += [bank.sentence(rng, "flags", flag) for flag in raised]
    others = [flag for flag in FLAGS if flag not in raised]
    if rng.random() < (0.6 if len(raised) < 3 else 0.2):
        sentences.append(bank.sentence(rng, "flag_denials", rng.choice(others)))
    labels = set(raised)
    if rng.random() < label_noise:
        labels ^= {rng.choice(FLAGS)}
    return {"text": text_of(_compose(bank, rng, sentences)), "labels": sorted(labels)}


def entities_row(bank: PhraseBank, rng: random.Random, label_noise: float) -> Row:
    """One or two sentences with entities, tokenised, with a tag for each token."""
    sentences = [bank.sentence(rng, "entities") for _ in range(rng.choice([1, 2]))]
    if rng.random() < 0.5:
        sentences.append(bank.sentence(rng, "entities_plain"))
    tokens: list[str] = []
    tags: list[str] = []
    for piece in _compose(bank, rng, sentences):
        words = re.findall(r"\w+|[^\w\s]", piece.text)
        missed = rng.random() < label_noise
        tokens += words
        tags += ["O"] * len(words) if missed else _tags(piece, len(words))
    return {"tokens": tokens, "tags": tags}


TASKS: dict[str, Callable[[PhraseBank, random.Random, float], Row]] = {
    "intent": intent_row,
    "urgency": urgency_row,
    "entities": entities_row,
    "flags": flags_row,
}


def _compose(bank: PhraseBank, rng: random.Random, sentences: list[Message]) -> Message:
    """Shuffles the sentences, adds a greeting and a farewell to some messages, and roughens the whole."""
    rng.shuffle(sentences)
    if rng.random() < 0.35:
        sentences.insert(0, bank.sentence(rng, "openings"))
    if rng.random() < 0.3:
        sentences.append(bank.sentence(rng, "closings"))
    return roughen(join(sentences), rng)


def _denied_intent(bank: PhraseBank, rng: random.Random, intent: str) -> Message:
    other = rng.choice([name for name in INTENTS if name != intent])
    template = rng.choice(bank.lines("intent_denials"))
    return bank.expand(template.replace("{topic}", f"{{topic_{other}}}"), rng)


def _tags(piece: Piece, length: int) -> list[str]:
    entity_type = (piece.slot or "").upper()
    if entity_type not in ENTITY_TYPES:
        return ["O"] * length
    return [f"B-{entity_type}"] + [f"I-{entity_type}"] * (length - 1)
