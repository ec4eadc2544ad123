"""A hub on this machine: the few answers of huggingface.co that a download asks for, given from a folder."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class LocalHub:
    """Repositories by their ids.

    Attributes:
        folders: What each holds.
        sent: Names of the files that were sent, in the order of the requests.
        breaks_off: Whether it hangs up instead of answering.
    """

    folders: dict[str, Path]
    breaks_off: bool = False
    sent: list[str] = field(default_factory=list)

    def weights_sent(self) -> set[str]:
        return {name for name in self.sent if name.endswith((".safetensors", ".bin", ".ckpt", ".msgpack"))}


@contextmanager
def local_hub(folders: dict[str, Path], cache: Path, patch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    """Let huggingface_hub find a hub on this machine, and keep what it fetches in ``cache``."""
    hub = LocalHub(folders)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _answering(hub))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    patch.setattr("huggingface_hub.constants.ENDPOINT", address)
    patch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    try:
        yield hub
    finally:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        server.shutdown()
        server.server_close()
        thread.join()


def _answering(hub: LocalHub) -> type[BaseHTTPRequestHandler]:
    class Answer(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def log_message(self, *args: object) -> None:
            pass

        def _answer(self, *, with_body: bool) -> None:
            if hub.breaks_off:
                self.close_connection = True
                return
            path = unquote(self.path.partition("?")[0]).strip("/")
            is_call = path.startswith("api/models/")
            owner, name, what, *rest = path.removeprefix("api/models/").split("/")
            folder = hub.folders.get(f"{owner}/{name}")
            if folder is None:
                self._send(404, b"", error="RepoNotFound")
            elif rest[0] not in ("main", COMMIT):
                self._send(404, b"", error="RevisionNotFound")
            elif is_call and what == "revision":
                self._send(200, json.dumps({"id": f"{owner}/{name}", "sha": COMMIT, "siblings": []}).encode())
            elif is_call:
                self._send(200, json.dumps([_entry(folder, file) for file in _files(folder)]).encode())
            elif (folder / "/".join(rest[1:])).is_file():
                if with_body:
                    hub.sent.append("/".join(rest[1:]))
                self._send(200, (folder / "/".join(rest[1:])).read_bytes(), with_body=with_body)
            else:
                self._send(404, b"", error="EntryNotFound")

        def _send(self, status: int, body: bytes, *, error: str = "", with_body: bool = True) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
            if error:
                self.send_header("X-Error-Code", error)
            self.end_headers()
            if with_body:
                self.wfile.write(body)

    return Answer


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _entry(folder: Path, file: Path) -> dict[str, object]:
    content = file.read_bytes()
    oid = hashlib.sha1(content).hexdigest()
    return {"type": "file", "path": file.relative_to(folder).as_posix(), "size": len(content), "oid": oid}
