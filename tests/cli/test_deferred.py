"""Modules that wait: nothing is executed before it is used, and then once, in the module that everybody has."""

import importlib
import importlib.util
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Barrier, Thread
from types import ModuleType

import pytest

from fewstep.cli.deferred import DEFERRED, SWITCH, defer_modules

BODY = """
import waiting_log
waiting_log.seen.append(__name__)
from waiting_library.heavy.part import Part
def double(number):
    return 2 * number
"""
PART = "import waiting_log\nwaiting_log.seen.append(__name__)\nclass Part: pass\n"
Write = Callable[[str, str], None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """A package whose ``heavy`` waits; writes another body of a file of it."""

    def put(file: str, text: str) -> None:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)

    put("waiting_log.py", "seen = []")
    put("waiting_library/__init__.py", "")
    put("waiting_library/heavy/__init__.py", BODY)
    put("waiting_library/heavy/part.py", PART)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.delenv(SWITCH, raising=False)
    defer_modules({"waiting_library.heavy": ("double",)})
    yield put
    for name in [name for name in sys.modules if name.startswith("waiting_")]:
        del sys.modules[name]


def heavy() -> ModuleType:
    return importlib.import_module("waiting_library.heavy")


def seen() -> list[str]:
    names: list[str] = importlib.import_module("waiting_log").seen
    return names


ONCE = ["waiting_library.heavy", "waiting_library.heavy.part"]


def test_a_module_waits_through_any_number_of_imports(write: Write) -> None:
    first = heavy()
    program = (
        "import waiting_library.heavy\nfrom waiting_library import heavy\nfrom waiting_library.heavy import double"
    )
    exec(program, {})
    assert importlib.util.find_spec("waiting_library.heavy") is first.__spec__
    assert seen() == []


def test_asking_for_a_name_executes_the_same_module_once(write: Write) -> None:
    module = heavy()
    part = module.Part
    assert heavy() is module and module.Part is part
    assert seen() == ONCE
    assert "__getattr__" not in vars(module)


def test_a_function_imported_before_calls_the_real_one(write: Write) -> None:
    double = heavy().double
    assert seen() == []
    assert double(4) == 8
    assert heavy().double is not double and heavy().double(3) == 6
    assert seen() == ONCE


def test_importing_a_part_executes_the_module_first_and_each_once(write: Write) -> None:
    module = heavy()
    part = importlib.import_module("waiting_library.heavy.part")
    assert seen() == ONCE
    assert part is sys.modules["waiting_library.heavy.part"] and part.Part is module.Part
    assert type(part.__spec__.loader) is type(module.__spec__.loader) is type(importlib.util.find_spec("json").loader)  # type: ignore[union-attr]


def test_classes_are_found_again_by_pickle(write: Write) -> None:
    part = heavy().Part
    assert type(pickle.loads(pickle.dumps(part()))) is part


def test_threads_that_ask_at_once_wait_for_one_execution(write: Write) -> None:
    module, together, got = heavy(), Barrier(8), []

    def ask() -> None:
        together.wait()
        got.append(module.Part)

    threads = [Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [module.Part] * 8
    assert seen() == ONCE


def test_a_name_that_it_does_not_have_is_an_error_as_ever(write: Write) -> None:
    with pytest.raises(AttributeError, match=r"module 'waiting_library.heavy' has no attribute 'triple'"):
        heavy().triple  # noqa: B018 (asked for its error)


def test_a_circle_of_imports_ends_in_an_error(write: Write) -> None:
    write("waiting_library/heavy/part.py", "from waiting_library.heavy import later\n")
    with pytest.raises(ImportError, match="later"):
        heavy().Part  # noqa: B018 (asked for its error)


def test_an_error_of_the_module_comes_to_whoever_asks_each_time(write: Write) -> None:
    write("waiting_library/heavy/__init__.py", "raise OSError('no such device')")
    for _ in range(2):
        with pytest.raises(OSError, match="no such device"):
            heavy().Part  # noqa: B018 (asked for its error)


def test_looking_for_a_module_does_not_make_it_wait(write: Write) -> None:
    assert importlib.util.find_spec("waiting_library.heavy") is not None
    assert importlib.import_module("waiting_library.heavy.part").Part is heavy().Part
    assert seen() == ONCE


def test_the_switch_imports_everything_at_once(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SWITCH, "0")
    before = list(sys.meta_path)
    defer_modules({"waiting_library.other": ()})
    assert sys.meta_path == before


@pytest.mark.parametrize(("module", "name"), [(module, name) for module in DEFERRED for name in DEFERRED[module]])
def test_what_is_deferred_by_name_is_a_function(module: str, name: str) -> None:
    assert callable(getattr(importlib.import_module(module), name))
    assert not isinstance(getattr(importlib.import_module(module), name), type)
