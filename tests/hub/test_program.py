"""`hf-mtl train --push_to_hub true`, and the card that it publishes: every block of code in it runs as printed."""

import dataclasses
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from huggingface_hub import EvalResultEntry, ModelCard

from hf_mtl.cli import main
from hf_mtl.modeling.model_card import eval_results, render_card
from hf_mtl.modeling.model_card_facts import CardFacts, TaskFacts
from hf_mtl.modeling.task_config import TaskConfig
from tests.conftest import TASKS, build_model
from tests.hub.conftest import hub_environment
from tests.test_cli import NEEDS_ENCODER, workplace

__all__ = ["workplace"]

REPO = "acme/2.desk-v1"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def in_workplace(workplace, monkeypatch):
    """The folder of data and recipe, as the working directory."""
    monkeypatch.chdir(workplace)
    return workplace


def train(folder, *arguments) -> int:
    quiet = ("--max_steps", "2", "--disable_tqdm", "true", "--doctor", "false", "--report_parts", "false")
    return main(["train", "recipe.yaml", "--output_dir", folder, *quiet, *arguments])


@NEEDS_ENCODER
def test_a_run_is_pushed_whole(hub_client, in_workplace, capfd):
    given = ("--push_to_hub", "true", "--hub_model_id", REPO, "--hub_token", "hf_writer", "--license", "mit")
    assert train("pushed", *given, "--language", "en") == 0
    printed = capfd.readouterr().out
    assert f"AutoModel.from_pretrained('{REPO}', trust_remote_code=True)" in printed
    there = hub_client.files(REPO)
    assert {"recipe.yaml", "results.json", "README.md", "tokenizer.json", "model.safetensors"} <= set(there)
    assert not [name for name, data in there.items() if b"hf_writer" in data]
    assert "hf_writer" not in (in_workplace / "pushed" / "recipe.yaml").read_text()
    # Whoever trains it again pushes nothing.
    assert not re.search(rb"^(push_to_hub|hub_|output_dir)", there["recipe.yaml"], re.MULTILINE)
    card = ModelCard(there["README.md"].decode())
    assert (card.data.license, card.data.language) == ("mit", ["en"])
    assert str(in_workplace) not in card.content
    assert there["scores.png"].startswith(b"\x89PNG") and "](scores.png)" in card.text
    evaluate = ["evaluate", REPO, "--revision", "main", "--disable_tqdm", "true"]
    assert main(evaluate) == 2
    assert "reads files that were not pushed: mood_train.jsonl, mood_validation.jsonl" in capfd.readouterr().err
    for name in ("mood", "similarity", "places"):
        files = f"{{train: {name}_train.jsonl, validation: {name}_validation.jsonl}}"
        evaluate += [f"--tasks.{name}.data_files", files]
    assert main(evaluate) == 0
    assert "mean" in capfd.readouterr().out
    # Typed again, it pushes what is finished, were it only because the line was cut before.
    hub_client.commit(REPO, {"model.safetensors": None}, "Somebody's mistake")
    assert train("pushed", *given) == 0
    assert hub_client.files(REPO)["model.safetensors"] == there["model.safetensors"]


def test_a_revision_of_a_folder_is_refused(in_workplace, tmp_path, capfd):
    build_model(TASKS).save_pretrained(tmp_path / "model")
    assert main(["predict", str(tmp_path / "model"), "--revision", "v1", "--text", "x"]) == 2
    assert "--revision v1 is of the Hub's repositories" in capfd.readouterr().err


@NEEDS_ENCODER
def test_offline_the_command_to_push_is_said(in_workplace, capfd, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert train("kept", "--push_to_hub", "true", "--hub_model_id", REPO) == 0
    assert f"hf-mtl push kept {REPO}" in capfd.readouterr().out


@NEEDS_ENCODER
def test_a_push_that_fails_after_training_loses_nothing(hub_client, in_workplace, capfd):
    hub_client.fail("commit", 403)
    given = ("--push_to_hub", "true", "--hub_model_id", REPO, "--hub_strategy", "end")
    assert train("refused", *given) == 2
    assert f"hf-mtl push refused {REPO}" in capfd.readouterr().err
    assert (in_workplace / "refused" / "results.json").is_file()
    assert main(["push", "refused", REPO]) == 0


@NEEDS_ENCODER
def test_runs_that_make_several_models_are_not_pushed_as_one(in_workplace, capfd):
    given = ("--push_to_hub", "true", "--training_order", "multitask_then_finetune")
    assert train("several", *given) == 2
    assert "trains a model for each task; leave push_to_hub out" in capfd.readouterr().err


@NEEDS_ENCODER
def test_without_matplotlib_the_card_has_no_figure(in_workplace, capfd, monkeypatch):
    for module in ("matplotlib", "matplotlib.figure"):
        # What Python finds there cannot be imported.
        monkeypatch.setitem(sys.modules, module, None)
    assert train("plain") == 0
    assert "pip install 'hf_mtl[figures]'" in capfd.readouterr().out
    assert "![" not in (in_workplace / "plain" / "README.md").read_text()


def code_blocks(card: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", card, re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_every_block_of_a_card_runs_as_printed(hub_client, tmp_path, tokenizer):
    """With the package and, but for its program, without; every type of task is in it."""
    model = build_model(TASKS, vocab_size=tokenizer.vocab_size)
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    assert main(["push", str(tmp_path / "model"), REPO]) == 0
    model.from_pretrained(tmp_path / "model").push_to_hub(REPO)
    card = hub_client.files(REPO)["README.md"].decode()
    environment = hub_environment(hub_client, tmp_path / "home")
    blocks = code_blocks(card, "python")
    assert len(blocks) == 1
    run = subprocess.run(
        [sys.executable, "-c", blocks[0]], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert sorted(line.partition(" ")[0] for line in run.stdout.splitlines()) == sorted(task["name"] for task in TASKS)
    scripts = str(Path(sys.executable).parent)
    environment = {**environment, "PATH": f"{scripts}{os.pathsep}{environment['PATH']}"}
    for block in code_blocks(card, "bash"):
        assert shlex.split(block)[0] == "hf-mtl"
        run = subprocess.run(block, shell=True, env=environment, cwd=tmp_path, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr[-2000:]


def full_facts() -> CardFacts:
    task = TaskConfig(name="rte", problem_type="single_label_classification", labels=["a|b", "c"])
    return CardFacts(
        name="Model",
        checkpoint="out/model",
        tasks=[
            TaskFacts(
                config=task,
                metrics={"accuracy": 71.25},
                trivial={"accuracy": 50.0},
                single_task={"accuracy": 70.0},
                dataset="nyu-mll/glue",
                subset="rte",
                train_rows=2490,
            )
        ],
        base_model="ann/encoder",
        languages=["en"],
        license="mit",
        reads_hub=True,
        training=["uniform"],
        data=["Nothing leaks."],
        figures={"scores": "scores.png"},
    )


def test_results_are_valid_by_the_hubs_own_classes(hub_client):
    facts = full_facts()
    card = ModelCard(render_card(facts))
    card.validate()
    (result,) = card.data.eval_results
    assert (result.task_name, result.dataset_type, result.metric_value) == ("rte", "nyu-mll/glue", 71.25)
    assert card.data.datasets == ["nyu-mll/glue"] and card.data.base_model == "ann/encoder"
    (entry,) = yaml.safe_load(eval_results(facts))
    assert entry["dataset"] == {"id": "nyu-mll/glue", "task_id": "rte"} and entry["value"] == 71.25
    EvalResultEntry(dataset_id=entry["dataset"]["id"], task_id=entry["dataset"]["task_id"], value=entry["value"])


def test_what_is_not_known_vanishes():
    task = TaskConfig(name="rte", problem_type="single_label_classification", labels=["a", "b"])
    text = render_card(CardFacts(name="Model", checkpoint="m", tasks=[TaskFacts(config=task)]))
    data = yaml.safe_load(text.split("---")[1])
    assert set(data) == {"library_name", "pipeline_tag", "tags"}
    for word in ("None", "null", "## Training", "## What the parts", "## Licence", "TF-IDF", "score:", "![", " () "):
        assert word not in text, word
    assert eval_results(CardFacts(name="Model", checkpoint="m", tasks=[TaskFacts(config=task)])) is None
    full = render_card(full_facts())
    assert "Below TF-IDF" not in full
    weak = [dataclasses.replace(full_facts().tasks[0], tfidf={"accuracy": 80.0})]
    assert "Below TF-IDF + linear: rte (accuracy)." in render_card(dataclasses.replace(full_facts(), tasks=weak))
    errors = [dataclasses.replace(task, lower_is_better=["accuracy"]) for task in weak]
    assert "Below TF-IDF" not in render_card(dataclasses.replace(full_facts(), tasks=errors))
    assert "read from files" not in full
    assert "read from files" in render_card(dataclasses.replace(full_facts(), reads_hub=False))
    for word in ("![scores](scores.png)", "71.2", "50.0", "single task", "a\\|b", "2,490", "Nothing leaks."):
        assert word in full, word


def test_a_card_is_the_markdown_that_is_meant():
    """As GitHub and the Hub render it: no row falls out of its table, no line of code out of its block."""
    markdown_it = pytest.importorskip("markdown_it")
    further = {"parts": ["mean gate: 0.1"], "command": "hf-mtl train recipe.yaml", "license_note": "Ask first."}
    card = render_card(dataclasses.replace(full_facts(), **further))
    body = card.split("---\n", 2)[2]
    tokens = markdown_it.MarkdownIt("commonmark").enable("table").parse(body)
    kinds = [token.type for token in tokens]
    headings = [tokens[place + 1].content for place, kind in enumerate(kinds) if kind == "heading_open"]
    assert headings[0] == "Model" and headings[1:4] == ["Tasks and scores", "Use", "Data"] and len(headings) == 8
    assert kinds.count("table_open") == 2
    assert [token.info for token in tokens if token.type == "fence"] == ["python", "bash", "text", "text"]
    texts = [token for token in tokens if token.type == "inline"]
    assert not [token.content for token in texts if token.content.startswith("|") or "```" in token.content]
    assert [child.attrs["src"] for token in texts for child in token.children if child.type == "image"] == [
        "scores.png"
    ]
    cells = [tokens[place + 1].content for place, kind in enumerate(kinds) if kind == "td_open"]
    assert "a|b, c" in cells
