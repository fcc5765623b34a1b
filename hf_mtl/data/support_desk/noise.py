"""The slips of hurried writers: typos, lost capitals, missing punctuation. They never change what a message means."""

import random
import re

from hf_mtl.data.support_desk.grammar import Message, Piece

TYPO_SHARE = 0.35
LOWER_CASE_SHARE = 0.15
UPPER_CASE_SHARE = 0.03
BARE_END_SHARE = 0.2

LONG_WORD = re.compile(r"[a-z]{5,}")


def roughen(message: Message, rng: random.Random) -> Message:
    """Adds slips to some messages. Slot values keep their letters, so that an entity stays the same entity."""
    if rng.random() < TYPO_SHARE:
        for _ in range(rng.choice([1, 1, 2])):
            message = _with_typo(message, rng)
    if rng.random() < BARE_END_SHARE:
        last = message[-1]
        message = [*message[:-1], Piece(last.text.rstrip(".!?"), last.slot)]
    case = rng.random()
    if case < LOWER_CASE_SHARE:
        message = [Piece(text.lower(), slot) for text, slot in message]
    elif case < LOWER_CASE_SHARE + UPPER_CASE_SHARE:
        message = [Piece(text.upper(), slot) for text, slot in message]
    return [piece for piece in message if piece.text]


def _with_typo(message: Message, rng: random.Random) -> Message:
    """Swaps, drops or doubles one letter inside one long word of the template's own text."""
    spots = [
        (place, match.start(), match.end())
        for place, piece in enumerate(message)
        if piece.slot is None
        for match in LONG_WORD.finditer(piece.text)
    ]
    if not spots:
        return message
    place, start, end = rng.choice(spots)
    text = message[place].text
    at = rng.randrange(start + 1, end - 2)
    pair = text[at : at + 2]
    slip = rng.choice([pair[::-1], pair[0], pair[0] + pair])
    typed = Piece(text[:at] + slip + text[at + 2 :], None)
    return [*message[:place], typed, *message[place + 1 :]]
