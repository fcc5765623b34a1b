"""What heads read: nothing more at the start, and then a layer, convolutions or a recurrent network."""

import pytest
import torch
from torch.nn import functional as F

from hf_mtl.modeling.encoder_reader import EncodedTokens
from hf_mtl.modeling.head import HEAD_READINGS
from tests.conftest import build_model, encoder_inputs, own_experts, randomise, unmoved_after, with_weights_of
from tests.modeling.test_pooling import HIDDEN, T, close, encoded

every_reading = pytest.mark.parametrize("head", HEAD_READINGS)


@every_reading
def test_the_start_is_linear_heads_bit_for_bit(head):
    """LB-2, S0.7."""
    model = build_model(head=head)
    expected = with_weights_of(build_model(), model)(**encoder_inputs()).logits
    for task, logits in model(**encoder_inputs()).logits.items():
        assert torch.equal(logits, expected[task]), task


@every_reading
def test_every_tensor_wakes_up(head):
    assert not unmoved_after(build_model(head=head))


@every_reading
def test_padding_and_its_side_change_nothing(head):
    """LB-6."""
    part, tokens = randomise(build_model(head=head)).mtl.head_reading, encoded()
    states = torch.randn(len(tokens.mask), T, HIDDEN)
    expected = part(tokens, states)
    longer = EncodedTokens(F.pad(tokens.states, (0, 0, 0, 5), value=3.0), F.pad(tokens.mask, (0, 5)))
    close(part(longer, states), expected)
    lengths = tokens.mask.sum(dim=1).tolist()
    left = torch.stack([row.roll(len(row) - length, 0) for row, length in zip(tokens.states, lengths)])
    close(part(EncodedTokens(left, tokens.mask.flip(1)), states), expected)
    for row in range(len(lengths)):
        alone = EncodedTokens(tokens.states[row : row + 1], tokens.mask[row : row + 1])
        close(part(alone, states[row : row + 1])[0], expected[row])


def test_a_layer_is_the_tasks_own():
    """S0.7: H + W_2 gelu(W_1 H + b_1) + b_2."""
    part, tokens = randomise(build_model(head="mlp")).mtl.head_reading, encoded()
    states = torch.randn(len(tokens.mask), T, HIDDEN)
    found = part(tokens, states)
    for task, key in enumerate(part.layer.inner.keys):
        close(found[:, task], states[:, task] + own_experts(part.layer, key, states[:, task])[0])


def test_convolutions_are_read_at_their_greatest():
    """S0.7: Kim 2014, by a loop over places."""
    part, tokens = randomise(build_model(head="convolution")).mtl.head_reading, encoded()
    weight, bias = part.convolution.weight, part.convolution.bias
    for row, mask in enumerate(tokens.mask):
        states = F.pad(tokens.states[row, : int(mask.sum())], (0, 0, 1, 1))
        places = [
            F.gelu(torch.einsum("sdk,kd->s", weight, states[place : place + 3]) + bias)
            for place in range(int(mask.sum()))
        ]
        close(part.summary(tokens)[row], torch.stack(places).amax(dim=0))


def test_the_recurrent_network_reads_both_ways():
    """S0.7: against a network that is given each text without its padding."""
    part, tokens = randomise(build_model(head="recurrent")).mtl.head_reading, encoded()
    for row, mask in enumerate(tokens.mask):
        states = tokens.states[row : row + 1, : int(mask.sum())]
        expected = torch.cat([part.forwards(states)[1][0, 0], part.backwards(states.flip(1))[1][0, 0]])
        close(part.summary(tokens)[row], expected)


def test_readings_are_different_computations():
    found = [randomise(build_model(head=head))(**encoder_inputs()).logits["intent"] for head in HEAD_READINGS]
    for place, first in enumerate(found):
        assert all((first - second).abs().max() > 1e-4 for second in found[:place])
