"""A task's splits, from files, folders and packages."""

import csv
import dataclasses
import json
import time

import pytest
from datasets import Dataset, config, load_dataset
from huggingface_hub import constants

from hf_mtl import InputError, TaskSpec, load_mixture
from hf_mtl.data.canonical import canonical_splits
from hf_mtl.data.loading import load_splits
from hf_mtl.data.mixture import mixture_from_datasets
from hf_mtl.modeling import encoder_loading

COLUMNS = {
    "text": ["plain", 'with "quotes", commas', "trailing blank ", "ümlaut – dash", "two\nlines", "tab\there"],
    "label": [0, 1, 1, 0, 2, 0],
}
ROWS = [dict(zip(COLUMNS, values)) for values in zip(*COLUMNS.values())]


def write(path, rows):
    """Write rows in the format of the path's ending."""
    data = Dataset.from_list(rows)
    if path.suffix == ".parquet":
        data.to_parquet(str(path))
    elif path.suffix in (".csv", ".tsv"):
        data.to_csv(str(path), index=False, **(UNQUOTED if path.suffix == ".tsv" else {}))
    else:
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


def many_rows(count=400):
    return [{"text": f"the text of row number {index % 390}", "label": index % 2} for index in range(count)]


def spec_of(**settings):
    return TaskSpec(name="task", problem_type="single_label_classification", **settings)


ENDINGS = (".parquet", ".jsonl", ".json", ".csv", ".tsv")

# A tsv has neither quotes around a text nor tabs and line ends inside one.
UNQUOTED = {"sep": "\t", "quoting": csv.QUOTE_NONE}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Converted files belong to the test."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_format_gives_the_same_rows(tmp_path, ending):
    rows = ROWS[:4] if ending == ".tsv" else ROWS
    write(tmp_path / f"train{ending}", rows)
    write(tmp_path / f"validation{ending}", ROWS[:2])
    files = {split: str(tmp_path / f"{split}{ending}") for split in ("train", "validation")}
    for spec in (spec_of(data_files=files), spec_of(dataset=str(tmp_path))):
        found, local, places = load_splits(spec)
        assert not local
        canonical = canonical_splits(spec, found, local, places)
        assert canonical["train"].to_list() == rows
        assert canonical["validation"].to_list() == ROWS[:2]


def test_odd_line_breaks_inside_a_text_do_not_end_a_line(tmp_path):
    """JSON may hold U+2028 and U+0085 as they are, and `str.splitlines` would split there."""
    rows = [{"text": "first\u2028second\x85third", "label": 0}, ROWS[1]]
    write(tmp_path / "train.jsonl", rows)
    write(tmp_path / "validation.jsonl", rows)
    assert load_splits(spec_of(dataset=str(tmp_path)))[0]["train"].to_list() == rows


def test_files_of_a_split_may_differ_in_format(tmp_path):
    write(tmp_path / "train.csv", ROWS)
    write(tmp_path / "dev.parquet", ROWS[:3])
    write(tmp_path / "held_out.jsonl", ROWS[:1])
    files = {"train": "train.csv", "validation": "dev.parquet", "test": "held_out.jsonl"}
    found, _, places = load_splits(spec_of(data_files={split: str(tmp_path / name) for split, name in files.items()}))
    assert {split: len(rows) for split, rows in found.items()} == {"train": 6, "validation": 3, "test": 1}
    assert [places[split].name(0) for split in files] == [
        f"{tmp_path}/train.csv, line 2",
        f"{tmp_path}/dev.parquet, row 1",
        f"{tmp_path}/held_out.jsonl, line 1",
    ]


@pytest.mark.parametrize(("settings", "folder"), [({}, "task"), ({"local_folder": "elsewhere"}, "elsewhere")])
def test_a_data_folder_replaces_the_hub(tmp_path, settings, folder):
    (tmp_path / folder).mkdir()
    for split in ("train", "validation"):
        write(tmp_path / folder / f"{split}.jsonl", ROWS)
    found, local, _ = load_splits(spec_of(dataset="some/name", **settings), str(tmp_path))
    assert local
    assert found["train"].to_list() == ROWS


def test_a_package_ships_data():
    for name in ("intent", "urgency", "entities", "flags"):
        found, local, _ = load_splits(
            spec_of(dataset=f"package:hf_mtl/data/support_desk/{name}"), "data_dir_is_not_read"
        )
        assert not local
        assert min(len(rows) for rows in found.values()) > 100


@pytest.mark.parametrize(
    ("files", "content", "says"),
    [
        ({"train": "absent.csv", "validation": "rows.jsonl"}, None, ["absent.csv", "no file"]),
        ({"train": "rows.jsonl"}, None, ["no validation split", "found train"]),
        ({"validation": "rows.jsonl"}, None, ["no train split", "found validation"]),
        ({"train": "rows.jsonl", "validation": "odd.xlsx"}, "", ["odd.xlsx", ".parquet", ".jsonl", "csv (UTF-8)"]),
        ({"train": "rows.jsonl", "validation": "odd.jsonl"}, "", ["validation split", "no rows", "odd.jsonl"]),
        ({"train": "rows.jsonl", "validation": "odd.jsonl"}, '{"text": "a"}\n{"text": \n', ["odd.jsonl", "line 2"]),
        ({"train": "rows.jsonl", "validation": "odd.jsonl"}, '"just a text"\n', ["odd.jsonl, line 1", "object"]),
        (
            {"train": "rows.jsonl", "validation": "odd.jsonl"},
            '{"label": 1}\n{"label": "a"}\n',
            ["odd.jsonl, line 2", "line 1"],
        ),
        ({"train": "rows.jsonl", "validation": "odd.jsonl"}, b'{"text": "\xff"}\n', ["odd.jsonl, line 1", "0xff"]),
        ({"train": "rows.jsonl", "validation": "odd.csv"}, "", ["odd.csv", "no rows"]),
        ({"train": "rows.jsonl", "validation": "odd.csv"}, "text,label\n", ["odd.csv", "no rows"]),
        ({"train": "rows.jsonl", "validation": "odd.csv"}, 'text,label\n"open,1\n', ["odd.csv, line 2", "not closed"]),
        ({"train": "rows.jsonl", "validation": "odd.parquet"}, "no parquet", ["odd.parquet", "cannot be read"]),
    ],
)
def test_files_that_cannot_be_used(tmp_path, files, content, says):
    write(tmp_path / "rows.jsonl", ROWS)
    odd = next((name for name in files.values() if name.startswith("odd")), None)
    if odd:
        (tmp_path / odd).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as error:
        load_splits(spec_of(data_files={split: str(tmp_path / name) for split, name in files.items()}))
    for part in ["'task'", *says]:
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("settings", "data_dir", "says"),
    [
        ({}, None, "--data_dir"),
        ({"dataset": "./nowhere"}, None, "nowhere"),
        ({"dataset": "some/name"}, ".", "local_folder"),
        ({"dataset": "package:hf_mtl/data/nowhere"}, None, "no folder"),
        ({"dataset": "package:no_such_package/data"}, None, "pip install no-such-package"),
    ],
)
def test_data_that_is_not_there(tmp_path, monkeypatch, settings, data_dir, says):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as error:
        load_splits(spec_of(**settings), data_dir)
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("own", "common", "expected"), [(None, None, 6), (None, 4, 4), (3, None, 3), (5, 2, 2), (2, 5, 2)]
)
def test_caps(tmp_path, own, common, expected):
    """The smaller of both caps holds; the seed says which rows stay, in their order."""
    write(tmp_path / "train.jsonl", ROWS)
    write(tmp_path / "validation.jsonl", ROWS)

    def draw(seed):
        spec = spec_of(dataset=str(tmp_path), max_train_samples=own)
        return load_mixture([spec], exclude_overlap=False, max_train_samples=common, seed=seed)

    texts = list(draw(1).train["task"]["text"])
    assert len(texts) == expected
    assert texts == [text for text in COLUMNS["text"] if text in texts]
    assert texts == list(draw(1).train["task"]["text"])
    assert len(draw(1).validation["task"]) == len(ROWS)


def test_rows_are_held_out_where_there_is_no_validation_split(tmp_path):
    """By a hash of the input: equal inputs stay on one side, in every task, and rows added later move none."""
    for name, rows in {"one": many_rows(), "two": many_rows(500)[::-1]}.items():
        (tmp_path / name).mkdir()
        write(tmp_path / name / "train.parquet", rows)
    specs = [dataclasses.replace(spec_of(validation_share=0.2), name=name) for name in ("one", "two")]
    mixture = load_mixture(specs, str(tmp_path), exclude_overlap=True)
    for name, count in (("one", 400), ("two", 500)):
        train, held_out = set(mixture.train[name]["text"]), set(mixture.validation[name]["text"])
        assert not train & held_out and len(train | held_out) == 390
        assert len(mixture.train[name]) + len(mixture.validation[name]) == count
        assert 0.1 < len(held_out) / 390 < 0.3
    assert set(mixture.validation["one"]["text"]) == set(mixture.validation["two"]["text"])
    assert not any(mixture.dropped.values())


def test_a_split_that_is_missing_is_named_with_the_way_out(tmp_path):
    (tmp_path / "task").mkdir()
    write(tmp_path / "task" / "train.jsonl", many_rows(4))
    with pytest.raises(InputError, match="no validation split; found train. Hold rows out with `validation_share: 0"):
        load_mixture([spec_of()], str(tmp_path))
    with pytest.raises(InputError, match="leaves none to train on or none to hold out"):
        load_mixture([spec_of(validation_share=0.001)], str(tmp_path))
    for share in (0, 1, -0.1, 2):
        with pytest.raises(InputError, match="expected a number between 0 and 1"):
            spec_of(validation_share=share)


def test_rows_are_held_out_of_data_sets_in_memory_too():
    spec = spec_of(validation_share=0.2, labels=["no", "yes"])
    mixture = mixture_from_datasets({"task": Dataset.from_list(many_rows())}, None, [spec])
    assert len(mixture.train["task"]) + len(mixture.validation["task"]) == 400 and len(mixture.validation["task"]) > 20


@pytest.fixture
def kept(tmp_path):
    """A data set of the Hub in the cache, as an earlier run left it there."""
    write(tmp_path / "rows.jsonl", many_rows(6))
    files = dict.fromkeys(("train", "validation"), str(tmp_path / "rows.jsonl"))
    load_dataset("json", data_files=files, cache_dir=str(tmp_path / "made"))
    made = next((tmp_path / "made").rglob("dataset_info.json")).parent
    place = tmp_path / "cache" / "team___moods" / "plain" / "0.0.0" / made.name
    place.parent.mkdir(parents=True)
    made.rename(place)
    for file in place.glob("json-*"):
        file.rename(place / file.name.replace("json", "moods"))
    info = json.loads((place / "dataset_info.json").read_text())
    info.update(config_name="plain", dataset_name="moods")
    (place / "dataset_info.json").write_text(json.dumps(info))


@pytest.mark.parametrize("subset", [None, "plain"])
@pytest.mark.parametrize("said", [False, True])
def test_without_the_hub_the_cache_is_read_at_once(kept, monkeypatch, said, subset):
    """Whether somebody says that there is no network or not; nothing is set for the process."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", said)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(config, "HF_HUB_OFFLINE", said)
    encoder_loading._answers.cache_clear()
    start = time.monotonic()
    found, local, _ = load_splits(spec_of(dataset="team/moods", subset=subset))
    assert found["train"].to_list() == found["validation"].to_list() == many_rows(6) and not local
    for missing in ({"dataset": "team/others"}, {"dataset": "team/moods", "subset": "other"}):
        with pytest.raises(InputError, match="the Hub is out of reach and it is not in the local cache.*--data_dir"):
            load_splits(spec_of(**missing))
    encoder_loading._answers.cache_clear()
    assert time.monotonic() - start < 5
    assert constants.HF_HUB_OFFLINE is said and config.HF_HUB_OFFLINE is said
