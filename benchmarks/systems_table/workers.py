"""A process that runs systems: it loads the encoder and each data set once."""

from pathlib import Path

import torch
from datasets import disable_progress_bars
from transformers import PreTrainedModel
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from benchmarks.systems_table.data import DATASETS, draw_rows, read_rows
from benchmarks.systems_table.runs import Result, Run, train
from hf_mtl.data.mixture import Mixture
from hf_mtl.modeling.encoder_loading import load_encoder

# What the runs of a process share.
_encoder: PreTrainedModel
_data_dir: Path
_rows: dict[str, Mixture] = {}


def begin(data_dir: Path, encoder: str) -> None:
    """Load what all runs of a process share."""
    global _encoder, _data_dir
    torch.set_num_threads(1)
    set_verbosity_error()
    disable_progress_bar()
    disable_progress_bars()
    _encoder, _data_dir = load_encoder(encoder, pooler=True), data_dir


def work(run: Run) -> Result:
    """Run one system."""
    dataset = DATASETS[run.dataset]
    if run.dataset not in _rows:
        _rows[run.dataset] = read_rows(dataset, _data_dir)
    return train(run, _encoder, draw_rows(_rows[run.dataset], dataset.budget, run.seed), dataset.budget)
