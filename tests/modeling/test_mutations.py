"""Formulas that are made wrong on purpose: for each row of the sources a proof that fails under it.

A mutation replaces some text in one function. Where that text is gone, the formula was rewritten, and so must be the
mutation's row in mutations/, a module for each source.
"""

import inspect
import itertools
import re
import textwrap

import pytest

from hf_mtl import InputError
from hf_mtl.modeling import attention_scorers as scorers
from hf_mtl.modeling import (
    interaction,
    pooling,
    systems,
)
from hf_mtl.modeling import interaction_base as base
from hf_mtl.modeling import interaction_branches as branches
from hf_mtl.modeling import interaction_experts as experts
from hf_mtl.modeling import interaction_mran as relations
from tests.modeling import test_head_losses as head_losses
from tests.modeling.mutations import s0, s1, s2, s3, s4

pytestmark = pytest.mark.slow

MUTATIONS = [*s0.MUTATIONS, *s1.MUTATIONS, *s2.MUTATIONS, *s3.MUTATIONS, *s4.MUTATIONS]


def mutated(holder, name, old, new):
    """The function of a class or module with some of its text replaced."""
    function = inspect.getattr_static(holder, name)
    plain = getattr(function, "__func__", function)
    plain = inspect.unwrap(plain)
    source = textwrap.dedent(inspect.getsource(plain))
    assert old in source, f"{holder.__name__}.{name} has no {old!r}"
    # Inside a function whose argument is the class, `super()` finds it.
    lines = ["def make(__class__):", textwrap.indent(source.replace(old, new), "    "), f"    return {name}"]
    made = {}
    exec("\n".join(lines), plain.__globals__, made)
    return made["make"](holder)


def mutate(patch, holder, name, old, new):
    if not callable(inspect.getattr_static(holder, name)) and isinstance(getattr(holder, name), dict):
        table = getattr(holder, name)
        for key, system in table.items():
            changed = {setting: new if value == old else value for setting, value in system.settings.items()}
            patch.setitem(table, key, systems.System(changed, system.source, system.differs))
        return
    changed = mutated(holder, name, old, new)
    if inspect.ismodule(holder):
        plain = getattr(holder, name)
        # Wherever it was imported by its name.
        for other in (holder, base, branches, experts, interaction, relations, scorers, pooling, head_losses):
            if getattr(other, name, None) is plain:
                patch.setattr(other, name, changed)
    else:
        patch.setattr(holder, name, changed)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda row: f"{row[0]}-{row[2]}-{row[3][:24]}")
def test_a_wrong_formula_is_found(mutation, monkeypatch):
    """Each row's proof holds of the code, and not of the code with the mistake."""
    _, holder, name, old, new, test, *arguments = mutation
    test = inspect.unwrap(test)
    test(*arguments)
    mutate(monkeypatch, holder, name, old, new)
    # A model that looks at its encoder may refuse what a mistake does to it.
    with pytest.raises((AssertionError, InputError)):
        test(*arguments)


def test_every_proof_names_its_row():
    """The row's number stands in the docstring of a test that a mutation of it fails."""
    for row, own in itertools.groupby(sorted(MUTATIONS, key=lambda own: own[0]), key=lambda own: own[0]):
        said = " ".join(inspect.unwrap(mutation[5]).__doc__ or "" for mutation in own)
        assert re.search(rf"\b{re.escape(row)}\b(?!\.?\d)", said), row
