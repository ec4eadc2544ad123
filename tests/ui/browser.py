"""A headless Chromium that a test drives through a pipe, without any package: DevTools' protocol, one page."""

import base64
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_AT_THREE_AND_FOUR = (
    "import fcntl, os, sys\n"
    "pipes = [fcntl.fcntl(int(one), fcntl.F_DUPFD_CLOEXEC, 10) for one in sys.argv[1:3]]\n"
    "os.dup2(pipes[0], 3), os.dup2(pipes[1], 4)\n"
    "os.execv(sys.argv[3], sys.argv[3:])"
)
"""Where Chromium reads and writes with --remote-debugging-pipe."""
_PATIENCE = 120
"""Seconds that a busy machine may take for anything."""


class Browser:
    """One page, what it asked the network for, and what it complained of.

    Args:
        folder: For the profile, which is the browser's own.
    """

    def __init__(self, folder: Path, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        assert CHROMIUM is not None
        theirs_in, self._ours_out = os.pipe()
        self._ours_in, theirs_out = os.pipe()
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run"]
        options += ["--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update"]
        options += [f"--user-data-dir={folder}", "about:blank"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _AT_THREE_AND_FOUR, str(theirs_in), str(theirs_out), CHROMIUM, *options],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._numbers, self._unread, self._session = itertools.count(1), b"", ""
        self.asked_for: list[str] = []
        self.complaints: list[str] = []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self._call(f"{domain}.enable")
        self._call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(_PATIENCE)
        os.close(self._ours_in)
        os.close(self._ours_out)

    def open(self, address: str) -> None:
        self._call("Page.navigate", url=address)

    def value(self, script: str) -> Any:
        """What a JavaScript expression is."""
        found = self._evaluate(script)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait_for(self, script: str) -> Any:
        """Ask until an expression is true; one that fails is not true yet, as a page replaces its elements."""
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            if found := self._evaluate(script)["result"].get("value"):
                return found
            time.sleep(0.2)
        shown = self.value("document.body ? document.body.innerText : ''")
        last = self._evaluate(script)
        raise AssertionError(f"{script} did not come true: {last}; the page says: {shown}\n{self.complaints}")

    def _evaluate(self, script: str) -> dict[str, Any]:
        return self._call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)

    def press(self, selector: str) -> None:
        """Press a button once it is there."""
        self._act(
            f"document.querySelector({json.dumps(selector)})",
            "if (!e.offsetParent || e.disabled) return false; e.click(); return true",
        )

    def open_tab(self, name: str) -> None:
        tabs = "[...document.querySelectorAll('button[role=tab]')].filter(tab => tab.offsetParent !== null)"
        self._act(f"{tabs}.find(tab => tab.innerText.trim() === {json.dumps(name)})", "e.click(); return true")

    def write(self, selector: str, text: str) -> None:
        """Replace what a field holds, as typing would."""
        self._act(f"document.querySelector({json.dumps(selector)})", "e.focus(); e.select(); return true")
        self._call("Input.insertText", text=text)

    def _act(self, element: str, body: str) -> None:
        """Do it in the script that finds the element: between two scripts the page may replace it."""
        self.wait_for(f"(e => {{ {body} }})({element})")

    def screenshot(self, path: Path, *, whole: bool = True) -> None:
        found = self._call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._ours_out, json.dumps(message).encode() + b"\0")
        while True:
            told = self._read()
            if told.get("id") == number:
                assert "error" not in told, told["error"]
                answer: dict[str, Any] = told["result"]
                return answer
            self._note(told)

    def _note(self, told: dict[str, Any]) -> None:
        match told.get("method"):
            case "Network.requestWillBeSent":
                self.asked_for.append(told["params"]["request"]["url"])
            case "Network.webSocketCreated":
                self.asked_for.append(told["params"]["url"])
            case "Log.entryAdded":
                self.complaints.append(told["params"]["entry"]["text"])
            case "Runtime.exceptionThrown":
                self.complaints.append(str(told["params"]["exceptionDetails"].get("exception", {}).get("description")))

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._unread:
            part = os.read(self._ours_in, 1 << 20)
            assert part, "the browser is gone"
            self._unread += part
        text, _, self._unread = self._unread.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        return message
