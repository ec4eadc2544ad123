"""Serves the page from this machine: one port, an end at Ctrl-C, and no request that leaves it."""

import errno
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fewstep.errors import ConfigError, shown
from fewstep.garbage import libraries_are_there
from fewstep.ui.offers import Named
from fewstep.ui.page import build
from fewstep.ui.studio import Studio

_LOCAL = ("127.0.0.1", "localhost", "::1")
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; "
    "frame-ancestors 'none'; form-action 'self'; base-uri 'self'"
)
_HEADERS = [
    (b"content-security-policy", _POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
]

_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
_App = Callable[[_Scope, _Receive, _Send], Awaitable[None]]


def require_gradio() -> None:
    """Raise ConfigError where the extra ``ui`` is not installed."""
    if find_spec("gradio") is None:
        raise ConfigError("fewstep ui needs gradio, which is not installed; install it with: pip install 'fewstep[ui]'")


def listen(host: str, port: int) -> socket.socket:
    """Take a port before anything is loaded; 0 is any free one.

    Raises:
        ConfigError: It is in use, or not to be had on this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"Port {port} of {host} is in use; choose another with --port, or 0 for a free one."
            ) from error
        raise ConfigError(
            f"Nothing can be served at {shown(host, quoted=False)}, port {port} ({error.strerror or error}); choose "
            "others with --host and --port."
        ) from error


def serve(named: Named, place: socket.socket) -> None:
    """Serve until Ctrl-C or a signal, which both end a drawing that is going on.

    Raises:
        KeyboardInterrupt: It was ended.
    """
    import uvicorn

    libraries_are_there()
    app = web_app(named, Studio(), only_local=place.getsockname()[0] in _LOCAL)
    # pages that are open never end their connections: these are cut after a second, of which the log would complain
    config = uvicorn.Config(app, log_config=None, log_level="critical", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    server.run(sockets=[place])
    if server.should_exit:  # what was started in the background of a script ignores Ctrl-C but for the server's own ear
        raise KeyboardInterrupt


def address(place: socket.socket) -> str:
    """Where a browser finds the page."""
    host, port = place.getsockname()[:2]
    named = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{named}:{port}"


def web_app(named: Named, studio: Studio, *, only_local: bool = True) -> _App:
    """The page as an ASGI application.

    Args:
        only_local: Answer to this machine's own names only: another page's name that was led here gets nothing.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported
    import gradio as gr
    from fastapi import FastAPI

    @asynccontextmanager
    async def living(_: Any) -> AsyncIterator[None]:
        yield
        studio.stop()  # the process ends when the thread that draws does

    theme = gr.themes.Base(
        primary_hue="teal",
        neutral_hue="stone",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )
    app = gr.mount_gradio_app(
        FastAPI(openapi_url=None, lifespan=living),
        build(named, studio),
        "/",
        app_kwargs={"openapi_url": None},
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        max_file_size=1,
        theme=theme,
        css_paths=Path(__file__).with_name("page.css"),
    )
    return _guarded(app, only_local=only_local)


def _guarded(app: _App, *, only_local: bool) -> _App:
    """Tell the browser with every answer that nothing of the page may come from elsewhere."""

    async def answer(scope: _Scope, receive: _Receive, send: _Send) -> None:
        async def send_guarded(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *_HEADERS]
            await send(message)

        if only_local and scope["type"] == "http" and not _is_local(scope):
            await send_guarded({"type": "http.response.start", "status": 421})
            await send_guarded({"type": "http.response.body", "body": b"This page has no such name.\n"})
        else:
            await app(scope, receive, send_guarded)

    return answer


def _is_local(scope: _Scope) -> bool:
    host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
    try:
        return urlsplit(f"//{host}").hostname in _LOCAL
    except ValueError:  # brackets that hold no address
        return False
