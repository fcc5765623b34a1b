"""Rows are known again by their content, and by nothing else."""

from datasets import Dataset, concatenate_datasets

from hf_mtl.data.fingerprint import fingerprint_rows

COLUMNS = {"text": ["a", "b", None, "d"], "label": [[1], [2, 3], [], [1]]}


def test_how_rows_are_held_does_not_count(tmp_path):
    rows = Dataset.from_dict(COLUMNS)
    parts = [rows.select(range(2)), rows.select([2, 3])]
    rows.to_parquet(tmp_path / "rows.parquet")
    before = Dataset.from_dict({"text": ["x", *COLUMNS["text"]], "label": [[9], *COLUMNS["label"]]})
    others = [
        concatenate_datasets(parts),
        Dataset.from_parquet(str(tmp_path / "rows.parquet"), cache_dir=str(tmp_path / "cache")),
        before.select(range(1, 5)),
        before.select([1, 2, 3, 4]),
        rows.select_columns(["label", "text"]),
    ]
    assert {fingerprint_rows(other) for other in others} == {fingerprint_rows(rows)}


def test_content_and_order_count():
    rows = Dataset.from_dict(COLUMNS)
    others = [
        rows.select([1, 0, 2, 3]),
        rows.select(range(3)),
        rows.rename_column("text", "body"),
        Dataset.from_dict({**COLUMNS, "text": ["a", "b", "", "d"]}),
        Dataset.from_dict({**COLUMNS, "label": [[1], [2], [3], [1]]}),
    ]
    assert len({fingerprint_rows(other) for other in [rows, *others]}) == 6
