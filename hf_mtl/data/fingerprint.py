"""A hash of rows' content, by which caches and checkpoints know them again."""

import pyarrow as pa
import xxhash
from datasets import Dataset

_ROWS_AT_ONCE = 10_000


def fingerprint_rows(rows: Dataset) -> str:
    """Return a hash of the rows' columns and values, in order.

    Equal rows have equal hashes, wherever they were read from and however they are held in memory; another value, row,
    order or column gives another hash.
    """
    hashed = xxhash.xxh3_128()
    names = sorted(rows.column_names)
    plain = rows.with_format("arrow").select_columns(names)
    hashed.update(repr([(name, str(rows.features[name])) for name in names]).encode())
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        _add(hashed, plain[start : start + _ROWS_AT_ONCE])
    return hashed.hexdigest()


def _add(hashed: xxhash.xxh3_128, table: pa.Table) -> None:
    # Written anew, so that slices, chunks and offsets of a table in memory do not count.
    sink = pa.BufferOutputStream()
    whole = table.replace_schema_metadata(None).combine_chunks()
    with pa.ipc.new_stream(sink, whole.schema) as writer:
        writer.write_table(whole.take(pa.array(range(len(whole)))))
    hashed.update(sink.getvalue())
