"""A run of two processes on one device, over gloo: NCCL wants a card for each.

`python -m torch.distributed.run --nproc_per_node 2 -m tests.gpu.one_card FOLDER`
"""

import sys
from pathlib import Path

from safetensors.torch import save_file
from transformers import AutoTokenizer

from hf_mtl.modeling.encoder_loading import find_encoder
from hf_mtl.training.processes import leave_together
from tests.conftest import ENCODER
from tests.gpu.test_training import build, weights

ROWS = 8
# Steps of SGD follow gradients in their size, which those of AdamW do not.
RATES = {"optim": "sgd", "learning_rate": 0.1, "parts_learning_rate": 0.1}


def main(folder: Path) -> None:
    """Train, and keep each process's weights."""
    tokenizer = AutoTokenizer.from_pretrained(find_encoder(ENCODER))
    trainer = build(folder, tokenizer, ddp_backend="gloo", per_device_train_batch_size=ROWS // 2, **RATES)
    trainer.train()
    save_file(weights(trainer), folder / f"{trainer.args.process_index}.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    leave_together()
