"""`auto_find_batch_size`: a step is divided into smaller batches until they fit into memory; its rows stay."""

import copy
import gc
from collections.abc import Callable, Mapping
from typing import Any

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

from ..data.streams import StreamedMixture
from ..modeling.errors import InputError
from .task_trainer import TaskTrainer

_ADVICE = (
    "Set the batches yourself: a smaller per_device_train_batch_size beside global_batch_size=<rows of a step>, or a "
    "smaller tokens_per_batch."
)


class FittingTrainer(TaskTrainer):
    """A Trainer that begins a run anew, in smaller batches, where one was too large."""

    # What a run that begins anew makes again: its loss weighting and gradient balance, and what follows its steps.
    set_up_balance: Callable[[], None]
    begin_run: Callable[[], None]
    run_state: Callable[[], dict[str, Any]]
    load_run_state: Callable[[Mapping[str, Any]], None]

    def _inner_training_loop(self, batch_size: int | None = None, args: Any = None, **options: Any) -> Any:
        self.begin_run()
        if not self.args.auto_find_batch_size:
            return super()._inner_training_loop(batch_size, args, **options)
        self._check_fitting()
        beginning = self._beginning()
        while True:
            try:
                return super()._inner_training_loop(self.args.train_batch_size, args, **options)
            except RuntimeError as error:
                if not should_reduce_batch_size(error):
                    raise
                if self.args.per_device_train_batch_size == 1:
                    raise InputError(
                        f"Not even one row fits into memory ({str(error).splitlines()[0]}). Shorten the tasks' "
                        "max_length, or take a smaller encoder."
                    ) from error
            # Past the handler, whose traceback holds what is to be freed.
            self._divide_further()
            self._begin_again(beginning)

    def _check_fitting(self) -> None:
        args = self.args
        obstacles = {
            f"batch_form={args.batch_form!r}": args.batch_form != "mixed",
            "gradient_balancing": self.balancer is not None,
            "tokens_per_batch": args.tokens_per_batch is not None,
            "a schedule that is given": self.lr_scheduler is not None and not self._created_lr_scheduler,
            "streams": isinstance(self.train_dataset, StreamedMixture),
            "several processes": args.world_size > 1,
            "fsdp": bool(args.fsdp),
            "deepspeed": bool(args.deepspeed),
        }
        for name, stands in obstacles.items():
            if stands:
                raise InputError(f"auto_find_batch_size does not go with {name}: steps would change. {_ADVICE}")

    def _beginning(self) -> dict[str, Any]:
        """Return what a run begins with, on the CPU."""
        return {
            "weights": {name: tensor.detach().cpu().clone() for name, tensor in self.model.state_dict().items()},
            "optimizer": self.optimizer,
            "moments": None if self.optimizer is None else copy.deepcopy(self.optimizer.state_dict()),
            "state": copy.deepcopy(self.run_state()),
            "random": torch.get_rng_state(),
            "random_of_device": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }

    def _divide_further(self) -> None:
        """Halve the batches, or take the next number that divides them, and accumulate the more."""
        rows = self.args.per_device_train_batch_size
        fewer = max(size for size in range(1, rows) if rows % size == 0)
        accumulated = self.args.gradient_accumulation_steps * (rows // fewer)
        self.args.adjust(per_device_train_batch_size=fewer)
        if self.args.global_batch_size is None:
            self.args.adjust(gradient_accumulation_steps=accumulated)
        print(f"Batches of {rows} rows do not fit into memory; the run begins anew with {fewer}, in the same steps.")

    def _begin_again(self, beginning: dict[str, Any]) -> None:
        self.model.zero_grad(set_to_none=True)
        self.model.load_state_dict(beginning["weights"])
        self.optimizer, self.lr_scheduler = beginning["optimizer"], None
        if self.optimizer is not None:
            self.optimizer.load_state_dict(beginning["moments"])
        self.set_up_balance()
        self.load_run_state(beginning["state"])
        torch.set_rng_state(beginning["random"])
        if beginning["random_of_device"]:
            torch.cuda.set_rng_state_all(beginning["random_of_device"])
        gc.collect()
        clear_device_cache()
