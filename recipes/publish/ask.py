"""Answers every row of a file for all tasks, by Transformers alone: python ask.py CHECKPOINT IN.jsonl OUT.jsonl"""

import json
import sys
from pathlib import Path
from typing import Any

from transformers import AutoModel

checkpoint, rows_file, answers_file = sys.argv[1:]
model = AutoModel.from_pretrained(checkpoint, trust_remote_code=True)
rows = [json.loads(line) for line in Path(rows_file).read_text("utf-8").splitlines()]
# The text, and its words for the task that tags them.
rows = [{"text": row["text"], "tokens": row["text"].split()} for row in rows]


def rounded(value: Any) -> Any:
    """Return an answer with scores of 4 digits: sums of floats may differ in the last ones."""
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [rounded(one) for one in value]
    return round(value, 4) if isinstance(value, float) else value


answers = [json.dumps(rounded(answer), ensure_ascii=False) for answer in model.predict(rows)]
Path(answers_file).write_text("\n".join(answers) + "\n", "utf-8")
print(f"{answers_file}: {len(answers)} rows; the first one: {answers[0][:150]} …")
