"""The tests' Hub, driven by the real client: what is written is what is read, and who may do what."""

import subprocess
import sys
from io import BytesIO
from pathlib import Path

import httpx2
import huggingface_hub
import pytest
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
    ModelCard,
    hf_hub_download,
    snapshot_download,
)
from huggingface_hub.errors import (
    BadRequestError,
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import http_get
from transformers import AutoConfig, BertConfig

from tests.hub.conftest import hub_environment
from tests.hub.loopback_calls import User
from tests.hub.loopback_cards import EMPTY
from tests.hub.loopback_hub import LoopbackHub

REPO = "acme/1.support-desk_v2"
WEIGHTS = bytes(range(256)) * 40
FILES = {"config.json": b"{}", "model.safetensors": WEIGHTS, "folder/notes.txt": b"hello", "empty.bin": b""}
RESULT = "task: {type: t}\n    dataset: {type: d, name: D}\n    metrics: [{type: accuracy, value: 0.5}]"
CARD = f"---\nlicense: mit\ntags: [x]\nmodel-index:\n- name: m\n  results:\n  - {RESULT}\n---\n# Card\n"


def adds(files: dict[str, bytes]) -> list[CommitOperationAdd]:
    return [CommitOperationAdd(name, data) for name, data in files.items()]


def commit(files: dict[str, bytes], repo: str = REPO, **given):
    return HfApi().create_commit(repo, adds(files), commit_message=given.pop("message", "Files"), **given)


def read(name: str, repo: str = REPO, **given) -> bytes:
    return Path(hf_hub_download(repo, name, **given)).read_bytes()


def without_attributes(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if name != ".gitattributes"}


def test_what_is_committed_is_downloaded(hub_client: LoopbackHub):
    url = HfApi().create_repo(REPO)
    assert url.repo_id == REPO and list(hub_client.files(REPO)) == [".gitattributes"]
    made = commit(FILES, commit_description="All of them")
    first, *others = hub_client.commits(REPO)
    assert (first.sha, first.message, first.description, first.author) == (made.oid, "Files", "All of them", "ann")
    assert [one.sha for one in others] == [first.parent]
    assert without_attributes(hub_client.files(REPO)) == FILES
    folder = Path(snapshot_download(REPO))
    there = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert without_attributes(there) == FILES
    for name, data in FILES.items():
        assert read(name, force_download=True) == read(name, revision=made.oid) == data
    assert hub_client.calls("lfs_put") == hub_client.calls("lfs_verify") == 1
    assert not [one for one in hub_client.requests if one.status != 200] and not hub_client.waits


def test_what_is_there_is_not_sent_again(hub_client: LoopbackHub):
    hub_client.add_repo(REPO, FILES)
    head = hub_client.head(REPO)
    assert commit(FILES).oid == head == hub_client.head(REPO)
    assert not hub_client.calls("commit") and not hub_client.calls("lfs_put")
    commit({**FILES, "copy.safetensors": WEIGHTS, "config.json": b"[]"})
    assert not hub_client.calls("lfs_put")
    assert hub_client.files(REPO)["copy.safetensors"] == WEIGHTS and hub_client.files(REPO)["config.json"] == b"[]"


def test_files_and_folders_are_removed_and_copied(hub_client: LoopbackHub):
    hub_client.add_repo(REPO, {**FILES, "a/b/c.txt": b"1", "a/d.txt": b"2", "ab.txt": b"3"})
    operations = [
        CommitOperationDelete("a/"),
        CommitOperationDelete("config.json"),
        CommitOperationCopy("model.safetensors", "moved.safetensors"),
        CommitOperationCopy("folder/notes.txt", "notes.txt"),
    ]
    HfApi().create_commit(REPO, operations, commit_message="Tidy")
    there = hub_client.files(REPO)
    assert not [name for name in there if name.startswith("a/")] and "ab.txt" in there and "config.json" not in there
    assert there["moved.safetensors"] == WEIGHTS and there["notes.txt"] == b"hello"
    head = hub_client.head(REPO)
    with pytest.raises(RemoteEntryNotFoundError, match="A file with this name doesn't exist"):
        HfApi().create_commit(REPO, [*adds({"new": b""}), CommitOperationDelete("none")], commit_message="None")
    assert hub_client.head(REPO) == head


def test_listings(hub_client: LoopbackHub):
    hub_client.add_repo(REPO, {**FILES, "README.md": CARD.encode()})
    api = HfApi()
    info = api.model_info(REPO, files_metadata=True)
    assert info.sha == hub_client.head(REPO) and not info.private and info.gated is False
    assert {"x", "license:mit"} <= set(info.tags) and info.card_data.eval_results[0].metric_value == 0.5
    weights = next(one for one in info.siblings if one.rfilename == "model.safetensors")
    assert weights.size == len(WEIGHTS) and weights.lfs.size == len(WEIGHTS) and len(weights.lfs.sha256) == 64
    assert vars(api.model_info(REPO, expand=["sha", "private"]))["siblings"] is None
    assert set(api.list_repo_files(REPO)) == set(hub_client.files(REPO))
    assert {one.path for one in api.list_repo_tree(REPO)} == {*FILES, "README.md", ".gitattributes", "folder"} - {
        "folder/notes.txt"
    }
    hub_client.commit(REPO, {"config.json": b"[1]"}, "Newer")
    (notes,) = api.list_repo_tree(REPO, "folder", expand=True)
    config, folder = api.get_paths_info(REPO, ["config.json", "folder", "none"], expand=True)
    assert (notes.last_commit.title, config.last_commit.title, folder.path) == ("Add files", "Newer", "folder")
    assert config.size == 3 and config.lfs is None
    assert [one.title for one in api.list_repo_commits(REPO)] == ["Newer", "Add files", "initial commit"]
    assert api.file_exists(REPO, "config.json") and not api.file_exists(REPO, "none")
    with pytest.raises(RemoteEntryNotFoundError):
        list(api.list_repo_tree(REPO, "none"))


def test_a_commit_upon_another_than_the_head_is_refused(hub_client: LoopbackHub):
    hub_client.add_repo(REPO)
    old = hub_client.head(REPO)
    commit(FILES, parent_commit=old)
    with pytest.raises(HfHubHTTPError, match="A commit has happened since") as raised:
        commit({"new.txt": b""}, parent_commit=old)
    assert raised.value.response.status_code == 412 and "new.txt" not in hub_client.files(REPO)


def test_pull_requests_branches_and_tags(hub_client: LoopbackHub):
    hub_client.add_repo(REPO, FILES)
    api, head = HfApi(), hub_client.head(REPO)
    made = commit({"config.json": b"[1]"}, create_pr=True)
    assert (made.pr_revision, made.pr_num, hub_client.head(REPO)) == ("refs/pr/1", 1, head)
    commit({"config.json": b"[2]"}, revision="refs/pr/1")
    assert read("config.json", revision="refs/pr/1") == b"[2]" and read("config.json") == b"{}"
    api.create_branch(REPO, branch="feature/x-1.0", revision="refs/pr/1")
    api.create_branch(REPO, branch="feature/x-1.0", exist_ok=True)
    api.create_tag(REPO, tag="v1.0", revision="feature/x-1.0")
    assert hub_client.head(REPO, "v1.0") == hub_client.head(REPO, "refs/pr/1")
    assert api.model_info(REPO, revision=head[:7]).sha == head
    refs = api.list_repo_refs(REPO, include_pull_requests=True)
    assert [one.name for one in refs.branches] == ["main", "feature/x-1.0"]
    assert [one.ref for one in (*refs.tags, *refs.pull_requests)] == ["refs/tags/v1.0", "refs/pr/1"]
    for call in (lambda: api.create_tag(REPO, tag="v1.0"), lambda: api.create_branch(REPO, branch="main")):
        with pytest.raises(HfHubHTTPError, match="exists") as raised:
            call()
        assert raised.value.response.status_code == 409
    with pytest.raises(BadRequestError):
        api.create_branch(REPO, branch="refs/pr/5")
    api.delete_tag(REPO, tag="v1.0")
    api.delete_branch(REPO, branch="feature/x-1.0")
    for call in (
        lambda: commit({"a.txt": b""}, revision="none"),
        lambda: read("config.json", revision="v1.0"),
        lambda: api.delete_tag(REPO, tag="v1.0"),
        lambda: api.model_info(REPO, revision="feature/x-1.0"),
    ):
        with pytest.raises(RevisionNotFoundError):
            call()


def test_who_may_see_and_change_what(hub_client: LoopbackHub):
    api = HfApi()
    assert [one["name"] for one in api.whoami()["orgs"]] == ["acme"] and api.whoami("hf_reader")["name"] == "bob"
    api.create_repo("acme/secret", private=True)
    api.create_repo("acme/secret", exist_ok=True)
    commit({"config.json": b"{}"}, "acme/secret")
    assert api.model_info("acme/secret").private and read("config.json", "acme/secret") == b"{}"
    for token, status in ((False, 401), ("hf_reader", 404)):
        with pytest.raises(RepositoryNotFoundError) as raised:
            api.model_info("acme/secret", token=token)
        assert raised.value.response.status_code == status
    with pytest.raises(HfHubHTTPError, match="Invalid user token"):
        api.whoami("hf_unknown")
    with pytest.raises(HfHubHTTPError, match="Invalid credentials") as raised:
        api.model_info("acme/secret", token="hf_unknown")
    assert raised.value.response.status_code == 401
    hub_client.tokens["hf_ann_reads"] = User("ann", ("acme",), may_write=False)
    for repo, token in (("bob/model", None), ("bob/model", "hf_reader"), ("acme/other", "hf_ann_reads")):
        with pytest.raises(HfHubHTTPError, match="403 Forbidden: You don't have the rights"):
            api.create_repo(repo, token=token)
    with pytest.raises(HfHubHTTPError, match="no write access"):
        commit({"a.txt": b""}, "acme/secret", token="hf_ann_reads")
    with pytest.raises(HfHubHTTPError, match="already created") as raised:
        api.create_repo("acme/secret")
    assert raised.value.response.status_code == 409
    api.update_repo_settings("acme/secret", private=False)
    assert not api.model_info("acme/secret", token=False).private
    api.delete_repo("acme/secret")
    assert not api.repo_exists("acme/secret") and not hub_client.repositories


def test_a_pull_request_needs_no_membership_and_a_gate_holds(hub_client: LoopbackHub):
    hub_client.tokens["hf_eve"] = User("eve")
    hub_client.add_repo(REPO, FILES, gated=True, granted=["bob"])
    made = commit({"other.safetensors": WEIGHTS + b"1"}, create_pr=True, token="hf_eve")
    assert made.pr_revision == "refs/pr/1"
    with pytest.raises(HfHubHTTPError, match="eve is no member"):
        commit({"other.txt": b""}, token="hf_eve")
    assert HfApi().model_info(REPO, token=False).gated == "auto"
    for token, status in ((False, 401), ("hf_eve", 403)):
        with pytest.raises(GatedRepoError) as raised:
            read("config.json", token=token)
        assert raised.value.response.status_code == status
        with pytest.raises(GatedRepoError):
            HfApi().auth_check(REPO, token=token)
    assert read("config.json", token="hf_reader") == read("config.json") == b"{}"


def test_lfs_objects_must_be_those_of_their_hashes(hub_client: LoopbackHub):
    hub_client.add_repo(REPO)
    url = f"{hub_client.endpoint}/lfs/{REPO}/{'0' * 64}"
    assert httpx2.put(url, content=b"other").status_code == 400
    (operation,) = adds({"model.safetensors": WEIGHTS})
    HfApi().preupload_lfs_files(REPO, [operation])
    hub_client.repositories[REPO].objects.clear()
    with pytest.raises(BadRequestError, match="was not uploaded"):
        HfApi().create_commit(REPO, [operation], commit_message="Nothing")
    assert len(hub_client.commits(REPO)) == 1


def test_gitattributes_a_binary_sample_and_size_make_lfs(hub_client: LoopbackHub):
    hub_client.add_repo(REPO, {".gitattributes": b"*.txt filter=lfs\n"})
    commit({"a/b.txt": b"text", "plain.safetensors": b"no zero", "binary": b"\0", "large.json": b" " * 10_000_001})
    lfs = {
        one.path: one.lfs is not None for one in HfApi().list_repo_tree(REPO, recursive=True) if hasattr(one, "lfs")
    }
    expected = {"a/b.txt": True, "plain.safetensors": False, "binary": True, "large.json": True}
    assert {name: lfs[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("---\nlicense: mine\n---\n", '"license" must be one of'),
        ("---\ntags: [1]\n---\n", '"tags" must be'),
        ("---\na: [\n---\n", "ParserError"),
        ("---\n- a\n---\n", "should be a dict"),
        ("---\nmodel-index:\n- name: m\n  results: [{task: {type: t}}]\n---\n", "Invalid `model_index`"),
        ("---\nmodel-index: []\n---\n", "non-empty list"),
    ],
)
def test_bad_cards_are_refused(hub_client: LoopbackHub, content: str, said: str):
    hub_client.add_repo(REPO)
    with pytest.raises(ValueError, match=said):
        commit({"README.md": content.encode()})
    assert len(hub_client.commits(REPO)) == 1 and not hub_client.calls("preupload")


def test_good_cards_pass_and_empty_ones_are_warned_of(hub_client: LoopbackHub):
    hub_client.add_repo(REPO)
    commit({"README.md": CARD.encode()})
    ModelCard(CARD).validate()
    with pytest.warns(UserWarning, match=EMPTY):
        commit({"README.md": b"# No values\n"})
    assert hub_client.files(REPO)["README.md"] == b"# No values\n"


def test_ranges(hub_client: LoopbackHub):
    hub_client.add_repo(REPO, FILES)
    url, headers = (
        f"{hub_client.endpoint}/{REPO}/resolve/main/model.safetensors",
        {"Authorization": "Bearer hf_writer"},
    )
    size = len(WEIGHTS)
    for asked, first, last in (
        ("5-", 5, size - 1),
        ("5-9", 5, 9),
        ("-5", size - 5, size - 1),
        (f"5-{size}", 5, size - 1),
    ):
        answer = httpx2.get(url, headers={**headers, "Range": f"bytes={asked}"})
        assert (answer.status_code, answer.content) == (206, WEIGHTS[first : last + 1])
        assert answer.headers["Content-Range"] == f"bytes {first}-{last}/{size}"
    assert httpx2.get(url, headers={**headers, "Range": f"bytes={size}-"}).status_code == 416
    head = httpx2.head(url, headers=headers)
    assert head.headers["X-Repo-Commit"] == hub_client.head(REPO) and head.headers["X-Linked-Size"] == str(size)
    assert head.headers["ETag"] == head.headers["X-Linked-Etag"] and head.headers["Content-Length"] == str(size)
    file = BytesIO()
    file.write(WEIGHTS[:100])
    http_get(url, file, resume_size=100, headers=headers, expected_size=size)
    assert file.getvalue() == WEIGHTS


def test_transformers_reads_and_writes(hub_client: LoopbackHub):
    BertConfig(hidden_size=12, num_attention_heads=2).push_to_hub("ann/bert.v1")
    assert AutoConfig.from_pretrained("ann/bert.v1").hidden_size == 12
    assert "config.json" in hub_client.files("ann/bert.v1")


def test_another_process(hub: LoopbackHub, tmp_path: Path):
    hub.add_repo(REPO, FILES)
    program = (
        "from huggingface_hub import *\nprint(whoami()['name'], open(hf_hub_download('%s', 'config.json')).read())"
    )
    command = [sys.executable, "-c", program % REPO]
    given = {"env": hub_environment(hub, tmp_path), "capture_output": True, "text": True, "timeout": 60}
    assert subprocess.run(command, **given).stdout.split() == ["ann", "{}"]
    assert (tmp_path / "hub").is_dir()


def test_the_client_is_itself_again():
    """Nothing of a Hub is left for the tests that follow."""
    assert huggingface_hub.hf_api.api.endpoint == huggingface_hub.constants.ENDPOINT
    assert "127.0.0.1" not in huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE
