"""One tensor of labels serves rows of tasks of several kinds."""

import pytest
import torch

from hf_mtl import InputError
from hf_mtl.modeling.errors import LabelError
from tests.conftest import build_model, encoder_inputs

TASK_IDS = torch.tensor([0, 3, 1, 3, 0, 1, 3, 0])
LABELS = torch.tensor([2.0, 1.5, 1.0, 4.0, 0.0, -100.0, float("nan"), float("nan")])


def test_classes_and_numbers_stand_in_one_tensor():
    model = build_model()
    output = model(**encoder_inputs(), task_ids=TASK_IDS, labels=LABELS)
    by_name = {
        "intent": torch.tensor([2, 0, -100]),
        "mood": torch.tensor([1, -100]),
        "stars": torch.tensor([1.5, 4.0, float("nan")]),
    }
    expected = model(**encoder_inputs(), task_ids=TASK_IDS, labels=by_name)
    assert torch.equal(output.loss, expected.loss)
    assert torch.equal(output.task_label_counts, expected.task_label_counts)
    assert output.task_label_counts.sum() == 5


@pytest.mark.parametrize("label", [0.5, -1.0, 3.0])
def test_a_number_that_is_no_class_is_refused(label):
    labels = LABELS.clone()
    labels[0] = label
    with pytest.raises(LabelError, match="intent"):
        build_model()(**encoder_inputs(), task_ids=TASK_IDS, labels=labels)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"asked_tasks": torch.tensor([[0]] * 8)}, "`asked_tasks` is of a collator's batch"),
        ({"routing": {}}, "`routing` is empty"),
        ({"task_ids": [0] * 8}, "expected a tensor of the shape .8,.*torch.tensor"),
        ({"task_ids": "mood"}, "expected a tensor"),
    ],
)
def test_what_is_not_the_users_to_give_is_named(given, message):
    with pytest.raises(InputError, match=message):
        build_model()(**encoder_inputs(), **given)
