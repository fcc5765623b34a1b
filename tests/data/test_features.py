"""Features: read in batches as one by one, and kept between runs by what they are made of."""

import copy
import multiprocessing
import os
import pickle
import subprocess
import sys
import time
from multiprocessing.reduction import ForkingPickler

import datasets
import numpy as np
import pyarrow as pa
import pytest
import torch
from datasets import Dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import normalizers
from torch.utils.data import DataLoader
from transformers import AutoTokenizer, BertTokenizer, PreTrainedTokenizerBase

from benchmarks import loading
from hf_mtl.data import feature_cache, feature_rows, features
from hf_mtl.data.collator import Batch, MultiTaskCollator
from hf_mtl.data.features import FeatureDataset
from hf_mtl.data.mixture import mixture_from_datasets
from hf_mtl.modeling.processing_multitask import MultiTaskProcessor
from hf_mtl.tasks import TaskSpec
from tests.conftest import DATA
from tests.training.test_step_loss import datasets as step_datasets
from tests.training.test_step_loss import trainer

TEXTS = [f"{'very ' * (index % 5)}good text number {index} of the shop" for index in range(30)]
ROWS = 120


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of the test's own."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache" / "hf_mtl"


@pytest.fixture
def calls(monkeypatch) -> list[int]:
    """The number of texts of each call of a tokenizer."""
    counted, call = [], PreTrainedTokenizerBase.__call__

    def counting(self, text, *args, **kwargs):
        counted.append(len(text))
        return call(self, text, *args, **kwargs)

    monkeypatch.setattr(PreTrainedTokenizerBase, "__call__", counting)
    return counted


def mixed_rows() -> dict[str, Dataset]:
    """Every problem type, and three tasks of one source with holes."""
    index = range(len(TEXTS))
    return {
        "pair": {"text": TEXTS, "text_pair": TEXTS[::-1], "label": [place % 3 for place in index]},
        "flags": {"text": TEXTS, "label": [[["p", "q"], [], ["r"]][place % 3] for place in index]},
        "span": {
            "question": ["what number?"] * 30,
            "context": [" ".join(TEXTS[place : place + 4]) for place in index],
            "label": [{"text": ["good"], "answer_start": [text.index("good")]} for text in TEXTS],
        },
        "pick": {
            "text": TEXTS,
            "choices": [["one", "or the other", "none at all"][: 2 + place % 2] for place in index],
            "label": [place % 2 for place in index],
        },
        "reviews": {
            "text": TEXTS,
            "tokens": [text.split() for text in TEXTS],
            "mood": [["bad", "good", None][place % 3] for place in index],
            "stars": [None if place % 2 else float(place) for place in index],
            "tags": [None if place == 5 else ["O"] * len(text.split()) for place, text in enumerate(TEXTS)],
        },
    }


def mixed_specs() -> list[TaskSpec]:
    source = {"source": "reviews"}
    single = "single_label_classification"
    return [
        TaskSpec(name="pair", problem_type=single, labels=["a", "b", "c"], fields=["text", "text_pair"]),
        TaskSpec(name="flags", problem_type="multi_label_classification", labels=["p", "q", "r"]),
        TaskSpec(name="span", problem_type="question_answering", max_length=24, stride=4),
        TaskSpec(name="pick", problem_type="multiple_choice"),
        TaskSpec(name="mood", problem_type=single, columns={"label": "mood"}, **source),
        TaskSpec(name="stars", problem_type="regression", columns={"label": "stars"}, **source),
        TaskSpec(name="tags", problem_type="token_classification", columns={"label": "tags"}, **source),
    ]


def mixed_features(tokenizer) -> FeatureDataset:
    rows = {name: Dataset.from_dict(columns) for name, columns in mixed_rows().items()}
    mixture = mixture_from_datasets(rows, None, mixed_specs())
    processor = MultiTaskProcessor(tokenizer, [spec.to_config() for spec in mixture.specs])
    return FeatureDataset(processor, {spec.name: spec for spec in mixture.specs}, mixture.train)


def expected_items(data: FeatureDataset, processor: MultiTaskProcessor) -> list[dict]:
    """Every item as the processor's own features say."""
    items = []
    for names in data.tasks_of.values():
        of_source: dict = {}
        for name in names:
            rows = data.rows[name][:]
            if name == "flags":
                rows["label"] = [[float(flag in label) for flag in range(3)] for label in rows["label"]]
            for place, feature in enumerate(processor.features(data.specs[name], rows)):
                lengths = [len(sequence) for sequence in feature["sequences"]]
                feature |= {"length": max(lengths), "pieces": len(lengths)}
                row = rows["source_row"][feature["source"]] if len(names) > 1 else place
                entry = {"task": processor.indices[name], "name": name, "labels": feature.pop("labels")}
                of_source.setdefault((row, str(feature["sequences"])), []).append({**entry, "feature": feature})
        for key in sorted(of_source, key=lambda key: key[0]):
            first = of_source[key][0]["feature"]
            inputs = {"sequences": first["sequences"], "segments": first["segments"]}
            items.append({**inputs, "entries": of_source[key]})
    return items


@pytest.mark.parametrize("chunk_numbers", [2**30, 2000], ids=["one chunk", "several chunks"])
def test_items_are_what_the_processor_makes_of_the_rows(tokenizer, monkeypatch, chunk_numbers):
    monkeypatch.setattr(feature_rows, "_CHUNK_NUMBERS", chunk_numbers)
    data = mixed_features(tokenizer)
    expected = expected_items(data, MultiTaskProcessor(tokenizer, [spec.to_config() for spec in data.specs.values()]))
    chunks = [len(table.data.column("length").chunks) for table in data.features.values()]
    assert (max(chunks) > 1) == (chunk_numbers < 2**30)
    assert len(data) == sum(data.sizes.values()) == len(expected)
    assert data.__getitems__(range(len(data))) == expected
    assert data.costs.lengths.tolist() == [max(map(len, item["sequences"])) for item in expected]
    assert data.costs.sequences.tolist() == [len(item["sequences"]) for item in expected]
    # Windows make more items than rows, and what three tasks read of one row is one item.
    assert data.sizes["span"] > len(TEXTS)
    assert data.sizes["reviews"] == len(TEXTS) - 1  # row 5 has no label of any task
    assert {len(item["entries"]) for item in expected} == {1, 2, 3}


@pytest.fixture(scope="module")
def mixed(tokenizer) -> FeatureDataset:
    return mixed_features(tokenizer)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 200), max_size=40))
def test_a_batch_is_its_items_one_by_one(mixed, indices):
    indices = [index % len(mixed) for index in indices]
    assert mixed.__getitems__(indices) == [mixed[index] for index in indices]


@pytest.mark.parametrize("indices", [[-1], [10_000], [0, 10_000]])
def test_there_are_no_items_outside(mixed, indices):
    with pytest.raises(IndexError, match="items 0 to"):
        mixed.__getitems__(indices)


def test_columns_of_features_can_be_read(mixed):
    """The doctor and users read them so."""
    assert mixed.features["pair"]["labels"][:4] == [0, 1, 2, 0]
    assert len(mixed.features["span"]["offsets"][0]) == len(mixed.features["span"]["sequences"][0][0])
    assert mixed.truncated == dict.fromkeys(mixed.specs, 0)


VALUES = [
    [[1, 2], None, [], [3]],
    [None, None],
    [[[1], []], [[2, 3]]],
    [["a", "b"], []],
    [1.5, float("inf"), -0.0],
    [True, False],
    [2**40, 1],
    [[], []],
]


@pytest.mark.parametrize("values", VALUES, ids=str)
def test_any_column_is_read_as_it_was_given(values):
    data = Dataset(feature_rows.join_tables([feature_rows.table_of([{"x": value} for value in values])] * 2))
    places = np.array([len(values), 0, 1, len(values) + 1, 1])
    assert feature_rows.FeatureRows(data).read(places) == [{"x": (values * 2)[place]} for place in places]


def test_tables_whose_first_rows_lack_values_are_joined():
    tables = [feature_rows.table_of([{"x": value}]) for value in (None, [], [1], [2**40])]
    joined = Dataset(feature_rows.join_tables(tables))
    assert [row["x"] for row in feature_rows.FeatureRows(joined).read(np.arange(4))] == [None, [], [1], [2**40]]


def test_workers_read_the_same_batches(mixed, tokenizer):
    processor = MultiTaskProcessor(tokenizer, [spec.to_config() for spec in mixed.specs.values()])
    batches = np.random.default_rng(0).permutation(len(mixed))[:96].reshape(-1, 16).tolist()
    options = {"batch_sampler": batches, "collate_fn": MultiTaskCollator(processor)}
    alone, workers = (list(DataLoader(mixed, num_workers=count, **options)) for count in (0, 2))
    for one, other in zip(alone, workers, strict=True):
        assert_same(one, other)


def assert_same(one: dict, other: dict) -> None:
    """Compare batches, bit for bit."""
    assert list(one) == list(other)
    for name, value in one.items():
        if isinstance(value, dict):
            assert_same(value, other[name])
        else:
            assert value.dtype == other[name].dtype
            assert torch.equal(value, other[name])


def test_a_batch_is_sent_whole(mixed, tokenizer):
    """Between processes, and copied as other dicts are; what arrives can be written to."""
    processor = MultiTaskProcessor(tokenizer, [spec.to_config() for spec in mixed.specs.values()])
    batch = MultiTaskCollator(processor)(mixed.__getitems__([0, 40, 70, 100, 140]))
    beside, sent = ForkingPickler.loads(ForkingPickler.dumps((["entries"], batch)))
    assert beside == ["entries"]
    for copied in (sent, copy.copy(batch), copy.deepcopy(batch), pickle.loads(pickle.dumps(batch))):
        assert type(copied) is Batch
        assert_same(batch, copied)
    sent["input_ids"][0, 0] = 7
    assert sent["input_ids"][0, 0] == 7 != batch["input_ids"][0, 0]


@pytest.mark.slow
def test_workers_change_no_score(tmp_path, tokenizer):
    """A run and its evaluation, with workers and without."""
    logs = []
    for count in (0, 2):
        arguments = {"num_train_epochs": 1, "per_device_train_batch_size": 6, "dataloader_num_workers": count}
        own = trainer(tmp_path / str(count), tokenizer, validation=step_datasets(), logging_steps=1, **arguments)
        own.train()
        losses = [entry["loss"] for entry in own.state.log_history if "loss" in entry]
        scores = {key: value for key, value in own.evaluate().items() if key.endswith(("loss", "average"))}
        logs.append((losses, scores))
    assert logs[0] == logs[1]
    assert len(logs[0][0]) == 10


@pytest.mark.slow
def test_the_benchmark_of_loading_ends_with_a_ratio(capsys):
    if not (DATA / "lingnli").is_dir():
        pytest.skip(f"{DATA} has no lingnli")
    loading.main(["--data_dir", str(DATA), "--rows", "3000", "--rounds", "3", "--batches", "100"])
    lines = capsys.readouterr().out.splitlines()
    name, ratio = lines[-1].split(": ")
    assert name == "ratio"
    # Far below the goal: machines are busy with other things.
    assert float(ratio) > 1.2
    runs = [line.split() for line in lines if " second " in line]
    first = [line.split() for line in lines if line.startswith("batches") and " first " in line]
    assert len(runs) == 2
    assert float(runs[0][2]) < float(first[0][2])


def reference_batch(items, pad) -> dict[str, torch.Tensor]:
    """Padding by lists."""
    sequences = [sequence for item in items for sequence in item["sequences"]]
    segments = [segment for item in items for segment in item["segments"]]
    length = max(map(len, sequences))

    def padded(rows, fill):
        return torch.tensor([row + [fill] * (length - len(row)) for row in rows])

    mask = padded([[1] * len(sequence) for sequence in sequences], 0)
    return {"input_ids": padded(sequences, pad), "attention_mask": mask, "token_type_ids": padded(segments, 0)}


@pytest.mark.parametrize("pad", [0, 5])
def test_padding_is_that_of_lists(mixed, tokenizer, pad):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(pad)
    processor = MultiTaskProcessor(tokenizer, [spec.to_config() for spec in mixed.specs.values()])
    for seed in range(20):
        items = mixed.__getitems__(np.random.default_rng(seed).integers(len(mixed), size=12))
        batch, expected = processor.collate(items), reference_batch(items, pad)
        for name, tensor in expected.items():
            assert batch[name].dtype == tensor.dtype
            assert torch.equal(batch[name], tensor)


LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "text", "very"]
VOCABULARY = {piece: place for place, piece in enumerate([*PIECES, *LETTERS, *(f"##{letter}" for letter in LETTERS)])}


@pytest.fixture
def letters() -> BertTokenizer:
    """A tokenizer of few words and all letters."""
    return BertTokenizer(vocab=VOCABULARY)


def sentences(count: int = ROWS) -> Dataset:
    return Dataset.from_dict(
        {"text": [f"{TEXTS[place % 30]} {place}" for place in range(count)], "label": [0] * count}
    )


def one_task(tokenizer, rows: Dataset | None = None, **changes) -> FeatureDataset:
    values = {"name": "mood", "problem_type": "single_label_classification", "labels": ["no", "yes"], **changes}
    spec = TaskSpec(**values)
    return FeatureDataset(
        MultiTaskProcessor(tokenizer, [spec.to_config()]), {spec.name: spec}, {spec.name: rows or sentences()}
    )


SCRIPT = """
import sys
from pathlib import Path

import datasets
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from hf_mtl.data.features import FeatureDataset
from hf_mtl.modeling.processing_multitask import MultiTaskProcessor
from hf_mtl.tasks import TaskSpec

datasets.config.HF_DATASETS_CACHE = Path(sys.argv[1])
calls, call = [], PreTrainedTokenizerBase.__call__
PreTrainedTokenizerBase.__call__ = lambda self, *args, **kwargs: calls.append(1) or call(self, *args, **kwargs)
spec = TaskSpec(name="mood", problem_type="single_label_classification", labels=["no", "yes"])
processor = MultiTaskProcessor(AutoTokenizer.from_pretrained(sys.argv[2]), [spec.to_config()])
rows = datasets.Dataset.from_json(sys.argv[3])
data = FeatureDataset(processor, {"mood": spec}, {"mood": rows})
print(len(calls), [item["sequences"] for item in data.__getitems__([3, 119])])
"""


def test_another_process_does_not_call_the_tokenizer(letters, cache, tmp_path):
    data = one_task(letters)
    letters.save_pretrained(tmp_path / "tokenizer")
    sentences().to_json(tmp_path / "rows.jsonl")
    places = [cache.parent, tmp_path / "tokenizer", tmp_path / "rows.jsonl"]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *map(str, places)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == f"0 {[item['sequences'] for item in data.__getitems__([3, 119])]}"
    assert "Tokenising" not in done.stderr


def test_what_does_not_shape_features_tokenises_nothing_again(letters, calls, tmp_path):
    one_task(letters)
    assert sum(calls) == ROWS
    letters(["a call of its own"], truncation=True, padding="max_length", max_length=3)
    letters.save_pretrained(tmp_path / "elsewhere")
    calls.clear()
    one_task(letters, weight=2.0, learning_rate=1e-3, metrics=["f1_macro"])
    one_task(letters, name="other", threshold=0.1)
    one_task(letters, sentences().select([*range(ROWS)]))
    one_task(AutoTokenizer.from_pretrained(tmp_path / "elsewhere"))
    assert calls == []


def changed_rows(tokenizer) -> FeatureDataset:
    return one_task(tokenizer, Dataset.from_dict({**sentences()[:], "text": [*sentences()["text"][1:], "another"]}))


def changed_label(tokenizer) -> FeatureDataset:
    return one_task(tokenizer, Dataset.from_dict({**sentences()[:], "label": [0] * (ROWS - 1) + [1]}))


def added_token(tokenizer) -> FeatureDataset:
    tokenizer.add_tokens(["shop"])
    return one_task(tokenizer)


def another_normaliser(tokenizer) -> FeatureDataset:
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("good", "bad")
    return one_task(tokenizer)


def other_side(tokenizer) -> FeatureDataset:
    tokenizer.truncation_side = "left"
    return one_task(tokenizer, max_length=8)


def no_segments(tokenizer) -> FeatureDataset:
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    return one_task(tokenizer)


def shortest_model(tokenizer) -> FeatureDataset:
    tokenizer.model_max_length = 6
    return one_task(tokenizer)


CHANGES = {
    "rows": changed_rows,
    "label": changed_label,
    "number": lambda tokenizer: one_task(tokenizer, sentences(ROWS + 1)),
    "max_length": lambda tokenizer: one_task(tokenizer, max_length=6),
    "labels": lambda tokenizer: one_task(tokenizer, labels=["no", "yes", "maybe"]),
    "token": added_token,
    "normaliser": another_normaliser,
    "truncation_side": other_side,
    "segments": no_segments,
    "model_max_length": shortest_model,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_shapes_features_tokenises_again(letters, calls, change, monkeypatch):
    one_task(letters)
    one_task(letters, max_length=8)
    calls.clear()
    kept = change(copy.deepcopy(letters))
    assert sum(calls) >= ROWS
    # What is read is what was just made, as it is without a cache.
    monkeypatch.setattr(features, "_LEAST_CACHED_ROWS", 10_000)
    fresh = change(copy.deepcopy(letters))
    assert kept.__getitems__(range(ROWS)) == fresh.__getitems__(range(ROWS))


def test_other_code_tokenises_again(letters, calls, monkeypatch):
    one_task(letters)
    calls.clear()
    monkeypatch.setattr(feature_cache, "_code_key", lambda: "another version")
    one_task(letters)
    assert sum(calls) >= ROWS


def test_few_rows_and_rows_read_once_are_not_kept(letters, cache):
    one_task(letters, sentences(features._LEAST_CACHED_ROWS - 1))
    spec = TaskSpec(name="mood", problem_type="single_label_classification", labels=["no", "yes"])
    processor = MultiTaskProcessor(letters, [spec.to_config()])
    FeatureDataset(processor, {"mood": spec}, {"mood": sentences()}, progress=False)
    assert not cache.exists()


def test_disabled_caching_keeps_nothing(letters, cache, calls):
    datasets.disable_caching()
    try:
        first, second = one_task(letters), one_task(letters)
    finally:
        datasets.enable_caching()
    assert sum(calls) == 2 * ROWS
    assert not cache.exists()
    assert first[7] == second[7]


def test_a_folder_that_cannot_be_written_is_said(letters, cache, monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(feature_cache.logger, "warning", said.append)
    cache.parent.write_text("no folder")
    assert len(one_task(letters)) == ROWS
    assert len(said) == 1
    assert "every run will tokenise them anew" in said[0]
    assert "HF_DATASETS_CACHE" in said[0]


def some_table() -> pa.Table:
    return pa.table({"x": [1, 2, 3]})


def test_a_run_that_is_stopped_leaves_no_half_file(cache, monkeypatch):
    class Stopped(Exception):
        pass

    def stop(*args):
        raise Stopped

    monkeypatch.setattr(os, "fsync", stop)
    for make in (stop, some_table):
        with pytest.raises(Stopped):
            feature_cache.cached_features("k", make)
        assert not list(cache.glob("*.arrow"))
        assert not list(cache.glob("*.incomplete"))


def test_what_a_killed_run_left_is_not_read(cache):
    cache.mkdir(parents=True)
    (cache / "features-k.incomplete").write_bytes(b"half of it")
    assert feature_cache.cached_features("k", some_table)["x"][:] == [1, 2, 3]
    assert [path.suffix for path in cache.iterdir() if path.suffix != ".lock"] == [".arrow"]


@pytest.mark.parametrize("kept", [0, 0.3, 0.9, 1], ids=["nothing", "its head", "most of it", "a batch too few"])
def test_a_part_of_a_file_is_made_again(cache, kept):
    table = pa.concat_tables([pa.table({"x": np.arange(1000)})] * 4)
    feature_cache.cached_features("k", lambda: table)
    path = cache / "features-k.arrow"
    whole = path.read_bytes()
    with pa.ipc.open_stream(path) as reader, pa.ipc.new_stream(cache / "short", reader.schema) as writer:
        for _ in range(3):
            writer.write_batch(reader.read_next_batch())
    path.write_bytes((cache / "short").read_bytes() if kept == 1 else whole[: int(kept * len(whole))])
    assert len(feature_cache.cached_features("k", lambda: table)) == 4000
    assert path.read_bytes() == whole


def make_slowly(notes: str) -> None:
    def make() -> pa.Table:
        with open(notes, "a") as file:
            file.write("made\n")
        time.sleep(0.3)
        return some_table()

    assert feature_cache.cached_features("k", make)["x"][:] == [1, 2, 3]


def test_of_several_processes_one_tokenises(tmp_path):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=make_slowly, args=(str(tmp_path / "notes"),)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0] * 4
    assert (tmp_path / "notes").read_text() == "made\n"


def test_a_worker_is_sent_where_features_stand_not_the_features(letters):
    small, large = one_task(letters, sentences(200)), one_task(letters, sentences(2000))
    sent = pickle.dumps(large)
    # Lengths of the rows, which the sampler reads; the features of a row take ten times as much.
    assert len(sent) - len(pickle.dumps(small)) < 40 * 1800
    assert pickle.loads(sent).__getitems__([0, 1999, 7]) == large.__getitems__([0, 1999, 7])
