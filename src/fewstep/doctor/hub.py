"""The Hugging Face hub: whether it answers, whose token is used, and which teachers its owner may read."""

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fewstep.doctor.line import Line
from fewstep.errors import shown

_SECONDS = 3.0
"""For one answer: who is offline learns it at once. huggingface_hub would try again and again."""
_LOGIN = "make a token at https://huggingface.co/settings/tokens and run `hf auth login`"


def hub(models: Sequence[str]) -> Iterator[Line]:
    """Ask the hub who we are and what we may read; nothing is downloaded.

    Args:
        models: Ids of the teachers.
    """
    from huggingface_hub import constants, get_token

    if constants.HF_HUB_OFFLINE:
        yield Line("hub", "offline by HF_HUB_OFFLINE; what is in the cache can be used", "unset it to download")
        return
    token = get_token()
    if not _soon(f"{constants.ENDPOINT}/api/models?limit=1"):
        found = f"{constants.ENDPOINT} does not answer within {_SECONDS:g} s; what is in the cache can be used"
        yield Line("hub", found, "go online, or set HF_ENDPOINT to a mirror or HTTPS_PROXY to a proxy")
        return
    yield Line("hub", f"{constants.ENDPOINT} answers")
    if token is None:
        yield Line("token", "none; public models can be read without", _LOGIN)
    else:
        status, name = _ask(f"{constants.ENDPOINT}/api/whoami-v2", token)
        if status in (401, 403):
            yield Line("token", "the hub refuses it, and with it every download", _LOGIN, broken=True)
            return
        yield Line("token", f"of {name}" if name else "set; the hub did not say whose it is")
    yield from _licences(constants.ENDPOINT, models, token)


def _soon(address: str) -> bool:
    """Whether there is any answer in time; looking up a name has no limit of its own, so it is left behind."""
    answers: list[int | None] = []
    asking = threading.Thread(target=lambda: answers.append(_ask(address, None)[0]), daemon=True)
    asking.start()
    asking.join(_SECONDS + 1)
    return bool(answers) and answers[0] is not None


def _licences(endpoint: str, models: Sequence[str], token: str | None) -> Iterator[Line]:
    addresses = [f"{endpoint}/api/models/{model}/auth-check" for model in models]
    with ThreadPoolExecutor(8) as pool:
        statuses = [status for status, _ in pool.map(lambda address: _ask(address, token), addresses)]
    readable = statuses.count(200)
    yield Line("licences", f"{readable} of {len(models)} teachers of the recipes can be read")
    for model, status in zip(models, statuses, strict=True):
        if status in (401, 403):
            cure = f"accept its licence at https://huggingface.co/{model}" + (", and log in" if token is None else "")
            yield Line("licence", f"{model} is gated", cure)


class _KeepingTheToken(urllib.request.HTTPRedirectHandler):
    """Follows a hub that sends elsewhere, without showing the token to another host."""

    def redirect_request(self, req: urllib.request.Request, *others: Any) -> urllib.request.Request | None:
        asked = super().redirect_request(req, *others)
        if asked is not None and asked.host != req.host:
            asked.remove_header("Authorization")
        return asked


def _ask(address: str, token: str | None) -> tuple[int | None, str | None]:
    """Status of an answer, None without one, and the name that it has."""
    request = urllib.request.Request(address, headers={} if token is None else {"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.build_opener(_KeepingTheToken).open(request, timeout=_SECONDS) as answer:
            content = json.loads(answer.read(2**16) or b"null")
            name = content.get("name") if isinstance(content, dict) else None
            return answer.status, shown(name, quoted=False) if isinstance(name, str) else None
    except urllib.error.HTTPError as error:
        return error.code, None
    except (OSError, ValueError):  # no connection, or no JSON
        return None, None
