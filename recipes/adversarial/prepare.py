"""Makes the folder that the recipes `adversarial` and `many_tasks` read, of a copy of FDU-MTL.

Run: python recipes/adversarial/prepare.py FOLDER [--output out/fdu_mtl]

FOLDER holds the authors' files (books.task.train, books.task.test, ...: a label, 0 or 1, a tab and a text, one a line)
or books/train.parquet and books/test.parquet (columns text and label). For each domain the three files
OUTPUT/books/{train,validation,test}.parquet are written. The data set has no validation split: a tenth of the training
rows becomes it. A hash of a row's letters and digits says which, so that texts that occur twice, in one domain or in
two, are on one side.
"""

import argparse
import zlib
from pathlib import Path

from datasets import ClassLabel, Dataset, Features, Value

from hf_mtl.data.overlap import normalised

DOMAINS = (
    "apparel",
    "baby",
    "books",
    "camera_photo",
    "dvd",
    "electronics",
    "health_personal_care",
    "imdb",
    "kitchen_housewares",
    "magazines",
    "mr",
    "music",
    "software",
    "sports_outdoors",
    "toys_games",
    "video",
)
FEATURES = Features({"text": Value("string"), "label": ClassLabel(names=["negative", "positive"])})
SPLITS = ("train", "test")


def read_split(folder: Path, domain: str, split: str) -> Dataset:
    """Return a domain's rows."""
    parquet = folder / domain / f"{split}.parquet"
    if parquet.is_file():
        return Dataset.from_parquet(str(parquet)).select_columns(list(FEATURES)).cast(FEATURES)
    # The authors write MR in capitals.
    files = [folder / f"{name}.task.{split}" for name in (domain, domain.upper())]
    found = next((path for path in files if path.is_file()), None)
    if found is None:
        raise SystemExit(f"There is neither {parquet} nor {files[0]}.")
    # Some lines hold bytes that are no UTF-8.
    lines = found.read_text("utf-8", errors="ignore").split("\n")
    rows = [line.strip().split("\t", 1) for line in lines if line.strip()]
    return Dataset.from_dict({"text": [row[1] for row in rows], "label": [int(row[0]) for row in rows]}, FEATURES)


def in_validation(text: str) -> bool:
    """Whether a training row is held out."""
    return zlib.crc32(normalised(text).encode()) % 10 == 0


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--output", type=Path, default=Path("out/fdu_mtl"))
    given = parser.parse_args()
    for domain in DOMAINS:
        train, test = (read_split(given.folder, domain, split) for split in SPLITS)
        held_out = [in_validation(text) for text in train["text"]]
        parts = {
            "train": train.select([row for row, out in enumerate(held_out) if not out]),
            "validation": train.select([row for row, out in enumerate(held_out) if out]),
            "test": test,
        }
        (given.output / domain).mkdir(parents=True, exist_ok=True)
        for split, rows in parts.items():
            rows.to_parquet(str(given.output / domain / f"{split}.parquet"))
        print(domain, *(f"{split} {len(rows)}" for split, rows in parts.items()))


if __name__ == "__main__":
    main()
