"""What happens when the hub can be reached: a hub of two files on this machine, asked by the real client."""

import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save

from fewstep.errors import ConfigError
from fewstep.scores.checkpoints.reading import check_source, read_tensors
from fewstep.scores.checkpoints.source import Source, fetch_file

FILES = {"model.safetensors": save({"weight": torch.tensor([3.0])}), "config.json": b'{"size": 1}'}
ASKED: list[str] = []


class Hub(BaseHTTPRequestHandler):
    """Answers for the repository org/scorer as the hub does, and notes which files were asked for."""

    def do_HEAD(self) -> None:
        self._answer(send=False)

    def do_GET(self) -> None:
        self._answer(send=True)

    def _answer(self, *, send: bool) -> None:
        if "/resolve/" in self.path:  # the client also asks the hub about itself
            ASKED.append(f"{self.command} {self.path}")
        repository, _, name = self.path.partition("/resolve/main/")
        content = FILES.get(name) if repository == "/org/scorer" else None
        self.send_response(404 if content is None else 200)
        if content is None:
            self.send_header("X-Error-Code", "EntryNotFound" if repository == "/org/scorer" else "RepoNotFound")
            self.send_header("Content-Length", "0")
        else:
            self.send_header("X-Repo-Commit", "c" * 40)
            self.send_header("ETag", f'"{name}"')
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if send and content is not None:
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def hub(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's address as the client's, and an empty cache."""
    ASKED.clear()
    connect(monkeypatch, address, tmp_path)


def connect(monkeypatch: pytest.MonkeyPatch, address: str, folder: Path) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "cache"))


def test_a_checkpoint_that_the_hub_has_is_not_missing_and_is_not_fetched_by_the_check(hub: None) -> None:
    check_source(Source("clipscore", "org/scorer"), others=["config.json"])
    assert ASKED and all(line.startswith("HEAD ") for line in ASKED)


def test_loading_downloads_what_is_needed_once(hub: None) -> None:
    source = Source("clipscore", "org/scorer")
    assert read_tensors(source)["weight"].item() == 3
    ASKED.clear()
    assert read_tensors(source)["weight"].item() == 3
    assert ASKED == []


def test_a_file_that_the_repository_does_not_have_is_named_before_anything_is_drawn(hub: None) -> None:
    with pytest.raises(ConfigError, match=r"clipscore needs tokenizer\.json, which the repository org/scorer does not"):
        check_source(Source("clipscore", "org/scorer"), others=["tokenizer.json"])
    with pytest.raises(ConfigError, match=r"clipscore needs tokenizer\.json, which the repository org/scorer does not"):
        fetch_file(Source("clipscore", "org/scorer"), "tokenizer.json")


def test_a_repository_that_is_not_there_is_refused_in_one_sentence(hub: None) -> None:
    with pytest.raises(ConfigError, match="org/other is neither a local folder nor a Hugging Face repository"):
        check_source(Source("clipscore", "org/other"))


def test_a_hub_that_cannot_be_reached_is_one_sentence_with_the_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with socket.socket() as nobody:  # bound and not listening: every connection is refused
        nobody.bind(("127.0.0.1", 0))
        connect(monkeypatch, f"http://127.0.0.1:{nobody.getsockname()[1]}", tmp_path)
        monkeypatch.setattr(time, "sleep", lambda seconds: None)  # the client waits between its tries
        with pytest.raises(ConfigError, match=r"the hub cannot be reached: with a network run `HF_HUB_OFFLINE=0 hf d"):
            check_source(Source("clipscore", "org/scorer"))
