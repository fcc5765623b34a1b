"""Features kept on the disk between runs, known again by what they are made of."""

import dataclasses
import json
import os
import tempfile
from collections.abc import Callable
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import pyarrow as pa
import tokenizers
import transformers
import xxhash
from datasets import Dataset, config, is_caching_enabled
from datasets.fingerprint import Hasher, get_temporary_cache_files_directory
from filelock import FileLock
from transformers import PreTrainedTokenizerBase
from transformers.utils.logging import get_logger

from ..tasks import TaskSpec
from .fingerprint import fingerprint_rows

logger = get_logger(__name__)

# Beside `modeling`, the modules whose code decides what features are.
_MODELING = f"{__package__.rpartition('.')[0]}.modeling"
_FEATURE_MODULES = ("features.py", "feature_rows.py")
# What the schema of a file calls its number of rows.
_ROW_COUNT = b"rows"
# What of a task its features do not depend on.
_UNREAD_SETTINGS = {
    "name",
    "reads",
    "threshold",
    "class_weights",
    "label_mean",
    "label_scale",
    "num_best",
    "mlm_probability",
}
# What of a fast tokenizer no encoding depends on: where it was read from, what its backend was made of (which stands
# in the backend), and what calls leave behind.
_UNREAD_STATE = {
    "_tokenizer",
    "_vocab",
    "_merges",
    "_should_update_post_processor",
    "_special_tokens_map",
    "init_inputs",
    "init_kwargs",
    "name_or_path",
    "vocab_file",
    "files_loaded",
    "deprecation_warnings",
    "chat_template",
    "response_template",
    "_processor_class",
    "verbose",
}


def tokenizer_key(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a hash of how a tokenizer encodes, wherever it was loaded from and whatever it encoded before."""
    if not tokenizer.is_fast:
        return Hasher.hash(tokenizer)
    # A call sets truncation and padding of its own.
    backend = {**json.loads(tokenizer.backend_tokenizer.to_str()), "truncation": None, "padding": None}
    state = {name: value for name, value in vars(tokenizer).items() if name not in _UNREAD_STATE}
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    return Hasher.hash((type(tokenizer), json.dumps(backend), special, state))


@lru_cache(maxsize=1)
def _code_key() -> str:
    """A hash of the code that makes features, so that none are read that another version made."""
    hashed = xxhash.xxh3_128()
    modules = [*files(_MODELING).iterdir(), *(files(__package__) / name for name in _FEATURE_MODULES)]
    for module in sorted(modules, key=lambda module: module.name):
        if module.name.endswith(".py") and module.is_file():
            hashed.update(module.read_bytes())
    return hashed.hexdigest()


def features_key(spec: TaskSpec, rows: Dataset, tokenizer: str) -> str:
    """Return the name under which the features of rows are kept.

    Args:
        spec: The task.
        rows: Its canonical rows.
        tokenizer: The tokenizer's `tokenizer_key`, and how many word pieces it gives at most.
    """
    settings = dataclasses.asdict(spec.with_settings().to_config())
    made_of: list[Any] = [
        tokenizer,
        {name: value for name, value in settings.items() if name not in _UNREAD_SETTINGS},
        fingerprint_rows(rows),
        [_code_key(), transformers.__version__, tokenizers.__version__],
    ]
    return xxhash.xxh3_128(json.dumps(made_of, sort_keys=True).encode()).hexdigest()


def cached_features(key: str, make: Callable[[], pa.Table]) -> Dataset:
    """Return the features that are kept under a key, mapped from their file; make them where there is none.

    Of several processes that want the same features one makes them, and the others wait for it. A file is whole from
    the moment it has its name. With `datasets.disable_caching()`, or where the cache's folder cannot be written,
    features are made anew in a folder that lasts as long as the process.
    """
    if not is_caching_enabled():
        return _made_for_this_process(make)
    folder = Path(config.HF_DATASETS_CACHE) / "hf_mtl"
    path = folder / f"features-{key}.arrow"
    features = _read(path)
    if features is not None:
        return features
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{path}.lock")
        lock.acquire()
    except OSError as error:
        logger.warning(
            f"Tokenised rows cannot be kept in {folder} ({error}); every run will tokenise them anew. Set "
            "HF_DATASETS_CACHE to a folder that can be written."
        )
        return _made_for_this_process(make)
    try:
        features = _read(path)
        return _write(make(), path) if features is None else features
    finally:
        lock.release()


def _made_for_this_process(make: Callable[[], pa.Table]) -> Dataset:
    folder = tempfile.mkdtemp(dir=get_temporary_cache_files_directory())
    return _write(make(), Path(folder) / "features.arrow")


def _read(path: Path) -> Dataset | None:
    """The features of a file, or None where there is none, or only a part of one that was copied here."""
    if not path.is_file():
        return None
    try:
        with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as reader:
            count = (reader.schema.metadata or {}).get(_ROW_COUNT)
        features = Dataset.from_file(str(path))
    except (pa.ArrowException, OSError):
        return None
    # A file that ends after one of its batches is read without an error.
    return features if count == str(len(features)).encode() else None


def _write(table: pa.Table, path: Path) -> Dataset:
    table = table.replace_schema_metadata({_ROW_COUNT: str(len(table))})
    unfinished = path.with_suffix(".incomplete")
    try:
        with unfinished.open("wb") as file:
            with pa.ipc.new_stream(file, table.schema) as writer:
                writer.write_table(table)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return Dataset.from_file(str(path))
