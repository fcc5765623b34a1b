"""`transformers.pipeline` answers what `predict` answers."""

import json
import subprocess
import sys

import pytest
import torch
from datasets import Dataset
from transformers import pipeline

from hf_mtl.modeling import InputError
from tests.conftest import TASKS, build_model, randomise
from tests.small_tokenizers import small_tokenizer

TEXTS = ["Bob won 5 km", "The race was held in Amsterdam", "a b"]

FORMS = {
    "texts": lambda: TEXTS,
    "rows": lambda: [{"text": text} for text in TEXTS],
    "data set": lambda: Dataset.from_dict({"text": TEXTS}),
    "generator": lambda: (text for text in TEXTS),
}


@pytest.fixture(scope="module")
def tokenizer():
    return small_tokenizer("WordPiece")


@pytest.fixture(scope="module")
def model(tokenizer):
    return randomise(build_model(TASKS[:4], vocab_size=len(tokenizer)))


@pytest.fixture(scope="module")
def pipe(model, tokenizer):
    return pipeline("multitask", model=model, tokenizer=tokenizer)


@pytest.mark.parametrize("tasks", [None, ["mood"], ["stars", "flags"]])
@pytest.mark.parametrize("form", FORMS)
def test_several_are_answered_as_predict_answers_them(pipe, model, tokenizer, form, tasks):
    inputs = FORMS[form]()
    expected = model.predict(TEXTS, tasks=tasks, tokenizer=tokenizer, batch_size=2)
    assert pipe(inputs, batch_size=2, **({} if tasks is None else {"tasks": tasks})) == expected


def test_one_is_answered_alone(pipe, model, tokenizer):
    expected = model.predict(TEXTS[0], tokenizer=tokenizer)[0]
    assert pipe(TEXTS[0]) == pipe({"text": TEXTS[0]}) == expected


def test_tasks_and_batches_may_be_said_once(model, tokenizer, monkeypatch):
    sizes = []
    predict = type(model).predict

    def recorded(self, rows, **options):
        sizes.append(options["batch_size"])
        return predict(self, rows, **options)

    monkeypatch.setattr(type(model), "predict", recorded)
    pipe = pipeline("multitask", model=model, tokenizer=tokenizer, tasks=["mood"], batch_size=3)
    assert [set(answer) for answer in pipe(TEXTS)] == [{"mood"}] * 3
    assert set(pipe(TEXTS[0], tasks=["stars"])) == {"stars"}
    assert sizes == [3, 3]


@pytest.mark.parametrize("options, message", [({"top_k": 2}, "top_k"), ({"num_workers": 2}, "num_workers")])
def test_what_it_does_not_take_is_refused(pipe, model, tokenizer, options, message):
    with pytest.raises(InputError, match=message):
        pipe(TEXTS, **options)
    if "num_workers" not in options:
        with pytest.raises(InputError, match=message):
            pipeline("multitask", model=model, tokenizer=tokenizer, **options)


SCRIPT = """
import json, sys
from transformers import pipeline
pipe = pipeline(model=sys.argv[1], trust_remote_code=True)
assert "hf_mtl" not in sys.modules
print(json.dumps(pipe(sys.argv[2])))
"""


@pytest.mark.slow
def test_a_saved_pipeline_works_where_this_package_is_not(pipe, tmp_path):
    pipe.save_pretrained(tmp_path / "saved")
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home"), "PATH": "/usr/bin:/bin"}
    # Sums of as many threads are the same to the last bit.
    environment["OMP_NUM_THREADS"] = str(torch.get_num_threads())
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "saved"), TEXTS[0]]
    ended = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout) == json.loads(json.dumps(pipe(TEXTS[0])))
