"""The doctor counts what is cut, fits no window or has no piece; empty inputs are trained, scored and answered."""

import json

import pytest
from datasets import ClassLabel, Dataset, Features, List, Value
from transformers import GPT2Config, GPT2Model

from hf_mtl import MultiTaskTrainer, MultiTaskTrainingArguments, TaskSpec
from hf_mtl.baselines import trivial_scores
from hf_mtl.cli import main
from hf_mtl.tables import _baseline_task
from hf_mtl.training.scoring import score_answers
from tests.small_tokenizers import TEXT, small_tokenizer

WORD = "Amsterdam"


def run_of(folder, name, rows, tasks, batch_size=4) -> MultiTaskTrainer:
    """A GPT-2 of 16 units beside a small tokenizer."""
    own = small_tokenizer(name)
    GPT2Model(GPT2Config(vocab_size=len(own), n_embd=16, n_layer=1, n_head=2, n_positions=256)).save_pretrained(folder)
    own.save_pretrained(folder)
    arguments = MultiTaskTrainingArguments(
        output_dir=str(folder / "out"),
        use_cpu=True,
        disable_tqdm=True,
        max_steps=3,
        per_device_train_batch_size=batch_size,
        per_device_eval_batch_size=batch_size,
        save_strategy="no",
        report_to=[],
    )
    return MultiTaskTrainer(str(folder), arguments, train_dataset=rows, eval_dataset=rows, tasks=tasks)


def findings(trainer: MultiTaskTrainer, check: str) -> list[tuple[str, str]]:
    return [(one.what, one.advice) for one in trainer.doctor().findings if one.check == check]


def questions(answers: list[dict]) -> Dataset:
    columns = {"question": ["where"] * len(answers), "context": [TEXT] * len(answers), "answers": answers}
    return Dataset.from_dict(columns)


def spec(**settings) -> TaskSpec:
    return TaskSpec(name="where", problem_type="question_answering", columns={"label": "answers"}, **settings)


@pytest.mark.parametrize("name", ["GPT-2", "RobBERT", "Unigram"])
def test_answers_that_fit_no_window_are_counted(tmp_path, name):
    none = {"text": [], "answer_start": []}
    short = {"text": [WORD], "answer_start": [TEXT.index(WORD)]}
    rows = questions([short, none, {"text": [TEXT], "answer_start": [0]}, {"text": ["\u200b"], "answer_start": [55]}])
    assert TEXT[55] == "\u200b"
    trainer = run_of(tmp_path, name, {"where": rows}, [spec(max_length=32)])
    training, validation = findings(trainer, "answers_in_no_window")
    assert training[0].startswith("2 of 3 training answers fit in no window of 32 word pieces or have no word piece")
    assert validation[0].startswith("2 of 3 validation answers") and "max_length" in training[1]
    whole = run_of(tmp_path / "whole", name, {"where": questions([short, none])}, [spec(max_length=32)])
    assert not findings(whole, "answers_in_no_window")


def test_answers_longer_than_those_given_are_counted(tmp_path):
    words = [{"text": [word], "answer_start": [TEXT.index(word)]} for word in (WORD, "Monday", "won")]
    trainer = run_of(tmp_path, "characters", {"where": questions(words)}, [spec(max_answer_length=5, max_length=200)])
    (training, _) = findings(trainer, "long_answers")
    assert training[0].startswith("2 of 3 training answers are longer than max_answer_length=5 word pieces")
    assert "the longest has 9" in training[0] and training[1] == "Give the task's row max_answer_length: 9."
    longer = [spec(max_answer_length=9, max_length=200)]
    assert not findings(run_of(tmp_path / "9", "characters", {"where": questions(words)}, longer), "long_answers")


def test_questions_that_are_cut_are_counted_once_a_row(tmp_path):
    rows = Dataset.from_dict(
        {
            "question": ["who won " * 40, "who"],
            "context": [TEXT * 3] * 2,
            "answers": [{"text": [WORD], "answer_start": [TEXT.index(WORD)]}] * 2,
        }
    )
    trainer = run_of(tmp_path, "GPT-2", {"where": rows}, [spec(max_length=64)])
    (training, _) = findings(trainer, "truncated")
    assert training[0] == "1 of 2 training questions (50.0%) are longer than half of 64 word pieces"


def test_words_without_a_piece_are_counted(tmp_path):
    features = Features({"tokens": List(Value("string")), "tags": List(ClassLabel(names=["O", "B-PER"]))})
    rows = {"tokens": [["Bob", "\u200b", "won"], ["Bob", "won", "it"]], "tags": [[1, 0, 0], [1, 0, 0]]}
    rows = Dataset.from_dict(rows, features=features)
    task = TaskSpec(name="names", problem_type="token_classification", columns={"label": "tags"})
    (training, _) = findings(run_of(tmp_path, "GPT-2", {"names": rows}, [task]), "words_without_pieces")
    assert training[0] == "1 of 6 training words have no word piece of their own, so their tags are not learned"
    plain = {"names": rows.select([1])}
    assert not findings(run_of(tmp_path / "plain", "GPT-2", plain, [task]), "words_without_pieces")


@pytest.mark.parametrize("batch_size", [1, 4])
def test_empty_inputs_are_trained_scored_and_answered(tmp_path, batch_size):
    """A tokenizer that adds no piece of its own to an empty text, an empty pair, words that vanish."""
    binary = ClassLabel(names=["bad", "good"])
    texts = Dataset.from_dict({"text": ["", "Bob won", "", "a"], "label": [0, 1, 0, 1]}).cast_column("label", binary)
    pairs = {"sentence1": ["", "", "Bob", "won"], "sentence2": ["", "Bob", "", "it"], "label": [0.0, 1.0, 2.0, 3.0]}
    tags = Features({"tokens": List(Value("string")), "tags": List(ClassLabel(names=["O", "B-PER"]))})
    words = Dataset.from_dict({"tokens": [["", ""], ["Bob", "won"]] * 2, "tags": [[0, 1], [1, 0]] * 2}, features=tags)
    answers = [{"text": [], "answer_start": []}, {"text": ["Bob"], "answer_start": [0]}] * 2
    where = {"question": ["", "", "who", "who"], "context": ["", "Bob won", "", "Bob won"], "answers": answers}
    rows = {"mood": texts, "pair": Dataset.from_dict(pairs), "names": words, "where": Dataset.from_dict(where)}
    tasks = [
        TaskSpec(name="mood", problem_type="single_label_classification"),
        TaskSpec(name="pair", problem_type="regression", columns={"text": "sentence1", "text_pair": "sentence2"}),
        TaskSpec(name="names", problem_type="token_classification", columns={"label": "tags"}),
        TaskSpec(name="where", problem_type="question_answering", columns={"label": "answers"}, null_answer=True),
    ]
    trainer = run_of(tmp_path, "GPT-2", rows, tasks, batch_size)
    assert trainer.train().training_loss < float("inf")
    scores = trainer.evaluate()
    assert all(score == score for score in scores.values()), "a score is no number"
    assert len(trainer.predict(trainer.eval_dataset).predictions["where"]) == 4
    answers = trainer.model.predict([{"tokens": ["", ""]}], ["names"], tokenizer=trainer.processing_class)
    assert answers[0]["names"]["tags"] == ["O", "O"]


@pytest.mark.parametrize("names", [["O", "PER", "LOC"], ["b-PER", "i-PER", "o"], ["B", "M", "E", "S"]])
def test_tags_of_any_spelling_are_scored_as_spans(tmp_path, names):
    """Also where the rows to score hold some of the tags only: these are all inside a span."""
    tags = Features({"tokens": List(Value("string")), "tags": List(ClassLabel(names=names))})
    rows = {"tokens": [["Bob", "won"]] * 2, "tags": [[1, 1]] * 2}
    task = TaskSpec(name="names", problem_type="token_classification", columns={"label": "tags"})
    trainer = run_of(tmp_path, "GPT-2", {"names": Dataset.from_dict(rows, features=tags)}, [task])
    answers = [{"tags": [names[1]] * 2}, {"tags": [names[0]] * 2}]
    scores = score_answers(trainer.specs, trainer.mixture.validation, {"names": answers})
    assert scores["names"]["span_f1"] == pytest.approx({"PER": 200 / 3, "i-PER": 40, "M": 40}[names[1]])
    assert (
        trivial_scores(_baseline_task(trainer.specs["names"], *[trainer.mixture.train["names"]] * 2))["span_f1"] == 100
    )


def test_predict_says_what_it_did_not_read(tmp_path, capsys):
    rows = {"text": [TEXT, "Bob won"], "label": [0, 1]}
    texts = Dataset.from_dict(rows).cast_column("label", ClassLabel(names=["bad", "good"]))
    tags = Features({"tokens": List(Value("string")), "tags": List(ClassLabel(names=["O", "B-PER"]))})
    words = Dataset.from_dict({"tokens": [["Bob", "won"]], "tags": [[1, 0]]}, features=tags)
    tasks = [
        TaskSpec(name="mood", problem_type="single_label_classification", max_length=40),
        TaskSpec(name="names", problem_type="token_classification", columns={"label": "tags"}, max_length=8),
    ]
    trainer = run_of(tmp_path / "encoder", "GPT-2", {"mood": texts, "names": words}, tasks)
    trainer.save_model(str(tmp_path / "model"))
    lines = [{"text": "Bob won " * 20}, {"text": "Bob"}, {"text": "won " * 10}]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, lines)))
    files = ["--file", str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "out.jsonl")]
    assert main(["predict", str(tmp_path / "model"), *files]) == 0
    printed = capsys.readouterr().err
    answers = [json.loads(line)["answers"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    cut = [[name for name in answer if "truncated" in answer[name]] for answer in answers]
    assert cut == [["mood", "names"], [], ["names"]]
    read = [answers[place]["names"]["words_read"] for place in (0, 2)]
    assert all(0 < count <= 8 for count in read) and "words_read" not in answers[1]["names"]
    assert "mood: 1 of 3 rows were cut at max_length=40 word pieces" in printed
    assert "names: 2 of 3 rows were cut at max_length=8 word pieces" in printed
    assert f"and {50 - sum(read)} of their words, which are tagged as outside, were not read" in printed
    assert main(["predict", str(tmp_path / "model"), "--text", "Bob won " * 20, "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["mood"]["truncated"] is True and "mood: 1 of 1 rows were cut" in captured.err
