"""Checkpoints of the Hub, loaded by the ways that Transformers' users have: with this package and without it, from the
network and from the cache, and pushed again from where this package is absent.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoConfig, AutoModel, AutoTokenizer

from hf_mtl import InputError, MultiTaskAttentionModel, MultiTaskProcessor
from hf_mtl.modeling.hub_errors import HubError
from tests.conftest import assert_answers_close, build_model
from tests.hub.conftest import hub_environment
from tests.hub.test_push import REPO, TASKS, assert_same, contents, folder, push
from tests.modeling.test_checkpoint import BLOCKED

__all__ = ["folder"]

ROW = {"text": "a wonderful film", "tokens": ["a", "wonderful", "film"]}
# What somebody types who never saw this package.
STRANGER = (
    BLOCKED.partition("import torch")[0]
    + """
import json
from transformers import AutoConfig, AutoModel, AutoTokenizer

checkpoint, again, given = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
config = AutoConfig.from_pretrained(checkpoint, trust_remote_code=True, **given)
tokenizer = AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=True, **given)
model = AutoModel.from_pretrained(checkpoint, trust_remote_code=True, **given)
assert type(config) is type(model.config) and type(model).__module__.startswith("transformers_modules.")
row = {"text": "a wonderful film", "tokens": ["a", "wonderful", "film"]}
if again:
    model.push_to_hub(again, commit_message="Again")
    model = AutoModel.from_pretrained(again, trust_remote_code=True)
print(json.dumps(model.predict(row)))
"""
)


def stranger(hub, home, checkpoint, again="", given=None, **environment) -> list:
    """The answers that a process without this package gets."""
    done = subprocess.run(
        [sys.executable, "-c", STRANGER, checkpoint, again, json.dumps(given or {})],
        env={**hub_environment(hub, home), **environment},
        cwd=home.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_without_this_package(hub_client, folder, tmp_path):
    push(folder)
    answers = MultiTaskAttentionModel.from_pretrained(folder).predict(ROW)
    home = tmp_path / "home"
    assert_answers_close(stranger(hub_client, home, REPO, "ann/2nd-model.v1"), answers, 1e-5)
    asked = len(hub_client.requests)
    assert_answers_close(stranger(hub_client, home, REPO, HF_HUB_OFFLINE="1"), answers, 1e-5)
    assert len(hub_client.requests) == asked
    # Pushed again from there, it is whole, and what lay beside the weights came along.
    assert hub_client.commits("ann/2nd-model.v1")[0].message == "Again"
    there, before = hub_client.files("ann/2nd-model.v1"), hub_client.files(REPO)
    assert {name for name in before if name.endswith((".py", ".json"))} <= set(there)
    assert there["results.json"] == before["results.json"]


@pytest.mark.slow
def test_a_folder_of_a_branch_without_this_package(hub_client, folder, tmp_path):
    push(folder, revision="folders", path_in_repo="models/1.small")
    answers = MultiTaskAttentionModel.from_pretrained(folder).predict(ROW)
    given = {"revision": "folders", "subfolder": "models/1.small"}
    assert_answers_close(stranger(hub_client, tmp_path / "home", REPO, given=given), answers, 1e-5)


def test_every_door_with_this_package(hub_client, folder, tokenizer):
    push(folder)
    push(folder, revision="folders", path_in_repo="models/small")
    expected = MultiTaskAttentionModel.from_pretrained(folder)
    for given in ({}, {"revision": "folders", "subfolder": "models/small"}):
        model = AutoModel.from_pretrained(REPO, **given)
        assert type(model) is MultiTaskAttentionModel
        assert_same(model, expected)
        assert AutoConfig.from_pretrained(REPO, **given).to_dict() == model.config.to_dict()
        assert AutoTokenizer.from_pretrained(REPO, **given).get_vocab() == tokenizer.get_vocab()
        assert MultiTaskProcessor.from_pretrained(REPO, **given).indices == {"mood": 0, "names": 1}
        assert_answers_close(model.predict(ROW), expected.predict(ROW), 1e-6)


@pytest.mark.parametrize("how", ["cut", "no_range", 429, 503, "drop"])
def test_a_line_that_breaks_while_it_is_loaded(hub_client, folder, how):
    """What is cut in the middle of a body is asked for again, from there or, where the server has no ranges, anew."""
    push(folder)
    if how == "no_range":
        hub_client.fail("resolve", "cut", times=1, after=4)
        hub_client.fail("resolve", "no_range", times=99)
    else:
        hub_client.fail("resolve", how, times=1, after=4)
    try:
        model = MultiTaskAttentionModel.from_pretrained(REPO)
    except (OSError, InputError):
        # Said, and nothing half of it is kept: the next try finds it whole.
        hub_client.recover()
        model = MultiTaskAttentionModel.from_pretrained(REPO)
    assert_same(model, MultiTaskAttentionModel.from_pretrained(folder))


def test_a_model_pushes_itself_whole(hub_client, folder, tokenizer):
    """Loaded, it takes along what lay beside its weights; trained on, it does not, since that speaks of others."""
    card = "---\ntags: [mine]\n---\nMy card.\ncheckpoint = load(path)\nhf-mtl predict here --text x\n"
    (folder / "README.md").write_text(card)
    model = MultiTaskAttentionModel.from_pretrained(folder)
    info = model.push_to_hub("first", commit_message="Mine", tags=["extra"])
    assert info.oid == hub_client.head("ann/first") and hub_client.commits("ann/first")[0].message == "Mine"
    there = hub_client.files("ann/first")
    assert there["README.md"].decode() == card.replace("tags: [mine]", "tags:\n- mine\n- extra")
    model.push_to_hub("sharded", max_shard_size="200KB")
    sharded = hub_client.files("ann/sharded")
    assert "model.safetensors" not in sharded and sharded["results.json"] == there["results.json"]
    assert set(contents(folder)) <= set(there)
    with_weights = MultiTaskAttentionModel.from_pretrained("ann/first")
    next(with_weights.parameters()).data.add_(1.0)
    with_weights.push_to_hub("second", tags=["extra"])
    there = hub_client.files("ann/second")
    assert "results.json" not in there and b"- extra" in there["README.md"]
    assert b'checkpoint = "ann/second"' in there["README.md"]
    assert b"\nhf-mtl predict ann/second --text" in there["README.md"]
    assert_same(MultiTaskAttentionModel.from_pretrained("ann/second"), with_weights)


def test_save_pretrained_pushes_too(hub_client, folder, tmp_path):
    model = MultiTaskAttentionModel.from_pretrained(folder)
    model.save_pretrained(tmp_path / "saved.v1", push_to_hub=True, commit_message="Saved")
    assert hub_client.commits("ann/saved.v1")[0].message == "Saved"
    assert "tokenizer.json" in hub_client.files("ann/saved.v1")
    model.save_pretrained(tmp_path / "saved.v1", push_to_hub=True, repo_id=REPO, private=True)
    assert hub_client.repositories[REPO].private


def test_a_model_without_a_tokenizer_and_unknown_arguments(hub_client):
    with pytest.raises(InputError, match="has no tokenizer"):
        build_model(TASKS).push_to_hub("bare")
    with pytest.raises(InputError, match="Unknown argument of push_to_hub 'commit_msg'.*'commit_message'"):
        build_model(TASKS).push_to_hub("bare", commit_msg="x")
    assert not hub_client.repositories


def test_what_could_not_be_pushed_is_kept(hub_client, folder, monkeypatch):
    model = MultiTaskAttentionModel.from_pretrained(folder)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubError) as raised:
        model.push_to_hub(REPO)
    kept = Path(str(raised.value).split("is in '")[1].split("'")[0])
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    push(kept)
    assert_same(MultiTaskAttentionModel.from_pretrained(REPO), model)


def test_the_configuration_and_the_tokenizer_pushed_alone_leave_the_model_whole(hub_client, folder, tokenizer):
    push(folder)
    AutoConfig.from_pretrained(folder).push_to_hub(REPO)
    tokenizer.push_to_hub(REPO)
    assert_same(AutoModel.from_pretrained(REPO), MultiTaskAttentionModel.from_pretrained(folder))
    config = json.loads(hub_client.files(REPO)["config.json"])
    assert "AutoModel" in config["auto_map"]
