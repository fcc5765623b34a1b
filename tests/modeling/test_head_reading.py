"""What heads read: nothing more at the start, and then a layer, convolutions or a recurrent network."""

import pytest
import torch
from torch.nn import functional as F

from hf_mtl.modeling.branch import TASK_BRANCHES
from hf_mtl.modeling.encoder_tensors import EncodedTokens
from hf_mtl.modeling.head import HEAD_READINGS
from tests.conftest import build_model, encoder_inputs, randomise, unmoved_after, with_weights_of
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


@pytest.mark.parametrize(
    ("head", "branch"), [("mlp", "layer"), ("convolution", "convolution"), ("recurrent", "recurrent")]
)
def test_a_reading_is_the_state_and_a_branch_of_the_tasks_own(head, branch):
    """S0.7: H_t and what the branch makes of it, whose formulas are tested with branches."""
    part, tokens = randomise(build_model(head=head)).mtl.head_reading, encoded()
    assert type(part.branch) is TASK_BRANCHES[branch]
    states = torch.randn(len(tokens.mask), T, HIDDEN)
    close(part(tokens, states), states + part.branch(states, tokens))


def test_readings_are_different_computations():
    found = [randomise(build_model(head=head))(**encoder_inputs()).logits["intent"] for head in HEAD_READINGS]
    for place, first in enumerate(found):
        assert all((first - second).abs().max() > 1e-4 for second in found[:place])
