"""Pushes of a folder: in one commit or not at all, whatever the Hub and the line do."""

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import HfApi
from safetensors.torch import load_file, save_file

from hf_mtl import InputError, MultiTaskAttentionModel
from hf_mtl.cli import main
from hf_mtl.modeling.errors import CheckpointError
from hf_mtl.modeling.hub_card import is_written
from hf_mtl.modeling.hub_errors import HubError
from hf_mtl.modeling.hub_push import Push, push_folder
from tests.conftest import build_model, randomise
from tests.hub.conftest import hub_environment

TASKS = [
    {"name": "mood", "problem_type": "single_label_classification", "labels": ["bad", "good"]},
    {"name": "names", "problem_type": "token_classification", "labels": ["O", "B-X", "I-X"]},
]
REPO = "acme/1.support-desk_v2"


@pytest.fixture
def folder(tmp_path, tokenizer):
    """A checkpoint of random weights, its folder's name as awkward as names may be."""
    model = randomise(build_model(TASKS, vocab_size=tokenizer.vocab_size))
    path = tmp_path / "1.support-desk_v2"
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    (path / "results.json").write_text('{"mood": {"accuracy": 50.0}}\n')
    return path


def contents(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def push(folder, repo=REPO, **given):
    return push_folder(Push(folder, repo, **given))


def loads(hub, repo=REPO, revision="main", **given) -> MultiTaskAttentionModel:
    return MultiTaskAttentionModel.from_pretrained(repo, revision=revision, **given)


def assert_same(first, second) -> None:
    tensors, others = first.state_dict(), second.state_dict()
    assert tensors.keys() == others.keys() and all(torch.equal(tensors[name], others[name]) for name in tensors)


def test_one_commit_holds_everything(hub_client, folder):
    before = contents(folder)
    pushed = push(folder, commit_message="First")
    assert [commit.message for commit in hub_client.commits(REPO)][0] == "First"
    assert len(hub_client.commits(REPO)) == 2  # the one that made the repository, and this
    there = hub_client.files(REPO)
    # Where there was no card, the tasks say what there is to say.
    assert b"`mood`, `names`" in there["README.md"] and b"has not said under which licence" in there["README.md"]
    assert {name: data for name, data in there.items() if name not in (".gitattributes", "README.md")} == before
    assert contents(folder) == before
    assert pushed.commit.oid == hub_client.head(REPO)
    assert_same(loads(hub_client), MultiTaskAttentionModel.from_pretrained(folder))


def test_what_is_no_part_of_a_checkpoint_stays(hub_client, folder):
    private = ("notes.txt", "secrets.json", "mail.md", "mine.py", "wandb.yaml", "logs/log.json", "other.safetensors")
    pickles = ("training_args.bin", "optimizer.pt")
    for name in (*private, *pickles, "answers.csv", ".env", "checkpoint-3/model.safetensors", "mine.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"never-sent")
    shutil.copytree(folder, folder.parent / "copy")
    shutil.copytree(folder.parent / "copy", folder / "rte")
    (folder / "_wave.py").write_text("WAVE = 1\n")
    (folder / "gate.py").write_text((folder / "gate.py").read_text() + "\nfrom ._wave import WAVE\n")
    (folder / "scores.png").write_bytes(b"drawn")
    (folder / "README.md").write_text("![Scores](scores.png)\n")
    (folder / "recipe.yaml").write_text("encoder: x\noutput_dir: /home/ann/a long\n  way/out\ntasks: []\n")
    pushed = push(folder)
    there = hub_client.files(REPO)
    assert there["scores.png"] == b"drawn" and there["recipe.yaml"] == b"encoder: x\ntasks: []\n"
    assert not [name for name in there if b"never-sent" in there[name] or name.startswith("rte/")]
    assert "_wave.py" in there
    assert pushed.files.left_out["training_args.bin"].startswith("a pickle")
    assert pushed.files.left_out["answers.csv"] == "no file of a checkpoint"
    assert "answers.csv" in push(folder, include=["*.csv"]).files.sent
    for pattern, message in (("*.bin", "is a pickle"), ("*.onnx", "names no file")):
        with pytest.raises(InputError, match=message):
            push(folder, include=[pattern])


@pytest.mark.parametrize(
    "lost", ["config.json", "model.safetensors", "tokenizer_config.json", "gate.py", "modeling_multitask.py"]
)
def test_a_checkpoint_that_would_not_load_is_not_pushed(hub_client, folder, lost):
    (folder / lost).unlink()
    with pytest.raises(InputError, match=re.escape(str(folder))):
        push(folder)
    assert not hub_client.requests


def test_weights_that_were_cut_off_are_not_pushed(hub_client, folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="cut off"):
        push(folder)


def test_nothing_of_an_earlier_push_is_read_with_a_later_one(hub_client, folder, tokenizer):
    """Transformers would load one file of weights before the index of several, and another tokenizer's words."""
    push(folder)
    hub_client.commit(
        REPO, {"notes.md": b"mine", "vocab.txt": b"other words", "adapter_config.json": b"{}"}, "By hand"
    )
    other = randomise(build_model(TASKS, vocab_size=tokenizer.vocab_size), std=0.1)
    sharded = folder.parent / "sharded"
    other.save_pretrained(sharded, max_shard_size="100KB")
    tokenizer.save_pretrained(sharded)
    pushed = push(sharded)
    assert set(pushed.removed) == {"adapter_config.json", "model.safetensors", "results.json", "vocab.txt"}
    assert "notes.md" in hub_client.files(REPO)
    assert_same(loads(hub_client), other)


def test_a_branch_a_tag_a_pull_request_and_a_folder(hub_client, folder, tokenizer):
    push(folder)
    first = hub_client.head(REPO)
    (folder / "results.json").write_text("{}\n")
    push(folder, revision="next", tag="v1")
    push(folder, create_pr=True)
    push(folder, path_in_repo="models/small", revision="folders")
    assert hub_client.head(REPO) == first
    assert hub_client.files(REPO, "next")["results.json"] == hub_client.files(REPO, "v1")["results.json"] == b"{}\n"
    assert hub_client.files(REPO, "refs/pr/1")["results.json"] == b"{}\n"
    model = MultiTaskAttentionModel.from_pretrained(folder)
    for given in ({"revision": "v1"}, {"revision": "refs/pr/1"}, {"revision": "folders", "subfolder": "models/small"}):
        assert_same(loads(hub_client, **given), model)
    with pytest.raises(HubError, match="has a tag 'v1' already"):
        push(folder, tag="v1")
    hub_client.fail("tag", 500)
    with pytest.raises(HubError, match=r"(?s)It is pushed .* but has no tag 'v2'.*hf repos tag create"):
        push(folder, tag="v2")


def test_private_is_not_promised_where_it_has_no_effect(hub_client, folder):
    push(folder, repo="acme/secret", private=True)
    assert HfApi().model_info("acme/secret").private
    push(folder)
    with pytest.raises(HubError, match="exists and is public; private=True would have no effect"):
        push(folder, private=True)
    with pytest.raises(HubError, match="exists and is private"):
        push(folder, repo="acme/secret", private=False)


def test_an_adapter_is_pushed_as_it_is(hub_client, tmp_path):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": REPO}))
    save_file({"a": torch.zeros(1)}, adapter / "adapter_model.safetensors")
    push(adapter, "acme/adapter")
    assert "adapter_model.safetensors" in hub_client.files("acme/adapter")


# A call that fails, what of it the message says, and whether a later attempt of the same push may succeed.
FAULTS = [
    ("info", "GatedRepo", {}, "gated"),
    ("info", 404, {}, "does not exist"),
    ("preupload", 500, {"times": 99}, "answered 500"),
    ("lfs_batch", 403, {}, "may not write"),
    ("lfs_put", "drop", {"times": 99}, "unchanged"),
    ("validate", 500, {"times": 99}, ""),
    ("commit", 401, {}, "does not accept the token"),
    ("commit", 403, {}, "may not write"),
    ("commit", 404, {}, "does not exist"),
    ("commit", 409, {}, "changed while this was pushed"),
    ("commit", 412, {}, "changed while this was pushed"),
    ("commit", 429, {"times": 99, "headers": {"RateLimit": '"api";r=0;t=400'}}, "for 400 more seconds"),
    ("commit", 500, {"times": 99}, "answered 500"),
    ("commit", 503, {"times": 99}, "answered 503"),
    ("commit", "drop", {"times": 99}, "unchanged"),
]


@pytest.mark.parametrize(("where", "how", "given", "message"), FAULTS, ids=[f"{one[0]}-{one[1]}" for one in FAULTS])
def test_a_push_that_fails_changes_nothing(hub_client, folder, monkeypatch, where, how, given, message):
    monkeypatch.setattr("hf_mtl.modeling.hub_push.time", SimpleNamespace(sleep=lambda seconds: None))
    push(folder)
    before, head = contents(folder), hub_client.head(REPO)
    (folder / "results.json").write_text("{}\n")
    _change_weights(folder)
    hub_client.fail(where, how, **given)
    if message:
        with pytest.raises(HubError, match=message) as raised:
            push(folder)
        assert f"hf-mtl push {folder} {REPO}" in str(raised.value)
        assert hub_client.head(REPO) == head and hub_client.files(REPO)["results.json"] == before["results.json"]
    hub_client.recover()
    push(folder)
    assert hub_client.files(REPO)["results.json"] == b"{}\n"
    assert_same(loads(hub_client), MultiTaskAttentionModel.from_pretrained(folder))


@pytest.mark.parametrize(
    ("token", "repo", "message"),
    [
        ("hf_reader", REPO, "may not write"),
        ("hf_writer", "bob/model", "may not write"),
        ("hf_unknown", REPO, "does not accept the token"),
    ],
)
def test_a_repository_that_cannot_be_made(hub_client, folder, token, repo, message):
    with pytest.raises(HubError, match=message):
        push(folder, repo, token=token)
    assert not hub_client.repositories


def _change_weights(folder) -> None:
    path = folder / "model.safetensors"
    tensors = {name: tensor + 1 for name, tensor in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize("how", [429, 500, 503, "drop", "cut", "lost"])
def test_a_commit_is_made_once_where_the_line_is_bad(hub_client, folder, monkeypatch, how):
    waits = []
    monkeypatch.setattr("hf_mtl.modeling.hub_push.time", SimpleNamespace(sleep=waits.append))
    push(folder)
    _change_weights(folder)
    headers = {"headers": {"RateLimit": '"api";r=0;t=7'}} if how == 429 else {}
    hub_client.fail("commit", how, **headers)
    pushed = push(folder, commit_message="Second")
    messages = [commit.message for commit in hub_client.commits(REPO)]
    assert messages.count("Second") == 1 and pushed.commit.oid == hub_client.head(REPO)
    assert waits == {429: [8.0], "lost": [], "cut": []}.get(how, [2.0])
    assert_same(loads(hub_client), MultiTaskAttentionModel.from_pretrained(folder))


def test_whichever_call_fails_main_loads_or_is_unchanged(hub_client, folder, monkeypatch):
    monkeypatch.setattr("hf_mtl.modeling.hub_push.time", SimpleNamespace(sleep=lambda seconds: None))
    push(folder)
    before, expected = hub_client.files(REPO), MultiTaskAttentionModel.from_pretrained(folder)
    number, failed = 0, True
    while failed:
        _change_weights(folder)
        hub_client.fail("any", 500, times=99, after=number)
        try:
            push(folder)
            failed = False
        except HubError as error:
            assert "hf-mtl push" in str(error)
        hub_client.recover()
        if hub_client.files(REPO) != before:
            before, expected = hub_client.files(REPO), MultiTaskAttentionModel.from_pretrained(folder)
        number += 1
    assert number > 4
    assert_same(loads(hub_client), expected)


def test_another_push_in_between_is_not_overwritten(hub_client, folder):
    push(folder)
    _change_weights(folder)
    hub_client.before("commit", lambda: hub_client.commit(REPO, {"README.md": b"theirs"}, "In between"))
    with pytest.raises(HubError, match="somebody else pushed"):
        push(folder)
    assert hub_client.commits(REPO)[0].message == "In between"


def test_offline_says_what_to_type(hub_client, folder, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match=f"hf-mtl push {re.escape(str(folder))} {re.escape(REPO)} --tag v1 --private"):
        push(folder, tag="v1", private=True)
    assert not hub_client.requests


def test_arguments_that_exclude_each_other(folder):
    for given, message in (
        ({"repo": "a/b/c"}, "no name of a repository"),
        ({"create_pr": True, "revision": "next"}, "opens a pull request for main"),
        ({"create_pr": True, "tag": "v1"}, "leave `tag` out"),
    ):
        with pytest.raises(InputError, match=message):
            push(folder, **given)


def test_a_card_that_the_hub_refuses(hub_client, folder):
    (folder / "README.md").write_text("---\nlicense: no-such-licence\n---\n")
    with pytest.raises(HubError, match="README.md is refused by the Hub"):
        push(folder)


def test_a_card_that_somebody_wrote_on_the_hub_stays(hub_client, folder, caplog):
    push(folder)
    generated = hub_client.files(REPO)["README.md"]
    assert not push(folder).has_changed and not is_written(generated.decode())
    hub_client.commit(REPO, {"README.md": b"---\nlicense: mit\n---\nMine.\n"}, "By hand")
    pushed = push(folder)
    assert pushed.kept_card and hub_client.files(REPO)["README.md"].endswith(b"Mine.\n")
    assert "replace_card=True" in caplog.text
    push(folder, replace_card=True)
    assert hub_client.files(REPO)["README.md"] == generated
    # One that was written here is meant to go there.
    (folder / "README.md").write_text("My own.\n")
    hub_client.commit(REPO, {"README.md": b"Mine.\n"}, "By hand")
    push(folder, tags=["mine"])
    assert hub_client.files(REPO)["README.md"] == b"---\ntags:\n- mine\n---\nMy own.\n"


def test_the_card_of_a_folder_names_the_folder(hub_client, folder):
    push(folder, path_in_repo="a/b/", tags=["extra"])
    card = hub_client.files(REPO)["a/b/README.md"].decode()
    assert 'AutoModel.from_pretrained(checkpoint, subfolder="a/b", trust_remote_code=True)' in card
    assert f"hf-mtl predict {REPO} --subfolder a/b --text" in card and "- extra" in card
    for inside in ("../x", "/abs", "a//b", "."):
        with pytest.raises(InputError, match="expected a folder of the repository"):
            push(folder, path_in_repo=inside)
    with pytest.raises(InputError, match="repo_id=None"):
        push(folder, repo=None)


def test_a_card_that_cannot_be_read(hub_client, folder):
    (folder / "README.md").write_bytes(b"caf\xe9")
    with pytest.raises(InputError, match="README.md is not in UTF-8"):
        push(folder)
    (folder / "README.md").write_text("---\ntags: [\n---\n")
    with pytest.raises(InputError, match="front matter is no valid YAML"):
        push(folder, tags=["mine"])


def test_the_command(hub_client, folder, capsys):
    assert main(["push", str(folder), REPO, "--dry_run"]) == 0
    assert "model.safetensors" in capsys.readouterr().out and not hub_client.requests
    assert main(["push", str(folder), REPO, "--tag", "v1", "--message", "By command"]) == 0
    printed = capsys.readouterr().out
    assert f"AutoModel.from_pretrained('{REPO}', revision='v1', trust_remote_code=True)" in printed
    assert hub_client.commits(REPO)[0].message == "By command"
    assert main(["push", str(folder), REPO, "--branch", "x"]) == 2
    hub_client.fail("commit", 403)
    (folder / "results.json").write_text("[]")
    assert main(["push", str(folder), REPO]) == 2
    assert "hf-mtl push: The token may not write" in capsys.readouterr().err


@pytest.mark.slow
def test_a_push_that_is_killed_changes_nothing(hub, folder, tmp_path):
    """Wherever it is killed, who reads the repository finds what was there."""
    environment = hub_environment(hub, tmp_path / "home")
    command = [sys.executable, "-m", "hf_mtl.cli", "push", str(folder), REPO]
    for where in ("preupload", "lfs_put", "commit"):
        hub.fail(where, "stall")
        with subprocess.Popen(command, env=environment, cwd=Path(__file__).parents[2]) as process:
            deadline = time.monotonic() + 60
            while not hub.calls(where) and time.monotonic() < deadline:
                time.sleep(0.05)
            process.kill()
        hub.release()
        hub.recover()
        assert set(hub.files(REPO)) == {".gitattributes"}
    subprocess.run(command, env=environment, cwd=Path(__file__).parents[2], check=True)
    assert "model.safetensors" in hub.files(REPO)


@pytest.mark.slow
def test_processes_that_push_at_once_leave_one_of_their_checkpoints(hub, folder, tokenizer, tmp_path):
    """Neither is lost without a word: one waits its turn, or is told that it came too late."""
    other = tmp_path / "other"
    randomise(build_model(TASKS, vocab_size=tokenizer.vocab_size), std=0.3).save_pretrained(other)
    tokenizer.save_pretrained(other)
    root = Path(__file__).parents[2]
    runs = [
        subprocess.Popen(
            [sys.executable, "-m", "hf_mtl.cli", "push", str(one), REPO],
            env=hub_environment(hub, tmp_path / f"home{place}"),
            cwd=root,
            stderr=subprocess.PIPE,
            text=True,
        )
        for place, one in enumerate((folder, other, folder, other))
    ]
    said = [run.communicate(timeout=120)[1] for run in runs]
    assert 0 in [run.returncode for run in runs]
    for run, text in zip(runs, said):
        assert run.returncode == 0 or "hf-mtl push" in text, text
    weights = hub.files(REPO)["model.safetensors"]
    assert weights in [(one / "model.safetensors").read_bytes() for one in (folder, other)]
    for commit in hub.commits(REPO)[::-1][1:]:
        assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(commit.files)
