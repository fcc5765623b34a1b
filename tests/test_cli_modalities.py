"""The program on images, sounds and rows of a table beside texts: train, be killed, go on, answer from files."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.conftest import DATA
from tests.modality_data import RESNET, TABLE_TASK, TEXT, WHISPER, images, png, sounds, table, texts, wav
from tests.test_cli import NEEDS_ENCODER, environment, hf_mtl
from tests.test_cli_kill import kill_when, optimizer_state, sha256, steps_done

pytestmark = [NEEDS_ENCODER, pytest.mark.slow]

RECIPES = Path(__file__).parent.parent / "recipes"
STEPS = 120
TASKS = {
    "mood": {"columns": {"text": "text", "label": "label"}},
    "side": {"columns": {"image": "image", "label": "label"}},
    "pitch": {"columns": {"audio": "audio", "label": "label"}},
    "old": {"columns": TABLE_TASK["columns"]},
}
# Labels that the rows of `answered_rows` have.
RIGHT = {"side": "right", "pitch": "low", "old": "yes"}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A recipe beside its data: rows as parquet, images as files that a table names."""
    folder = tmp_path_factory.mktemp("modalities")
    rows = {"mood": texts(80), "pitch": sounds(160), "old": table(80)}
    for name, data in rows.items():
        (folder / name).mkdir()
        data.to_parquet(folder / name / "train.parquet")
        data.select(range(20)).to_parquet(folder / name / "validation.parquet")
    (folder / "side" / "files").mkdir(parents=True)
    for split, count in (("train", 80), ("validation", 20)):
        with (folder / "side" / f"{split}.csv").open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["image", "label"])
            for place, row in enumerate(images(count).cast_column("image", images(1).features["image"])):
                name = f"files/{split}{place}.png"
                row["image"].save(folder / "side" / name)
                writer.writerow([name, ("left", "right")[row["label"]]])
    recipe = {
        "encoder": {"text": TEXT, "image": RESNET, "audio": WHISPER, "table": {"hidden_size": 16}},
        "output_dir": "out",
        "data_dir": str(folder),
        "tasks": [
            {"name": name, "problem_type": "single_label_classification", "local_folder": name, **values}
            for name, values in TASKS.items()
        ],
        "max_steps": STEPS,
        "per_device_train_batch_size": 16,
        "learning_rate": 2.0e-4,
        "parts_learning_rate": 3.0e-3,
        "save_strategy": "steps",
        "save_steps": 12,
        "logging_steps": 1,
        "eval_strategy": "no",
        "baselines": False,
        "report_parts": False,
        "disable_tqdm": True,
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), "utf-8")
    return folder


@pytest.fixture(scope="module")
def checkpoint(workplace):
    done = hf_mtl(workplace, "train", "recipe.yaml", "--output_dir", "whole")
    assert done.returncode == 0, done.stderr
    return workplace / "whole"


def test_a_killed_run_ends_like_one_that_was_not(workplace, checkpoint):
    command = ("train", "recipe.yaml", "--output_dir")
    kill_when(workplace, "killed", lambda folder: steps_done(folder) >= 24, command)
    done = hf_mtl(workplace, *command, "killed")
    assert done.returncode == 0, done.stderr
    assert steps_done(workplace / "killed") == STEPS
    assert sha256(workplace / "killed" / "model.safetensors") == sha256(checkpoint / "model.safetensors")
    assert optimizer_state(workplace / "killed", STEPS) == optimizer_state(checkpoint, STEPS)


def test_one_row_is_answered_from_files(workplace, checkpoint):
    rng = np.random.default_rng(5)
    (workplace / "a.png").write_bytes(png(1, rng))
    (workplace / "a.wav").write_bytes(wav(0, rng))
    asked = ["--image", "a.png", "--audio", "a.wav", "--table", '{"age": 71, "kind": "b"}', "--text", "this was bad"]
    done = hf_mtl(workplace, "predict", "whole", *asked, "--json")
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    assert {name: answers[name]["label"] for name in RIGHT} == RIGHT and "mood" in answers
    alone = hf_mtl(workplace, "predict", "whole", "--audio", "a.wav")
    assert alone.returncode == 0 and "pitch" in alone.stdout and "low" in alone.stdout
    assert "side: not answered, needs --image" in alone.stderr and "old: not answered, needs --table" in alone.stderr


def test_files_of_rows_name_files_beside_them(workplace, checkpoint):
    rng = np.random.default_rng(6)
    (workplace / "rows").mkdir()
    (workplace / "rows" / "a.png").write_bytes(png(1, rng))
    (workplace / "rows" / "a.wav").write_bytes(wav(0, rng))
    with (workplace / "rows" / "in.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["image", "audio", "age", "kind"])
        writer.writeheader()
        writer.writerow({"image": "a.png", "audio": "a.wav"})
        writer.writerow({"age": "71", "kind": "b"})
        writer.writerow({"image": "lacking.png"})
        writer.writerow({"image": "a.png", "age": "", "kind": "new"})
    done = hf_mtl(workplace, "predict", "whole", "--file", "rows/in.csv", "--output", "out.jsonl")
    first, second, third, fourth = map(json.loads, (workplace / "out.jsonl").read_text("utf-8").splitlines())
    assert done.returncode == 1 and "lacking.png" in third["error"] and "line 4" in third["error"]
    assert {name: answer["label"] for name, answer in first["answers"].items() if name != "old"} == {
        "side": "right",
        "pitch": "low",
    }
    assert second["answers"]["old"]["label"] == "yes" and set(second["answers"]) == {"old"}
    assert fourth["answers"]["side"]["label"] == "right"


ABSENT = """
import json, sys
from transformers import AutoModel
model = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True)
row = {"image": "a.png", "audio": "a.wav", "table": {"age": 71, "kind": "b"}}
answers = model.predict([row])[0]
assert "hf_mtl" not in sys.modules
print(json.dumps({name: answer["label"] for name, answer in answers.items()}))
"""


def test_a_checkpoint_answers_where_this_package_is_not(workplace, checkpoint):
    rng = np.random.default_rng(5)
    (workplace / "a.png").write_bytes(png(1, rng))
    (workplace / "a.wav").write_bytes(wav(0, rng))
    # Without the path on which the package lies.
    cleared = {name: value for name, value in environment(workplace).items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", ABSENT, str(checkpoint)], cwd=workplace, env=cleared, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == RIGHT


def test_the_card_shows_how_a_file_is_asked(checkpoint):
    card = (checkpoint / "README.md").read_text("utf-8")
    for flags in ("--image image.png", "--audio sound.wav", "--file rows.csv --output answers.csv"):
        assert f"hf-mtl predict whole {flags}\n" in card
    assert "# side, pitch: what they say of image.png and sound.wav, files of your own" in card


@pytest.mark.skipif(not DATA.is_dir(), reason=f"needs the real data in {DATA}")
@pytest.mark.parametrize(("name", "passes"), [("multimnist", "4"), ("fsdd", "5"), ("census_income", "1")])
def test_a_recipe_learns_from_some_of_its_rows(workplace, name, passes):
    """The whole recipes and their figures: recipes/<name>/README.md."""
    few = ("--max_train_samples", "2000", "--max_eval_samples", "300", "--num_train_epochs", passes)
    quiet = ("--save_strategy", "no", "--eval_strategy", "no", "--load_best_model_at_end", "false")
    command = ("train", str(RECIPES / name / "train.yaml"), "--data_dir", str(DATA), "--output_dir", name)
    done = hf_mtl(workplace, *command, *few, *quiet, "--report_parts", "false")
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines() if line.endswith("  trivial")]
    scores = {(task, metric): (float(score), float(trivial)) for task, metric, score, trivial, _ in lines}
    # Of the census by AUC: hardly anybody earns so much.
    kind = "auc" if name == "census_income" else "accuracy"
    judged = [pair for (_, metric), pair in scores.items() if metric == kind]
    assert len(judged) == 2 and all(score >= trivial + 20 for score, trivial in judged), done.stdout
