"""The page in a real Chromium: what a person does with it, and what it asks the network for."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from PIL import Image

from tests.ui.browser import CHROMIUM, Browser

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed (Debian's package chromium)"),
]
PATIENCE = 240
"""Seconds that a busy machine may take to start and to end the command."""


@dataclass(frozen=True)
class Served:
    """A page, the run that it shows, and the process behind it."""

    address: str
    run: Path
    process: "subprocess.Popen[str]"


@pytest.fixture(scope="module")
def served(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    pytest.importorskip("gradio", reason="gradio, of the extra ui, is not installed")
    run = shutil.copytree(finished / "whole", tmp_path_factory.mktemp("served") / "run")
    paint(run, 1)
    process = subprocess.Popen(
        [sys.executable, "-m", "fewstep", "ui", str(run), "--port", "0", "--device", "cpu"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    told = process.stdout.readline()
    assert told.startswith("The page is at http://127.0.0.1:"), process.communicate()
    yield Served(told.split()[4], run, process)
    if process.poll() is None:
        process.kill()


@pytest.fixture
def browser(served: Served, tmp_path: Path) -> Iterator[Browser]:
    with Browser(tmp_path / "profile") as found:
        found.open(served.address)
        yield found


def paint(run: Path, update: int) -> None:
    (run / "sheets").mkdir(exist_ok=True)
    Image.new("RGB", (64, 32), (update, 0, 0)).save(run / "sheets" / f"update-{update:06d}.png")


def write(run: Path, **figures: float) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write(f"{json.dumps({'step': 99, **figures})}\n")


def elsewhere(browser: Browser, address: str) -> list[str]:
    """What was asked of anybody but the server."""
    local = urlsplit(address).netloc
    return [url for url in browser.asked_for if urlsplit(url).netloc not in ("", local)]


def count(place: str) -> str:
    return f"document.querySelectorAll('{place} img').length"


def text_of(browser: Browser, place: str) -> str:
    return str(browser.wait_for(f"document.querySelector('{place}').innerText"))


def test_teacher_and_student_draw_the_same_seeds_side_by_side(browser: Browser, served: Served) -> None:
    browser.write("#fs-seed input", "5")
    browser.press("#fs-draw")
    browser.wait_for(f"{count('#fs-shown')} === 8")
    shown = text_of(browser, "#fs-shown")
    assert shown.count("seed 5") == 2 and shown.count("s per picture") == 2
    browser.press("#fs-ladder")
    browser.wait_for(f"{count('#fs-shown')} === 9")
    assert text_of(browser, "#fs-shown").count("8 steps") == 2
    assert elsewhere(browser, served.address) == []
    assert browser.complaints == []


def test_a_prompt_is_text_whatever_it_holds(browser: Browser) -> None:
    prompt = "<script>window.hurt = 1</script><img src=x onerror='window.hurt = 2'>"
    browser.write("#fs-prompt textarea", prompt)
    browser.press("#fs-draw")
    browser.wait_for(f"{count('#fs-shown')} === 8")
    assert text_of(browser, "#fs-shown .fs-prompt") == prompt
    assert browser.value("window.hurt === undefined")


def test_a_run_is_followed_while_it_is_written(browser: Browser, served: Served) -> None:
    browser.open_tab("Run")
    browser.wait_for("document.querySelector('#fs-sheet figcaption').innerText.includes('after 1 updates')")
    assert "Losses" in text_of(browser, "#fs-curves") and "Health" not in text_of(browser, "#fs-curves")
    write(served.run, **{"health/colour_cast": 0.5})
    browser.wait_for("document.querySelector('#fs-curves').innerText.includes('colour_cast')")
    paint(served.run, 2)
    browser.wait_for("document.querySelector('#fs-sheet figcaption').innerText.includes('after 2 updates')")
    browser.write("#fs-position input[type=number]", "1")
    browser.wait_for("document.querySelector('#fs-sheet figcaption').innerText.includes('after 1 updates')")
    browser.press("#fs-climb")
    browser.wait_for(f"{count('#fs-climbed')} === 9")
    assert elsewhere(browser, served.address) == []
    assert browser.complaints == []


@pytest.mark.parametrize("dark", [False, True])
def test_nothing_is_wider_than_a_telephone(served: Served, tmp_path: Path, dark: bool) -> None:
    with Browser(tmp_path / "profile", width=400, dark=dark) as browser:
        browser.open(served.address)
        for name in ("Draw", "Run"):
            browser.open_tab(name)
            assert browser.wait_for("document.documentElement.scrollWidth") <= 400
        assert browser.value("document.body.classList.contains('dark')") is dark


def test_ctrl_c_ends_it_at_once_while_a_page_is_open_and_a_picture_is_drawn(browser: Browser, served: Served) -> None:
    browser.write("#fs-teacher-steps input", "1000")
    browser.press("#fs-draw")
    browser.wait_for("document.querySelector('#fs-shown').innerText.includes('drawing 1 of 4')")
    served.process.send_signal(signal.SIGINT)
    _, told = served.process.communicate(timeout=PATIENCE)
    assert (served.process.returncode, told.splitlines()[-1]) == (130, "fewstep: Interrupted.")
    assert "Traceback" not in told and "shutdown" not in told
