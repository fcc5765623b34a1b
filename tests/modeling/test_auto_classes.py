"""What docs/transformers.md says of the Auto classes and of tuples, in processes that import no more than that."""

import os

import pytest
import torch
from transformers import AutoTokenizer

from hf_mtl.modeling.encoder_loading import find_encoder
from tests.conftest import ENCODER, TASKS, build_model, encoder_inputs
from tests.forked import Forks

SCRIPT = """
{imported}
from transformers import AutoModel, pipeline

model = AutoModel.from_pretrained({folder!r}{trust})
print(type(model).__name__)
print(sorted(pipeline("multitask", model={folder!r}{trust})("a b")))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tokenizer):
    path = tmp_path_factory.mktemp("checkpoint")
    build_model(TASKS[:2], vocab_size=tokenizer.vocab_size).save_pretrained(path)
    AutoTokenizer.from_pretrained(find_encoder(ENCODER)).save_pretrained(path)
    return str(path)


@pytest.fixture(scope="module")
def forks():
    """Of a process that has imported Transformers, and nothing of ours."""
    with Forks(["torch", "transformers.pipelines", "transformers.models.bert.modeling_bert"], os.environ) as forks:
        yield forks


@pytest.mark.parametrize(
    ("imported", "trust", "lines", "error"),
    [
        ("import hf_mtl.modeling", "", 2, ""),
        ("from hf_mtl import MultiTaskAttentionModel", "", 2, ""),
        ("import hf_mtl", "", 0, "trust_remote_code=True"),
        ("", "", 0, "trust_remote_code=True"),
        ("", ", trust_remote_code=True", 1, "Unknown task multitask"),
    ],
)
def test_the_auto_classes_know_the_model_after_an_import_of_it(imported, trust, lines, error, folder, forks, tmp_path):
    script = SCRIPT.format(imported=imported, folder=folder, trust=trust)
    done = forks.run(tmp_path, code=script)
    printed = [line for line in done.stdout.splitlines() if line in ("MultiTaskAttentionModel", "['intent', 'mood']")]
    assert len(printed) == lines, done.stderr
    assert (done.returncode == 0) is (not error) and error in done.stderr


def test_a_tuple_holds_what_the_output_holds():
    labels = {"mood": torch.zeros(8, dtype=torch.long)}
    model = build_model(TASKS[:2])
    loss, logits, *others = model(**encoder_inputs(), labels=labels, return_dict=False)
    output = model(**encoder_inputs(), labels=labels)
    assert list(output) == [
        "loss",
        "logits",
        "task_losses",
        "task_loss_sums",
        "task_label_counts",
        "task_row_counts",
        "task_states",
    ]
    assert len(others) == 5 and torch.equal(loss, output.loss)
    assert torch.equal(model(**encoder_inputs(), return_dict=False)[0]["mood"], logits["mood"])
