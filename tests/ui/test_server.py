"""Where the page is served, to whom, and what a browser is told about it."""

import asyncio
import os
import socket
from collections.abc import MutableMapping
from typing import Any

import pytest

from fewstep.errors import ConfigError
from fewstep.ui.offers import Named
from fewstep.ui.server import address, listen, web_app
from fewstep.ui.studio import Studio
from tests.runs.made import line, made_run


def get(app: Any, *, path: str = "/", host: str = "127.0.0.1:7860") -> tuple[int, dict[str, str], str]:
    """Status, headers and text that an ASGI application answers with."""
    told: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        told.append(message)

    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http"}
    scope |= {"path": path, "raw_path": path.encode(), "query_string": b"", "root_path": ""}
    scope |= {"headers": [(b"host", host.encode())], "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 7860)}
    asyncio.run(app(scope, receive, send))
    headers = {name.decode(): value.decode() for name, value in told[0].get("headers", [])}
    return told[0]["status"], headers, b"".join(message.get("body", b"") for message in told[1:]).decode()


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Any:
    pytest.importorskip("gradio", reason="gradio, of the extra ui, is not installed")
    run = made_run(tmp_path_factory.mktemp("served"), lines=[line(0, ca=1.0)], name="mine")
    return web_app(Named((), (run,)), Studio())


def test_a_browser_is_told_to_load_nothing_from_elsewhere(app: Any) -> None:
    status, headers, text = get(app)
    assert status == 200 and "mine" in text
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'self';") and "connect-src 'self';" in policy
    assert "http" not in policy and "*" not in policy


def test_nothing_is_told_to_the_makers_of_gradio(app: Any) -> None:
    import gradio

    assert gradio.analytics.analytics_enabled() is False
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
    _, _, text = get(app)
    assert '"analytics_enabled":false' in text.replace(" ", "")


@pytest.mark.parametrize("path", ["/docs", "/openapi.json", "/redoc"])
def test_pages_about_the_interface_are_not_served(app: Any, path: str) -> None:
    assert "swagger" not in get(app, path=path)[2].lower()


@pytest.mark.parametrize("host", ["evil.example:7860", "evil.example", "127.0.0.1.evil.example:7860", "[x"])
def test_a_name_that_was_led_to_this_machine_gets_no_page(app: Any, host: str) -> None:
    status, _, text = get(app, host=host)
    assert status == 421 and "mine" not in text


@pytest.mark.parametrize("host", ["localhost:7860", "127.0.0.1:7860", "[::1]:7860", "127.0.0.1"])
def test_this_machines_own_names_get_the_page(app: Any, host: str) -> None:
    assert get(app, host=host)[0] == 200


def test_a_port_in_use_is_one_sentence() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"^Port {port} of 127.0.0.1 is in use; choose another with --port"):
            listen("127.0.0.1", port)


def test_an_address_of_another_machine_is_one_sentence() -> None:
    with pytest.raises(
        ConfigError, match=r"^Nothing can be served at 192.0.2.1, port 0 \(.+\); choose others with --h"
    ):
        listen("192.0.2.1", 0)


@pytest.mark.parametrize(("host", "named"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1")])
def test_the_address_is_one_that_a_browser_of_this_machine_opens(host: str, named: str) -> None:
    with listen(host, 0) as place:
        assert address(place) == f"http://{named}:{place.getsockname()[1]}"
        socket.create_connection((named, place.getsockname()[1])).close()
