"""A Hub of the tests' own, and this process's client pointed at it."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import constants

from tests.hub.loopback_hub import LoopbackHub


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    """A Hub that runs as long as the test: `hf_writer` is ann's, a member of acme; `hf_reader` bob's, and reads."""
    hub = LoopbackHub()
    hub.start()
    yield hub
    hub.stop()
    assert not hub.errors


@pytest.fixture
def hub_client(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LoopbackHub]:
    """The Hub, which this process's `huggingface_hub` and Transformers speak to as the user ann, without waiting."""
    home = tmp_path / "hub_home"
    for name, value in {
        "ENDPOINT": hub.endpoint,
        "HUGGINGFACE_CO_URL_TEMPLATE": hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
        "HF_HOME": str(home),
        "HF_HUB_CACHE": str(tmp_path / "hub_cache"),
        "HF_ASSETS_CACHE": str(home / "assets"),
        "AGENT_HARNESSES_PATH": str(home / ".agent_harnesses.json"),
        "HF_TOKEN_PATH": str(home / "token"),
        "HF_STORED_TOKENS_PATH": str(home / "stored_tokens"),
    }.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setenv("HF_TOKEN", "hf_writer")
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    without_waits = SimpleNamespace(**{**vars(time), "sleep": hub.waits.append})
    for module in ("utils._http", "file_download"):
        monkeypatch.setattr(f"huggingface_hub.{module}.time", without_waits)
    # Asked for with the first call of a process, which no test of calls expects.
    monkeypatch.setattr("huggingface_hub.utils._detect_agent._registry", {"standardEnvVars": [], "harnesses": {}})
    # Both are made once, with the address of that time.
    monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", hub.endpoint)
    monkeypatch.setattr("transformers.utils.hub._hf_api", None)
    huggingface_hub.close_session()
    yield hub
    huggingface_hub.close_session()


def hub_environment(hub: LoopbackHub, home: Path, token: str = "hf_writer") -> dict[str, str]:
    """Return the environment of a new process that speaks to a Hub, with caches of its own."""
    own = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN_PATH", "HF_MODULES_CACHE", "TRANSFORMERS_OFFLINE")
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    return {
        **{name: value for name, value in kept.items() if name not in own},
        "HF_ENDPOINT": hub.endpoint,
        "HF_TOKEN": token,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HOME": str(home),
        "NO_PROXY": "127.0.0.1",
        "OMP_NUM_THREADS": "1",
    }
