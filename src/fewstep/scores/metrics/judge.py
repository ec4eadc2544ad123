"""A rating by a model behind an OpenAI-compatible endpoint; off until an endpoint is named."""

import base64
import io
import json
import os
import re
import time
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from typing import Any

from PIL import Image
from pydantic import BaseModel, Field

from fewstep.bounds import Name, Place
from fewstep.errors import ConfigError, shown
from fewstep.files import UnreadableError, parse_json
from fewstep.scores.metric import Finding, Metric, MetricCard, MetricSettings, Picture, PromptItem

_INSTRUCTION = (
    "You see a picture that a model drew for a prompt. Rate from 0 to 10 how well the picture shows what the prompt "
    "asks for and how good it looks: 0 is unusable, 10 is perfect. Say in one sentence why, then end with a line "
    "that reads: Rating: N"
)
_RATING = re.compile(r"rating\W*(\d+(?:\.\d+)?)", re.IGNORECASE)
_MAX_RATING = 10.0
_MAX_PAUSE = 600.0
_MAX_INSTRUCTION = 2**14
MAX_ANSWER = 2**20
"""Bytes of an answer; more is not read."""


class _JudgeSettings(MetricSettings):
    """Whom to ask, and what."""

    endpoint: Place | None = Field(default=None, description="address up to and with /v1; None is off")
    model: Name | None = Field(default=None, description="the endpoint's name of the model")
    instruction: str = Field(
        default=_INSTRUCTION,
        max_length=_MAX_INSTRUCTION,
        description="what the model is told; must ask for 'Rating: N'",
    )
    key_variable: Name | None = Field(default=None, description="environment variable that holds the key, if any")
    timeout_seconds: float = Field(default=120.0, gt=0, le=3600, description="of one request")
    tries: int = Field(default=4, gt=0, le=20, description="how often a request is made before the picture fails")
    pause_seconds: float = Field(
        default=2.0,
        ge=0,
        le=_MAX_PAUSE,
        description="wait before the second try; doubles every time, up to ten minutes",
    )


class _Message(BaseModel):
    content: str


class _Choice(BaseModel):
    message: _Message


class _Reply(BaseModel):
    """What a rating needs of an endpoint's answer."""

    choices: list[_Choice] = Field(min_length=1)


class JudgeMetric(Metric):
    """A rating between 0 and 10 by a vision-language model of the user's choice."""

    card = MetricCard(
        name="judge",
        title="Rating by a model behind an endpoint",
        formula="the number after 'Rating:' in the answer to the instruction, the prompt and the picture; the mean",
        scale="0 to 10",
        higher_is_better=True,
        preprocessing="the picture is sent whole, as PNG",
        licence="that of the endpoint's model",
        comparable="only with ratings by the same model and instruction; models change behind an endpoint",
        source=None,
    )
    settings_class = _JudgeSettings
    settings: _JudgeSettings

    def check(self, items: Sequence[PromptItem]) -> None:
        for name in ("endpoint", "model"):
            if getattr(self.settings, name) is None:
                raise ConfigError(
                    f"The judge is off: it sends pictures to an endpoint and judge.{name} names none. Set it with "
                    f"--set judge.{name}=..., or leave the metric out."
                )
        if not str(self.settings.endpoint).startswith(("http://", "https://")):
            raise ConfigError(f"judge.endpoint is {self.settings.endpoint}; it must begin with http or https.")
        if self.settings.source is not None:
            raise ConfigError(f"judge.source is {self.settings.source}; a judge is named by judge.endpoint and .model.")
        self._key()

    def look(self, pictures: Sequence[Picture], images: Sequence[Image.Image]) -> list[Finding]:
        return [self._look_at(picture, image) for picture, image in zip(pictures, images, strict=True)]

    def _look_at(self, picture: Picture, image: Image.Image) -> Finding:
        body = json.dumps(self._request(picture, image)).encode()
        problem = ""
        for number in range(self.settings.tries):
            if number:
                time.sleep(min(self.settings.pause_seconds * 2 ** (number - 1), _MAX_PAUSE))
            try:
                said = self._answer(body)
            except (OSError, ValueError, HTTPException) as error:
                problem = f"{self.settings.endpoint} gave no answer ({error})"
                continue
            value = rating(said)
            if value is not None:
                return Finding(value, {"answer": said})
            problem = f"the answer has no rating from 0 to 10: {shown(said, 200)}"
        raise self.cannot_score(picture, problem)

    def _request(self, picture: Picture, image: Image.Image) -> dict[str, Any]:
        file = io.BytesIO()
        image.save(file, format="PNG")
        encoded = base64.b64encode(file.getvalue()).decode()
        content = [
            {"type": "text", "text": f"{self.settings.instruction}\n\nPrompt: {picture.item.text}"},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{encoded}"}},
        ]
        return {"model": self.settings.model, "temperature": 0, "messages": [{"role": "user", "content": content}]}

    def _answer(self, body: bytes) -> str:
        headers = {"Content-Type": "application/json"}
        key = self._key()
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        address = f"{str(self.settings.endpoint).rstrip('/')}/chat/completions"
        request = urllib.request.Request(address, data=body, headers=headers, method="POST")
        with urllib.request.urlopen(request, timeout=self.settings.timeout_seconds) as response:
            content = response.read(MAX_ANSWER + 1)
        if len(content) > MAX_ANSWER:
            raise UnreadableError(f"its answer has more than {MAX_ANSWER} bytes")
        return parse_json(content, _Reply).choices[0].message.content

    def _key(self) -> str | None:
        variable = self.settings.key_variable
        if variable is None:
            return None
        if not os.environ.get(variable):
            raise ConfigError(
                f"judge.key_variable is {variable}, and there is no such environment variable. Set it to the "
                f"endpoint's key, or leave the setting out for an endpoint without keys."
            )
        return os.environ[variable]


def rating(answer: str) -> float | None:
    """The last rating of an answer, or None when it has none between 0 and 10."""
    found = _RATING.findall(answer)
    value = float(found[-1]) if found else None
    return value if value is not None and value <= _MAX_RATING else None
