"""A trainer's pushes. Each of the traps that Transformers' own push falls into is a test: code left behind, the card
overwritten, a pickle, a folder that was renamed away, and several commits where one belongs.
"""

import re

import pytest
import torch
from huggingface_hub import HfApi, ModelCard, snapshot_download

from hf_mtl import InputError, MultiTaskAttentionModel, MultiTaskTrainer, MultiTaskTrainingArguments
from hf_mtl.modeling.hub_errors import HubError
from hf_mtl.training.state_tensors import pack_states, unpack_states
from tests.hub.test_push import assert_same
from tests.training.test_trainer_contract import DATA, QUIET, model_of

REPO = "ann/1.run-v2"
PICKLES = (".bin", ".pt", ".pth", ".pkl")


def build(tmp_path, tokenizer, **values) -> MultiTaskTrainer:
    given = {
        **QUIET,
        "max_steps": 4,
        "save_strategy": "steps",
        "save_steps": 2,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "push_to_hub": True,
        "hub_always_push": True,
        "hub_model_id": REPO,
        **values,
    }
    args = MultiTaskTrainingArguments(output_dir=str(tmp_path / "1.run-v2"), **given)
    return MultiTaskTrainer(
        model_of(tokenizer), args, train_dataset=DATA, eval_dataset=DATA, processing_class=tokenizer
    )


def every_commit(hub):
    """The repository's states after the one that made it, the oldest first."""
    return hub.commits(REPO)[::-1][1:]


def assert_all_load(hub) -> None:
    """Whoever reads main at any moment finds a checkpoint that loads, without a pickle."""
    for commit in every_commit(hub):
        assert not [name for name in commit.files if name.endswith(PICKLES)]
        model = MultiTaskAttentionModel.from_pretrained(REPO, revision=commit.sha)
        named = {ref.partition(".")[0] for ref in model.config.auto_map.values()}
        assert {f"{name}.py" for name in named} <= set(commit.files)
        assert {"tokenizer.json", "README.md", "config.json"} <= set(commit.files)


def test_every_save_is_whole(hub_client, tmp_path, tokenizer):
    trainer = build(tmp_path, tokenizer, save_total_limit=1)
    trainer.train()
    assert [commit.message for commit in every_commit(hub_client)] == [
        "Training in progress, step 2",
        "Training in progress, step 4",
    ]
    info = trainer.push_to_hub(tag="v1", language="en", license="mit")
    assert info.oid == hub_client.head(REPO) == hub_client.head(REPO, "v1")
    assert len(every_commit(hub_client)) == 3
    assert_all_load(hub_client)
    assert_same(MultiTaskAttentionModel.from_pretrained(REPO), trainer.model)
    assert not (tmp_path / "1.run-v2" / "hub_push").exists()
    card = ModelCard(hub_client.files(REPO)["README.md"].decode())
    assert (card.data.language, card.data.license) == (["en"], "mit")
    scores = {result.task_name: result.metric_value for result in card.data.eval_results}
    logged = trainer.task_scores(trainer.state.log_history[-2])
    assert scores["mood"] == pytest.approx(logged["mood"]["accuracy"], abs=0.01)
    assert "generated automatically" not in card.text


@pytest.mark.parametrize(("strategy", "names"), [("checkpoint", ["last-checkpoint"]), ("all_checkpoints", None)])
def test_a_run_goes_on_from_the_hub(hub_client, tmp_path, tokenizer, strategy, names):
    """From what was pushed, bit for bit as from its own folder, and no pickle was on the way."""
    constant = {"lr_scheduler_type": "constant", "eval_strategy": "no"}
    build(tmp_path, tokenizer, hub_strategy=strategy, save_steps=1, max_steps=3, **constant).train()
    assert_all_load(hub_client)
    there = {name.partition("/")[0] for name in hub_client.files(REPO) if "trainer_state.json" in name}
    assert there == set(names or ["checkpoint-1", "checkpoint-2", "checkpoint-3"])
    whole = build(tmp_path / "whole", tokenizer, max_steps=6, push_to_hub=False, **constant)
    whole.train()
    fetched = tmp_path / "fetched"
    snapshot_download(REPO, local_dir=fetched)
    start = str(fetched / names[0]) if names else True
    trainer = build(tmp_path, tokenizer, max_steps=6, push_to_hub=False, **constant)
    if names is None:
        trainer.args.output_dir = str(fetched)
    trainer.train(resume_from_checkpoint=start)
    assert_same(trainer.model, whole.model)


def test_at_the_end_alone(hub_client, tmp_path, tokenizer):
    trainer = build(tmp_path, tokenizer, hub_strategy="end")
    trainer.train()
    assert not every_commit(hub_client)
    trainer.push_to_hub(blocking=False).result()
    assert [commit.message for commit in every_commit(hub_client)] == ["End of training"]
    trainer.save_model()
    assert_all_load(hub_client)


def test_on_a_branch_and_private(hub_client, tmp_path, tokenizer):
    trainer = build(tmp_path, tokenizer, hub_revision="runs", hub_private_repo=True)
    trainer.train()
    trainer.push_to_hub()
    assert len(hub_client.commits(REPO)) == 1 and len(hub_client.commits(REPO, "runs")) == 4
    assert HfApi().model_info(REPO).private


def test_a_push_that_fails_stops_no_training(hub_client, tmp_path, tokenizer):
    trainer = build(tmp_path, tokenizer)
    hub_client.fail("commit", 403, times=2)
    trainer.train()
    assert trainer.state.global_step == 4 and not every_commit(hub_client)
    trainer.push_to_hub()
    assert_all_load(hub_client)


def test_what_cannot_work_is_said_before_the_first_step(hub_client, tmp_path, tokenizer):
    with pytest.raises(HubError, match="(?s)'bob/run' cannot be made or written to.*HF_HUB_OFFLINE=1"):
        build(tmp_path, tokenizer, hub_model_id="bob/run")


def test_offline_the_run_is_kept_and_can_be_pushed(hub_client, tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    trainer = build(tmp_path, tokenizer)
    trainer.train()
    with pytest.raises(HubError, match=re.escape(f"hf-mtl push {tmp_path / '1.run-v2'} {REPO}")):
        trainer.push_to_hub()
    assert not hub_client.requests
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    trainer.push_to_hub()
    assert_all_load(hub_client)


def test_the_cards_arguments(hub_client, tmp_path, tokenizer):
    trainer = build(tmp_path, tokenizer, push_to_hub=False)
    trainer.create_model_card(language="de", tags="mine", model_name="Moods", finetuned_from="ann/base")
    card = ModelCard.load(tmp_path / "1.run-v2" / "README.md")
    assert card.data.base_model == "ann/base" and "mine" in card.data.tags and "# Moods" in card.text
    trainer.create_model_card("fr", "mit")
    card = ModelCard.load(tmp_path / "1.run-v2" / "README.md")
    assert card.data.language == ["fr"] and card.data.license == "mit"
    with pytest.raises(InputError, match=r"create_model_card\(tasks=\['glue'\]\): the card has a row per task"):
        trainer.create_model_card(tasks=["glue"])
    with pytest.raises(TypeError, match="'languages'"):
        trainer.push_to_hub(languages="de")
    assert not (tmp_path / "1.run-v2" / "model.safetensors").exists()


def test_an_adapters_card_promises_no_model(hub_client, tmp_path, tokenizer):
    peft = pytest.importorskip("peft")
    trainer = build(tmp_path, tokenizer, push_to_hub=False, save_strategy="no", eval_strategy="no")
    config = peft.LoraConfig(r=2, target_modules=["query", "value"], modules_to_save=["mtl"])
    adapted = MultiTaskTrainer(
        peft.get_peft_model(trainer.model, config), trainer.args, train_dataset=DATA, processing_class=tokenizer
    )
    adapted.push_to_hub()
    there = hub_client.files("ann/1.run-v2")
    assert {"adapter_config.json", "adapter_model.safetensors"} <= set(there)
    card = there["README.md"].decode()
    assert "weights of an adapter" in card and "AutoModel" not in card and "loads without it" not in card


def test_states_without_pickles_are_what_they_were(tmp_path):
    state = {"a": [1, 2.5, None, (True, "x")], 3: torch.arange(3), "rng": torch.get_rng_state(), "nan": float("inf")}
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    torch.save(state, tmp_path / "one" / "optimizer.pt")
    pack_states(tmp_path / "one", tmp_path / "two")
    assert [path.name for path in (tmp_path / "two").iterdir()] == ["optimizer.pt.safetensors"]
    unpack_states(tmp_path / "two")
    again = torch.load(tmp_path / "two" / "optimizer.pt", weights_only=True)
    assert again["a"] == state["a"] and torch.equal(again[3], state[3]) and again["nan"] == float("inf")
    assert torch.equal(again["rng"], state["rng"]) and list(again) == list(state)
