"""The judge, against a server of the test on this machine."""

import base64
import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fewstep.errors import ConfigError
from fewstep.scores.metric import Finding, MetricError, Picture, PromptItem
from fewstep.scores.metrics.judge import MAX_ANSWER, JudgeMetric, rating
from tests.scores.tiny_pictures import metric_of, pattern, scores_of


class Endpoint:
    """Answers like an OpenAI-compatible server, with the given texts in turn; a number is an error's status."""

    def __init__(self) -> None:
        self.replies: list[str | int | bytes] = []
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                endpoint.asked.append({"path": self.path, **json.loads(body)})
                endpoint.headers.append(dict(self.headers))
                reply = endpoint.replies.pop(0)
                self.send_response(reply if isinstance(reply, int) else 200)
                self.end_headers()
                said = json.dumps({"choices": [{"message": {"content": str(reply)}}]}).encode()
                self.wfile.write(reply if isinstance(reply, bytes) else said)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}/v1"


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    made = Endpoint()
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


@pytest.fixture
def picture(tmp_path: Path) -> Picture:
    pattern(12, 8).save(tmp_path / "a.png")
    return Picture(tmp_path / "a.png", PromptItem("p1", "a red car"), seed=2)


def metric(endpoint: Endpoint, **settings: Any) -> JudgeMetric:
    made = metric_of("judge", endpoint=endpoint.address, model="some-vlm", pause_seconds=0, **settings)
    made.check([])
    return made


def test_the_rating_is_read_from_the_answer(endpoint: Endpoint, picture: Picture) -> None:
    endpoint.replies = ["The car is red but blurred.\nRating: 7.5"]
    assert metric(endpoint).examine([picture]) == [Finding(7.5, {"answer": "The car is red but blurred.\nRating: 7.5"})]


def test_the_endpoint_is_sent_the_instruction_the_prompt_and_the_picture(endpoint: Endpoint, picture: Picture) -> None:
    endpoint.replies = ["Rating: 3"]
    scores_of(metric(endpoint, instruction="Rate it."), [picture])
    (asked,) = endpoint.asked
    assert (asked["path"], asked["model"], asked["temperature"]) == ("/v1/chat/completions", "some-vlm", 0)
    text, shown = asked["messages"][0]["content"]
    assert text == {"type": "text", "text": "Rate it.\n\nPrompt: a red car"}
    kind, _, data = shown["image_url"]["url"].partition(",")
    assert kind == "data:image/png;base64"
    sent = Image.open(io.BytesIO(base64.b64decode(data)))
    assert np.array_equal(np.asarray(sent), np.asarray(picture.image()))


def test_an_answer_without_a_rating_is_asked_again(endpoint: Endpoint, picture: Picture) -> None:
    endpoint.replies = ["I like it.", 500, "Rating: 4"]
    assert scores_of(metric(endpoint), [picture]) == [4.0]


@pytest.mark.parametrize(
    ("reply", "message"), [("I like it.", "no rating from 0 to 10: 'I like it.'"), (503, "gave no answer .*503")]
)
def test_a_picture_that_gets_no_rating_is_named_and_has_no_score(
    endpoint: Endpoint, picture: Picture, reply: str | int, message: str
) -> None:
    endpoint.replies = [reply, reply]
    with pytest.raises(MetricError, match=rf"judge cannot score .*a\.png \(prompt p1, seed 2\): .*{message}"):
        scores_of(metric(endpoint, tries=2), [picture])
    assert len(endpoint.asked) == 2


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (b"", "not valid JSON"),
        (b"<html>", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[]", "the whole is"),
        (b'{"choices": []}', "choices is"),
        (b'{"choices": [{"message": {"content": null}}]}', "choices.0.message.content is null"),
        (b" " * (MAX_ANSWER + 1), "more than"),
    ],
)
def test_an_answer_of_another_shape_is_no_answer(
    endpoint: Endpoint, picture: Picture, reply: bytes, message: str
) -> None:
    endpoint.replies = [reply]
    with pytest.raises(MetricError, match=rf"judge cannot score .*a\.png .*gave no answer \(.*{message}"):
        scores_of(metric(endpoint, tries=1), [picture])


def test_the_key_is_read_from_the_named_variable(
    endpoint: Endpoint, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "sesame")
    endpoint.replies = ["Rating: 1"]
    scores_of(metric(endpoint, key_variable="MY_KEY"), [picture])
    assert endpoint.headers[0]["Authorization"] == "Bearer sesame"


def test_without_a_key_none_is_sent(endpoint: Endpoint, picture: Picture) -> None:
    endpoint.replies = ["Rating: 1"]
    scores_of(metric(endpoint), [picture])
    assert "Authorization" not in endpoint.headers[0]


def test_a_named_key_that_is_not_set_is_refused_before_anything_is_drawn(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(ConfigError, match=r"judge\.key_variable is MY_KEY, and there is no such environment variable"):
        metric(endpoint, key_variable="MY_KEY")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, r"The judge is off: .* judge\.endpoint names none"),
        ({"endpoint": "http://localhost/v1"}, r"judge\.model names none"),
        ({"endpoint": "localhost", "model": "m"}, "must begin with http"),
    ],
)
def test_the_judge_is_off_until_it_is_configured(settings: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        metric_of("judge", **settings).check([])


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("Rating: 8", 8.0),
        ("rating: 0", 0.0),
        ("**Rating:** 6.5/10", 6.5),
        ("Rating: 11", None),
        ("8", None),
        ("", None),
    ],
)
def test_a_rating_is_the_number_after_the_word(answer: str, value: float | None) -> None:
    assert rating(answer) == value
