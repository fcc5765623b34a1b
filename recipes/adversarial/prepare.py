"""Makes the files that the recipes `adversarial` and `many_tasks` read, of the authors' copy of FDU-MTL.

Run: python recipes/adversarial/prepare.py FOLDER [--output out/data]

FOLDER holds the authors' files (books.task.train, books.task.test, ...: a label, 0 or 1, a tab and a text per line).
For each domain OUTPUT/fdu_mtl/books/{train,test}.parquet are written, with the columns text and label.
"""

import argparse
from pathlib import Path

from datasets import ClassLabel, Dataset, Features, Value

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
    # The authors write MR in capitals.
    files = [folder / f"{name}.task.{split}" for name in (domain, domain.upper())]
    found = next((path for path in files if path.is_file()), None)
    if found is None:
        raise SystemExit(f"There is no {files[0]}.")
    # Some lines hold bytes that are no UTF-8.
    lines = found.read_text("utf-8", errors="ignore").split("\n")
    rows = [line.strip().split("\t", 1) for line in lines if line.strip()]
    return Dataset.from_dict({"text": [row[1] for row in rows], "label": [int(row[0]) for row in rows]}, FEATURES)


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--output", type=Path, default=Path("out/data"))
    given = parser.parse_args()
    for domain in DOMAINS:
        target = given.output / "fdu_mtl" / domain
        target.mkdir(parents=True, exist_ok=True)
        sizes = []
        for split in SPLITS:
            rows = read_split(given.folder, domain, split)
            rows.to_parquet(str(target / f"{split}.parquet"))
            sizes.append(f"{split} {len(rows)}")
        print(domain, *sizes)


if __name__ == "__main__":
    main()
