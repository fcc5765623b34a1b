"""The hidden states of the encoder are returned as the encoder returns them."""

import pytest
import torch

from tests.conftest import build_model, encoder_inputs

COUNT = 3  # the embeddings and two layers


@pytest.mark.parametrize("settings", [{}, {"pooling": "layer_mix"}, {"conditioning": "separate_encoders"}])
@pytest.mark.parametrize(
    "numbers, kept", [([0, -1], {0, 2}), (1, {1}), ([5, -2], {1}), ([7], set()), (True, {0, 1, 2})]
)
def test_hidden_states_are_returned_by_number(settings, numbers, kept):
    """Numbers of states, negative ones from the end, those past the end left out, as in Transformers' own models."""
    model = build_model(**settings)
    output = model(**encoder_inputs(), output_hidden_states=numbers)
    every = model(**encoder_inputs(), output_hidden_states=True).hidden_states
    assert {number for number, state in enumerate(output.hidden_states) if state is not None} == kept
    assert all(torch.equal(output.hidden_states[number], every[number]) for number in kept)
    assert torch.equal(output.logits["mood"], model(**encoder_inputs()).logits["mood"])
    if not settings:
        own = model.encoder(**encoder_inputs(), output_hidden_states=numbers).hidden_states
        assert [state is None for state in own] == [state is None for state in output.hidden_states]


@pytest.mark.parametrize("nothing", [0, [], False, None])
def test_nothing_asked_for_is_nothing_returned(nothing):
    """Transformers' own models take a lone 0 for False."""
    model = build_model()
    assert model(**encoder_inputs(), output_hidden_states=nothing).hidden_states is None
    assert model.encoder(**encoder_inputs(), output_hidden_states=nothing).hidden_states is None


def test_a_hidden_states_gradient_can_be_kept():
    output = build_model()(**encoder_inputs(), output_hidden_states=True)
    for state in output.hidden_states:
        state.retain_grad()
    output.logits["mood"].sum().backward()
    assert all(state.grad is not None and state.grad.any() for state in output.hidden_states)
