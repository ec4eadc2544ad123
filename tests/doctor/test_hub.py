"""A hub that refuses, hangs or is not there: one on this machine."""

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from fewstep.doctor.hub import hub
from fewstep.doctor.line import Line

OPEN, GATED = "somebody/open", "somebody/gated"
ANSWERS: dict[str, tuple[int, object]] = {
    "/api/models?limit=1": (200, []),
    "/api/whoami-v2": (200, {"name": "ada"}),
    f"/api/models/{OPEN}/auth-check": (200, None),
    f"/api/models/{GATED}/auth-check": (403, None),
}


@contextmanager
def answering(answers: Mapping[str, tuple[int, object]], patch: pytest.MonkeyPatch) -> Iterator[list[str | None]]:
    """Let huggingface_hub find a hub with these answers; gives the tokens that it is shown."""
    shown: list[str | None] = []
    hanging = threading.Event()

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            shown.append(self.headers.get("Authorization"))
            if self.path not in answers:
                hanging.wait(60)
                return
            status, content = answers[self.path]
            body = b"" if content is None or status == 307 else json.dumps(content).encode()
            self.send_response(status)
            if status == 307:
                self.send_header("Location", str(content))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    patch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    try:
        yield shown
    finally:
        hanging.set()
        server.shutdown()
        server.server_close()
        thread.join()


def said(patch: pytest.MonkeyPatch, token: str | None = "hf_x", **changed: tuple[int, object]) -> dict[str, Line]:
    patch.setenv("HF_TOKEN", token or "")
    patch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", "/nowhere/token")
    answers = {**ANSWERS, **{f"/api/{name.replace('_', '-')}": answer for name, answer in changed.items()}}
    with answering(answers, patch):
        return {line.about: line for line in hub([OPEN, GATED])}


def test_token_and_licences_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    found = said(monkeypatch)
    assert found["token"].found == "of ada"
    assert found["licences"].found == "1 of 2 teachers of the recipes can be read"
    assert found["licence"] == Line(
        "licence", f"{GATED} is gated", f"accept its licence at https://huggingface.co/{GATED}"
    )


def test_without_a_token_the_hub_is_still_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    found = said(monkeypatch, token=None)
    assert found["token"].state == "note"
    assert "hf auth login" in str(found["token"].fix)
    assert str(found["licence"].fix).endswith(", and log in")


def test_a_refused_token_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    found = said(monkeypatch, whoami_v2=(401, {"error": "Invalid credentials"}))
    assert found["token"].state == "broken"
    assert "hf auth login" in str(found["token"].fix)


def test_the_token_is_shown_to_nobody_before_the_hub_has_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    with answering(ANSWERS, monkeypatch) as shown:
        list(hub([OPEN]))
    assert shown == [None, "Bearer hf_x", "Bearer hf_x"]


@pytest.mark.parametrize(("to", "shown"), [("", "Bearer hf_x"), ("elsewhere", None)])
def test_a_token_follows_a_model_that_moved_but_not_to_another_host(
    to: str, shown: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    with answering(ANSWERS, monkeypatch) as elsewhere:
        from huggingface_hub import constants

        place = constants.ENDPOINT if to else ""
        moved = {**ANSWERS, "/api/models/old/name/auth-check": (307, f"{place}/api/models/{OPEN}/auth-check")}
        with answering(moved, monkeypatch) as here:
            found = {line.about: line for line in hub(["old/name"])}
    assert found["licences"].found.startswith("1 of 1")
    assert (elsewhere if to else here)[-1] == shown


def test_a_hub_that_hangs_is_given_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    started = time.monotonic()
    with answering({}, monkeypatch):
        (line,) = hub([OPEN])
        assert time.monotonic() - started < 30  # huggingface_hub tries for longer; the server waits for twice that
    assert line.state == "note"
    assert "does not answer within 3 s" in line.found


def test_a_hub_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    (line,) = hub([OPEN])
    assert (line.about, line.state) == ("hub", "note")
    assert "HF_ENDPOINT" in str(line.fix)


def test_offline_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(ANSWERS, monkeypatch) as shown:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        (line,) = hub([OPEN])
    assert shown == []
    assert line.found.startswith("offline by HF_HUB_OFFLINE")
