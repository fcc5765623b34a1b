"""Every way in which the tests' Hub fails, and what the real client makes of it."""

import threading
import time

import httpx2
import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

from tests.hub.loopback_hub import LoopbackHub
from tests.hub.test_loopback_hub import CARD, FILES, REPO, WEIGHTS, commit, read, without_attributes


@pytest.mark.parametrize(("how", "statuses"), [("whole", [206]), ("no_range", [200])])
def test_a_download_that_is_cut_goes_on(
    hub_client: LoopbackHub, monkeypatch: pytest.MonkeyPatch, how: str, statuses: list[int]
):
    # The client goes on after the last whole chunk, and one is larger than the file.
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)
    hub_client.add_repo(REPO, FILES)
    # The first call is HEAD, which has no body to cut.
    hub_client.fail("resolve", "cut", after=1)
    if how == "no_range":
        hub_client.fail("resolve", "no_range", after=2)
    assert read("model.safetensors") == WEIGHTS
    assert [one.status for one in hub_client.requests if one.method == "GET"] == [200, *statuses]
    assert hub_client.waits == [1]


@pytest.mark.parametrize("how", [401, 403, "GatedRepo", 404, 409, 412, 429, 500, 503, "drop"])
def test_a_commit_that_fails_is_not_tried_again(hub_client: LoopbackHub, how: int | str):
    """The client sends a commit once, so neither a second one comes nor any wait."""
    hub_client.add_repo(REPO)
    hub_client.fail("commit", how)
    errors = {"GatedRepo": GatedRepoError, 404: RepositoryNotFoundError, "drop": httpx2.RemoteProtocolError}
    with pytest.raises(errors.get(how, HfHubHTTPError)) as raised:
        commit(FILES)
    if how != "drop":
        assert raised.value.response.status_code == (403 if how == "GatedRepo" else how)
    assert hub_client.calls("commit") == 1 and not hub_client.waits and len(hub_client.commits(REPO)) == 1
    commit(FILES)
    assert without_attributes(hub_client.files(REPO)) == FILES


@pytest.mark.parametrize("how", ["lost", "cut"])
def test_a_commit_whose_answer_is_lost_is_made(hub_client: LoopbackHub, how: str):
    hub_client.add_repo(REPO)
    hub_client.fail("commit", how)
    with pytest.raises(httpx2.RemoteProtocolError):
        commit(FILES)
    assert len(hub_client.commits(REPO)) == 2 and without_attributes(hub_client.files(REPO)) == FILES
    assert commit(FILES).oid == hub_client.head(REPO) and len(hub_client.commits(REPO)) == 2


@pytest.mark.parametrize("how", [429, 500, 503, "drop", "lost", "cut"])
@pytest.mark.parametrize("where", ["preupload", "lfs_batch", "lfs_put", "lfs_verify"])
def test_calls_before_a_commit_are_tried_again(hub_client: LoopbackHub, where: str, how: int | str):
    hub_client.add_repo(REPO)
    hub_client.fail(where, how)
    commit(FILES)
    assert without_attributes(hub_client.files(REPO)) == FILES and len(hub_client.commits(REPO)) == 2
    assert hub_client.calls(where) == 2 and hub_client.waits == ([2.0] if how == 429 else [1])


def test_calls_are_tried_six_times(hub_client: LoopbackHub):
    hub_client.add_repo(REPO)
    hub_client.fail("lfs_put", 503, times=99)
    with pytest.raises(RuntimeError, match="Error while uploading"):
        commit(FILES)
    assert hub_client.calls("lfs_put") == 6 and hub_client.waits == [1, 2, 4, 8, 8]
    hub_client.recover()
    hub_client.fail("preupload", 429, headers={"Retry-After": "7"})
    hub_client.fail("lfs_batch", 429, headers={"RateLimit": '"api";r=0;t=30'})
    commit(FILES)
    assert hub_client.waits[5:] == [8.0, 31.0]


@pytest.mark.parametrize("how", [429, 500, "drop"])
@pytest.mark.parametrize(
    ("where", "call"),
    [
        ("whoami", lambda api: api.whoami()),
        ("create", lambda api: api.create_repo("ann/new")),
        ("info", lambda api: api.model_info(REPO)),
        ("refs", lambda api: api.list_repo_refs(REPO)),
        ("paths_info", lambda api: api.get_paths_info(REPO, ["a"])),
        ("branch", lambda api: api.create_branch(REPO, branch="x")),
        ("tag", lambda api: api.create_tag(REPO, tag="x")),
        ("validate", lambda api: commit({"README.md": CARD.encode()})),
        ("settings", lambda api: api.update_repo_settings(REPO, private=True)),
    ],
)
def test_other_calls_are_not_tried_again(hub_client: LoopbackHub, where: str, call, how: int | str):
    hub_client.add_repo(REPO)
    hub_client.fail(where, how)
    with pytest.raises(httpx2.RemoteProtocolError if how == "drop" else HfHubHTTPError):
        call(HfApi())
    assert hub_client.calls(where) == 1 and not hub_client.waits
    call(HfApi())


@pytest.mark.parametrize("how", [401, "GatedRepo", "EntryNotFound", "RevisionNotFound", 404, 503])
def test_downloads_that_fail(hub_client: LoopbackHub, how: int | str):
    hub_client.add_repo(REPO, FILES)
    hub_client.fail("resolve", how, times=99)
    with pytest.raises((HfHubHTTPError, OSError)):
        read("config.json")
    hub_client.recover()
    assert read("config.json") == b"{}"


def test_the_nth_call_fails_alone(hub_client: LoopbackHub):
    hub_client.add_repo(REPO)
    hub_client.fail("info", 500, times=2, after=1)
    hub_client.fail("any", 403, after=4)
    statuses = []
    for _ in range(6):
        try:
            HfApi().model_info(REPO)
            statuses.append(200)
        except HfHubHTTPError as error:
            statuses.append(error.response.status_code)
    assert statuses == [200, 500, 500, 200, 403, 200] and hub_client.calls("info") == hub_client.calls("any") == 6
    assert [one.status for one in hub_client.requests] == statuses
    for where, how in (("none", 500), ("info", "none")):
        with pytest.raises(ValueError, match="'none'"):
            hub_client.fail(where, how)


def test_somebody_else_commits_in_between(hub_client: LoopbackHub):
    hub_client.add_repo(REPO)
    head = hub_client.head(REPO)
    hub_client.before("commit", lambda: hub_client.commit(REPO, {"theirs.txt": b""}, "Theirs"))
    with pytest.raises(HfHubHTTPError, match="A commit has happened since"):
        commit(FILES, parent_commit=head)
    assert hub_client.commits(REPO)[0].message == "Theirs"


def test_a_call_stalls_until_it_is_released(hub_client: LoopbackHub):
    hub_client.add_repo(REPO)
    hub_client.fail("commit", "stall")
    raised: list[Exception] = []

    def call() -> None:
        try:
            commit(FILES)
        except httpx2.RemoteProtocolError as error:
            raised.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    deadline = time.monotonic() + 10
    while not hub_client.calls("commit") and time.monotonic() < deadline:
        time.sleep(0.005)
    assert thread.is_alive() and not raised
    hub_client.release()
    thread.join(10)
    assert len(raised) == 1 and len(hub_client.commits(REPO)) == 1
