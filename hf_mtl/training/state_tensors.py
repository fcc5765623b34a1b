"""States of a run without pickles: what `torch.save` wrote becomes safetensors, and again what it was.

The state of an optimizer, a schedule and random numbers is a tree of lists and mappings with tensors and numbers at
its ends. Tensors become those of a safetensors file, the tree JSON in its header.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers.trainer_pt_utils import safe_globals

from ..modeling.errors import CheckpointError, InputError

_STATE_SUFFIXES = (".pt", ".pth")
_PACKED_SUFFIX = ".safetensors"
_TREE = "tree"
_PLAIN = (str, bool, int, float, type(None))


def pack_states(checkpoint: Path, aim: Path) -> None:
    """Write a training checkpoint's states without pickles.

    Args:
        checkpoint: Holds ``optimizer.pt`` and others.
        aim: Gets ``optimizer.pt.safetensors`` and others.

    Raises:
        InputError: A state holds something that is neither a number, a text nor a tensor.
    """
    for path in sorted(checkpoint.iterdir()):
        if path.suffix in _STATE_SUFFIXES:
            with safe_globals():
                state = torch.load(path, map_location="cpu", weights_only=True)
            tensors: dict[str, torch.Tensor] = {}
            tree = _packed(state, tensors, path.name)
            save_file(tensors, aim / f"{path.name}{_PACKED_SUFFIX}", metadata={_TREE: json.dumps(tree)})


def unpack_states(checkpoint: Path) -> None:
    """Write a checkpoint's states, which came without pickles, as Transformers reads them; those that are there stay.

    Raises:
        CheckpointError: A file is damaged.
    """
    for suffix in _STATE_SUFFIXES:
        for path in checkpoint.glob(f"*{suffix}{_PACKED_SUFFIX}"):
            if not (aim := path.with_suffix("")).exists():
                with safe_open(path, framework="pt") as file:
                    tree = (file.metadata() or {}).get(_TREE)
                    if tree is None:
                        raise CheckpointError(f"{str(path)!r} is no state of a run: its header lacks {_TREE!r}.")
                    torch.save(_unpacked(json.loads(tree), file.get_tensor), aim)


def _packed(value: Any, tensors: dict[str, torch.Tensor], name: str) -> Any:
    if isinstance(value, (torch.Tensor, np.ndarray)):
        is_array = isinstance(value, np.ndarray)
        key = str(len(tensors))
        tensors[key] = (torch.from_numpy(value) if is_array else value.detach()).clone().contiguous()
        return {"array" if is_array else "tensor": key}
    if isinstance(value, Mapping):
        return {"mapping": [[_packed(one, tensors, name) for one in item] for item in value.items()]}
    if isinstance(value, (list, tuple)):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_packed(one, tensors, name) for one in value]}
    if isinstance(value, _PLAIN):
        return value
    raise InputError(
        f"{name} holds a {type(value).__name__}, which can only be kept as a pickle, and no pickle is pushed. Choose "
        "hub_strategy='every_save' or 'end', which push no states."
    )


def _unpacked(tree: Any, tensor: Callable[[str], torch.Tensor]) -> Any:
    if not isinstance(tree, dict):
        return tree
    ((kind, value),) = tree.items()
    if kind == "tensor":
        return tensor(value)
    if kind == "array":
        return tensor(value).numpy()
    if kind == "mapping":
        return {_unpacked(key, tensor): _unpacked(one, tensor) for key, one in value}
    items = [_unpacked(one, tensor) for one in value]
    return items if kind == "list" else tuple(items)
