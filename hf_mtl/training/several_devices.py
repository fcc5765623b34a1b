"""Several devices that one process sees: batches of several tasks are not scattered by rows."""

import sys

from transformers import TrainingArguments
from transformers.utils.logging import get_logger

logger = get_logger(__name__)


def use_one_device(args: TrainingArguments) -> None:
    """Let a process that sees several GPUs use one, and say what to type to use all of them.

    Transformers would scatter the rows of a batch over them (`nn.DataParallel`), away from their routing to the tasks.
    """
    if args.n_gpu > 1:
        logger.warning(
            f"This process sees {args.n_gpu} GPUs and uses one of them. To use all, start one process for each: "
            f"torchrun --nproc_per_node {args.n_gpu} {sys.argv[0] or 'train.py'}"
        )
        args._n_gpu = 1
