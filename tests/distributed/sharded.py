"""A few steps of a model that FSDP2 has sharded over two processes, saved as one checkpoint.

`python -m torch.distributed.run --nproc_per_node 2 -m tests.distributed.sharded FOLDER`
"""

import sys
from pathlib import Path

import torch
from torch import distributed
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import fully_shard

from hf_mtl import MultiTaskAttentionModel
from hf_mtl.modeling.step_loss import count_labels, step_loss
from hf_mtl.training.processes import leave_together
from tests.conftest import build_model, random_batch

STEPS = 3
SEEDS = (0, 1)


def fresh_model() -> MultiTaskAttentionModel:
    return build_model().double().train()


def step(model: torch.nn.Module, batches: list[dict], counts: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
    """One optimizer step on a process's batches; `counts` are the whole step's labels and rows by task."""
    for batch in batches:
        output = model(**batch)
        step_loss(output.task_loss_sums, *counts).mul(len(SEEDS) // len(batches)).backward()
    optimizer.step()
    optimizer.zero_grad()


def batch_of(seed: int) -> dict:
    batch = random_batch(seed=seed)
    for entries in batch["routing"].values():
        entries["labels"] = entries["labels"].double() if entries["labels"].is_floating_point() else entries["labels"]
    return batch


def train_on_one_process() -> dict[str, torch.Tensor]:
    """The same steps without sharding."""
    model, batches = fresh_model(), [batch_of(seed) for seed in SEEDS]
    counts = sum(torch.stack(count_labels(batch["routing"], model.num_tasks)) for batch in batches)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(STEPS):
        step(model, batches, counts, optimizer)
    return model.state_dict()


def main(folder: Path) -> None:
    """Shard, train, gather, save."""
    distributed.init_process_group("gloo")
    model = fresh_model()
    mesh = torch.distributed.init_device_mesh("cpu", (len(SEEDS),))
    for layer in model.encoder.encoder.layer:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    batch = batch_of(SEEDS[distributed.get_rank()])
    counts = torch.stack(count_labels(batch["routing"], model.num_tasks))
    distributed.all_reduce(counts)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(STEPS):
        step(model, [batch], counts, optimizer)
    weights = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if distributed.get_rank() == 0:
        fresh_model().save_pretrained(folder, state_dict=weights)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    leave_together()
