"""`transformers.pipeline` answers what `predict` answers."""

import json
import subprocess
import sys

import pytest
import torch
from datasets import Dataset
from transformers import BertForTokenClassification, pipeline
from transformers.pipelines.pt_utils import KeyDataset, KeyPairDataset

from hf_mtl.modeling import InputError
from hf_mtl.modeling.answering import Answerer
from tests.conftest import TASKS, build_model, encoder_config, randomise
from tests.modeling.test_equivalence import copy_weights
from tests.small_tokenizers import small_tokenizer

TEXTS = ["Bob won 5 km", "The race was held in Amsterdam", "a b"]

FORMS = {
    "texts": lambda: TEXTS,
    "rows": lambda: [{"text": text} for text in TEXTS],
    "data set": lambda: Dataset.from_dict({"text": TEXTS}),
    "columns": lambda: {"text": TEXTS},
}


@pytest.fixture(scope="module")
def tokenizer():
    return small_tokenizer("WordPiece")


@pytest.fixture(scope="module")
def model(tokenizer):
    return randomise(build_model(TASKS[:4], vocab_size=len(tokenizer)))


@pytest.fixture(scope="module")
def pipe(model, tokenizer):
    return pipeline("multi-task", model=model, tokenizer=tokenizer)


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
    answer = Answerer.answer

    def recorded(self, rows, tasks, batch_size):
        sizes.append(batch_size)
        return answer(self, rows, tasks, batch_size)

    monkeypatch.setattr(Answerer, "answer", recorded)
    pipe = pipeline("multi-task", model=model, tokenizer=tokenizer, tasks=["mood"], batch_size=3)
    assert [set(answer) for answer in pipe(TEXTS)] == [{"mood"}] * 3
    assert set(pipe(TEXTS[0], tasks=["stars"])) == {"stars"}
    assert sizes == [3, 3]


def test_the_first_versions_name_is_served(model, tokenizer, pipe):
    assert pipeline("multitask", model=model, tokenizer=tokenizer)(TEXTS) == pipe(TEXTS)


def test_generators_and_data_sets_are_read_as_they_are_answered(pipe, model, tokenizer):
    expected = model.predict(TEXTS, tokenizer=tokenizer)
    read = []

    def texts():
        for text in TEXTS * 4:
            read.append(text)
            yield text

    answers = pipe(texts(), batch_size=2)
    assert read == []
    first = next(answers)
    assert len(read) == 2 and first["mood"]["label"] == expected[0]["mood"]["label"]
    assert len([first, *answers]) == 12
    rows = Dataset.from_dict({"text": TEXTS, "note": ["x"] * 3})
    assert list(pipe(KeyDataset(rows, "text"), batch_size=3)) == pipe(TEXTS, batch_size=3)
    pairs = KeyPairDataset(rows, "text", "note")
    assert len(list(pipe(pairs))) == 3


FIELDS = [
    ({"question": "Who won?", "context": "Bob won 5 km in Amsterdam"}, {"span"}),
    (
        {"text": "a b", "text_pair": "b a", "choices": ["a", "b"]},
        {"intent", "mood", "flags", "stars", "names", "pick"},
    ),
]


@pytest.mark.parametrize(("fields", "tasks"), FIELDS, ids=["question", "pair"])
def test_fields_may_be_given_by_name(tokenizer, fields, tasks):
    model = randomise(build_model(vocab_size=len(tokenizer)))
    pipe = pipeline("multi-task", model=model, tokenizer=tokenizer)
    answers = pipe(**fields)
    assert set(answers) == tasks and answers == pipe(fields)
    several = {name: [value, value] for name, value in fields.items()}
    assert pipe(**several, batch_size=4) == pipe([fields, fields], batch_size=4)
    if "text" in fields:
        text = fields["text"]
        assert pipe(text, text_pair=fields["text_pair"], choices=fields["choices"]) == answers


def test_words_that_are_known(tokenizer):
    model = randomise(build_model([TASKS[4]], vocab_size=len(tokenizer)))
    pipe = pipeline("multi-task", model=model, tokenizer=tokenizer, is_split_into_words=True)
    words = ["Bob", "won", "5", "km"]
    with pytest.raises(InputError, match="expected a list of words"):
        pipe("Bob won")
    assert pipe(words) == pipe([words])[0] == model.predict({"tokens": words}, tokenizer=tokenizer)[0]


def test_the_best_labels_and_no_scores(pipe):
    (full,) = pipe(TEXTS[:1])
    (best,) = pipe(TEXTS[:1], top_k=2)
    scores = full["intent"]["scores"]
    ranked = sorted(scores, key=scores.get, reverse=True)
    assert list(best["intent"]["scores"]) == ranked[:2] and best["intent"]["score"] == full["intent"]["score"]
    assert list(best["flags"]["scores"].values()) == sorted(full["flags"]["scores"].values(), reverse=True)[:2]
    assert pipe(TEXTS[0], return_all_scores=True) == full
    bare = pipe(TEXTS[0], return_all_scores=False)
    assert bare["intent"] == {"label": full["intent"]["label"], "score": full["intent"]["score"]}
    assert bare["stars"] == full["stars"]


def test_as_many_answers_as_are_asked_for(tokenizer):
    model = randomise(build_model([TASKS[5], TASKS[6]], vocab_size=len(tokenizer)))
    pipe = pipeline("multi-task", model=model, tokenizer=tokenizer)
    row = {"question": "Who won?", "context": "Bob won 5 km. The race was held in Amsterdam."}
    for count in (1, 4):
        n_best = pipe(row, top_k=count)["span"]["n_best"]
        assert len(n_best) == count and n_best[0]["answer"] == pipe(row)["span"]["answer"]
        # How many are given changes no score.
        assert n_best[0]["score"] == pytest.approx(pipe(row)["span"]["score"])
        assert pipe(row, top_k=count)["span"]["score"] == pipe(row)["span"]["score"]
    choices = {"text": "a", "choices": ["a", "b", "5"]}
    scores = pipe(choices)["pick"]["scores"]
    assert pipe(choices, top_k=2)["pick"]["scores"] == dict(sorted(enumerate(scores), key=lambda one: -one[1])[:2])


@pytest.mark.parametrize("kind", ["WordPiece", "RoBERTa", "Unigram"])
@pytest.mark.parametrize("strategy", ["none", "simple", "first", "average", "max"])
@pytest.mark.filterwarnings("ignore:Tokenizer does not support real words")
def test_entities_are_those_of_the_token_classification_pipeline(kind, strategy):
    tokenizer = small_tokenizer(kind)
    plain = BertForTokenClassification(encoder_config(len(tokenizer))).eval()
    plain.config.num_labels, labels = 3, TASKS[4]["labels"]
    torch.manual_seed(5)
    plain.classifier = torch.nn.Linear(32, 3)
    plain.num_labels, plain.config.id2label = 3, dict(enumerate(labels))
    model = build_model([TASKS[4]], vocab_size=len(tokenizer), pooling="mean", task_interaction="none", gate="none")
    copy_weights(model, plain, "classifier", "token_classification", "names")
    texts = [*TEXTS, "Unseenword in Amsterdam, 5 km!"]
    expected = pipeline("token-classification", model=plain, tokenizer=tokenizer, aggregation_strategy=strategy)
    answers = pipeline("multi-task", model=model, tokenizer=tokenizer, aggregation_strategy=strategy)(texts)
    for answer, entities in zip(answers, expected(texts)):
        assert len(entities) == len(answer["names"]["entities"])
        for entity, right in zip(answer["names"]["entities"], entities):
            assert entity.pop("score") == pytest.approx(float(right.pop("score")), abs=1e-5)
            assert entity == right
    everything = pipeline("multi-task", model=model, tokenizer=tokenizer)
    assert "entities" not in everything(texts[0])["names"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"topk": 2}, "no 'topk'.*Did you mean 'top_k'"),
        ({"tasks": ["moods"]}, "Did you mean 'mood'"),
        ({"top_k": 0}, "top_k=0; expected a whole number >= 1"),
        ({"top_k": 2, "return_all_scores": True}, "exclude each other"),
        ({"aggregation_strategy": "second"}, "aggregation_strategy 'second'"),
        ({"candidate_labels": ["a"]}, "candidate_labels.*labels are those that the tasks were trained with"),
        ({"num_workers": 2}, "num_workers"),
    ],
)
def test_what_it_does_not_take_is_refused(pipe, model, tokenizer, options, message):
    with pytest.raises(InputError, match=message):
        pipe(TEXTS, **options)
    if "num_workers" not in options:
        with pytest.raises(InputError, match=message):
            pipeline("multi-task", model=model, tokenizer=tokenizer, **options)


def test_messages_name_rows_by_their_place_and_say_what_to_write(pipe, model, tokenizer):
    with pytest.raises(InputError, match="Row 5 is None"):
        list(pipe((text for text in [*TEXTS, *TEXTS[:2], None]), batch_size=2))
    with pytest.raises(InputError, match=r"Words are \{'tokens': \[\.\.\.\]\}"):
        pipe([["in", "Oslo"]])
    for size in (0, 1.5, "2"):
        with pytest.raises(InputError, match="batch_size="):
            pipe(TEXTS, batch_size=size)
    with pytest.raises(InputError, match="The model is a BertModel"):
        pipeline("multi-task", model=model.encoder, tokenizer=tokenizer)


def test_no_rows_and_fields_beside_rows_are_refused(pipe):
    with pytest.raises(InputError, match="There are no rows"):
        pipe()
    with pytest.raises(InputError, match="go beside a text"):
        pipe({"text": "a"}, text_pair="b")


SCRIPT = """
import json, sys
from transformers import pipeline
given = json.loads(sys.argv[2])
pipe = pipeline(*given, model=sys.argv[1], trust_remote_code=True)
assert "hf_mtl" not in sys.modules
print(json.dumps(pipe(sys.argv[3])))
"""


@pytest.mark.slow
@pytest.mark.parametrize("given", [[], ["multi-task"]], ids=["task found", "task named"])
def test_a_checkpoint_is_asked_where_this_package_is_not(pipe, tmp_path, given):
    pipe.model.save_pretrained(tmp_path / "saved")
    pipe.tokenizer.save_pretrained(tmp_path / "saved")
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home"), "PATH": "/usr/bin:/bin"}
    # Sums of as many threads are the same to the last bit.
    environment["OMP_NUM_THREADS"] = str(torch.get_num_threads())
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "saved"), json.dumps(given), TEXTS[0]]
    ended = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout) == json.loads(json.dumps(pipe(TEXTS[0])))


TOOLKIT = """
import importlib.util, json, pathlib, sys
folder = sys.argv[1]
sys.path.insert(0, folder)
spec = importlib.util.spec_from_file_location("handler", pathlib.Path(folder) / "handler.py")
sys.modules["handler"] = handler = importlib.util.module_from_spec(spec)
spec.loader.exec_module(handler)
served = handler.EndpointHandler(path=folder)
assert "hf_mtl" not in sys.modules
for body in json.loads(sys.argv[2]):
    try:
        print(json.dumps(served(body)))
    except Exception as error:
        print(json.dumps({"error": str(error)}))
"""


@pytest.mark.slow
def test_requests_are_answered_as_the_inference_toolkit_asks(pipe, tmp_path):
    """It loads handler.py by its place, with the folder on the path, and gives the request's body."""
    pipe.model.save_pretrained(tmp_path / "saved")
    pipe.tokenizer.save_pretrained(tmp_path / "saved")
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home"), "PATH": "/usr/bin:/bin"}
    environment["OMP_NUM_THREADS"] = str(torch.get_num_threads())
    bodies = [
        {"inputs": TEXTS[0]},
        {"inputs": {"text": TEXTS[0]}, "parameters": {"tasks": ["mood"], "return_all_scores": False}},
        {"inputs": TEXTS, "parameters": {"batch_size": 2}},
        {"input": TEXTS[0]},
        {"inputs": TEXTS[0], "parameters": {"tasks": ["moods"]}},
        {"inputs": TEXTS[0], "top_k": 1},
    ]
    command = [sys.executable, "-c", TOOLKIT, str(tmp_path / "saved"), json.dumps(bodies)]
    ended = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    one, row, several, nothing, unknown, beside = map(json.loads, ended.stdout.splitlines())
    assert one == json.loads(json.dumps(pipe(TEXTS[0])))
    assert row == {"mood": {key: one["mood"][key] for key in ("label", "score")}}
    assert several == json.loads(json.dumps(pipe(TEXTS, batch_size=2)))
    assert "top_k=1; options are a mapping" in beside["error"]
    assert "no inputs" in nothing["error"] and "Did you mean 'mood'" in unknown["error"]


def test_with_the_package_no_trust_is_needed(pipe, tmp_path):
    pipe.save_pretrained(tmp_path / "saved")
    for given in (["multi-task"], ["multitask"]):
        assert pipeline(*given, model=str(tmp_path / "saved"))(TEXTS) == pipe(TEXTS)
    found = pipeline(model=str(tmp_path / "saved"), trust_remote_code=True)
    assert found(TEXTS) == pipe(TEXTS)
