"""How long and how much memory the first batch of a huge mixture takes, and any later one.

A mixture of 1,000,000,000 rows over 1,000 tasks of very different sizes, read as (task, row) pairs, beside torch's
RandomSampler, which shuffles all rows at once, on 10,000,000. Every figure is of a process of its own, since memory
that one arm has touched would help the other.
"""

import json
import resource
import subprocess
import sys
import time
import tracemalloc

ROWS = 1_000_000_000
TASKS = 1_000
TORCH_ROWS = 10_000_000
BATCH_ROWS = 32
# Beside the first, batches from anywhere in a run of many passes.
LATER = (1, 1_000, 31_249_999, 123_456_789, 10_000_000_000)
MOST_SECONDS = 0.1
MOST_MEGABYTES = 50


def task_sizes():
    """TASKS sizes, from some thousands to some millions of rows, that sum to ROWS."""
    import numpy as np

    sizes = np.maximum(np.random.default_rng(0).lognormal(0.0, 1.5, TASKS), 1e-3)
    sizes = np.maximum((sizes / sizes.sum() * ROWS).astype(np.int64), 1)
    sizes[sizes.argmax()] += ROWS - sizes.sum()
    return sizes


def megabytes() -> float:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure_mixture(strategy: str) -> dict[str, float]:
    """Seconds to the first batch, building included, and to any later one; megabytes after the imports."""
    from hf_mtl.data.batch_forms import StepShape
    from hf_mtl.data.mixing import MIXING_STRATEGIES, MixingOptions
    from hf_mtl.data.sampler import MixtureBatchSampler

    sizes = task_sizes()
    before, start = megabytes(), time.perf_counter()
    sampler = MixtureBatchSampler(sizes, MIXING_STRATEGIES[strategy](MixingOptions()), StepShape(BATCH_ROWS))
    tasks, rows = sampler.pairs(0)
    first = time.perf_counter() - start
    assert len(rows) == BATCH_ROWS
    assert (rows < sizes[tasks]).all()
    later = []
    for index in LATER:
        start = time.perf_counter()
        sampler.pairs(index)
        later.append(time.perf_counter() - start)
    resident = megabytes() - before
    # Python's and NumPy's own count too: what the imports once took and gave back would hide small needs.
    tracemalloc.start()
    MixtureBatchSampler(sizes, MIXING_STRATEGIES[strategy](MixingOptions()), StepShape(BATCH_ROWS)).pairs(LATER[-1])
    traced = tracemalloc.get_traced_memory()[1] / 2**20
    return {"first": first, "later": max(later), "megabytes": max(resident, traced)}


def measure_torch() -> dict[str, float]:
    """The same of torch's RandomSampler, on a hundredth of the rows."""
    from torch.utils.data import BatchSampler, RandomSampler

    before, start = megabytes(), time.perf_counter()
    next(iter(BatchSampler(RandomSampler(range(TORCH_ROWS)), BATCH_ROWS, drop_last=True)))
    return {"first": time.perf_counter() - start, "later": float("nan"), "megabytes": megabytes() - before}


def in_a_process(arm: str) -> dict[str, float]:
    """Measure one arm in a process of its own."""
    done = subprocess.run([sys.executable, __file__, arm], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> int:
    """Measure every arm, print the table, and fail where a bound is broken."""
    arms = {
        "proportional": "hf_mtl, proportional",
        "temperature": "hf_mtl, temperature",
        "torch": "torch RandomSampler",
    }
    print(f"{'sampler':24}{'rows':>16}{'first batch':>14}{'any batch':>14}{'memory':>12}")
    found = {}
    for arm, name in arms.items():
        found[arm] = own = in_a_process(arm)
        rows = TORCH_ROWS if arm == "torch" else ROWS
        later = "-" if arm == "torch" else f"{own['later']:.3f} s"
        print(f"{name:24}{rows:>16,}{own['first']:>12.3f} s{later:>14}{own['megabytes']:>9.1f} MB")
    own = found["proportional"]
    held = max(own["first"], own["later"]) < MOST_SECONDS and own["megabytes"] < MOST_MEGABYTES
    print(f"bounds: {MOST_SECONDS} s, {MOST_MEGABYTES} MB: {'held' if held else 'BROKEN'}")
    print(f"first batch: {own['first']:.4f}")
    return 0 if held else 1


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure_torch() if sys.argv[1] == "torch" else measure_mixture(sys.argv[1])))
        sys.exit(0)
    sys.exit(main())
