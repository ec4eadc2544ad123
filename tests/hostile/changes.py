"""What can be done to a file that was right: to the JSON in it, to its bytes, to what stands under its name."""

import json
import os
import pickle
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.hostile.judge import CANARY

Change = Callable[[Path], None]

WHOLE = {
    "list": "[]",
    "null": "null",
    "empty mapping": "{}",
    "number": "7",
    "text": '"x"',
    "infinity": "-Infinity",
    "brackets": "[" * 100_000,
    "closed brackets": "[" * 100_000 + "]" * 100_000,
    "braces": '{"a":' * 100_000,
    "digits": '{"a": ' + "9" * 5000 + "}",
    "two documents": "{}{}",
    "zero bytes": "\0" * 100,
    "escapes": '{"\\ud800": "\\u001b[31m"}',
    "list of mappings": "[{}]",
    "keys": json.dumps({f"key{i}": i for i in range(100_000)}),
    "long line": '{"a": "' + "x" * 3_000_000 + '"}',
    "no JSON": "<html>not found</html>",
}
"""In place of a whole JSON file."""

VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 2, 3, 7, 0.5, -0.5, 10**6, 10**30, 1e300, float("nan"), float("inf"), -float("inf")),
    *("", "x", "\x1b[31m", "../../outside", "/etc/passwd", "os.system", "x" * 10_000),
    *([], {}, [None, None], [-1, -1], [10**30] * 4, [[[[]]]], {"a": {"a": {}}}, ["../outside", "system"], [[], {}]),
)
"""In place of any value in a JSON file."""

EXTRA = {
    "auto_map": {"AutoModel": "evil.Evil", "AutoConfig": "evil.Config"},
    "trust_remote_code": True,
    "_class_name": ["evil", "Evil"],
    "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True},
    "torch_dtype": "os.system",
    "architectures": ["../evil"],
    "custom_pipelines": {"evil": "evil.py"},
    "_commit_hash": "../../..",
}
"""Keys that some library gives a meaning."""


def in_place(text: str) -> Change:
    """Another content of the file."""
    return lambda path: _write(path, text.encode("utf-8", "surrogatepass"))


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where values stand in plain data, the whole left out."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in items:
        yield (*path, key)
        yield from places(child, (*path, key))


def put(path: tuple[Any, ...], value: Any) -> Change:
    """Another value at a place of a JSON file."""

    def change(file: Path) -> None:
        data = json.loads(file.read_text())
        below = data
        for key in path[:-1]:
            below = below[key]
        below[path[-1]] = value
        _write(file, json.dumps(data).encode())

    return change


def drop(path: tuple[Any, ...]) -> Change:
    """One value less in a JSON file."""

    def change(file: Path) -> None:
        data = json.loads(file.read_text())
        below = data
        for key in path[:-1]:
            below = below[key]
        del below[path[-1]]
        _write(file, json.dumps(data).encode())

    return change


def add(key: str, value: Any) -> Change:
    """One value more in a JSON file, and a module beside it that must not be imported."""

    def change(file: Path) -> None:
        data = json.loads(file.read_text())
        data[key] = value
        _write(file, json.dumps(data).encode())
        canary = file.resolve().parents[-2]
        for parent in file.resolve().parents:
            if parent.name == "here":
                canary = parent.parent / CANARY
        for folder in (file.parent, file.parent.parent):
            (folder / "evil.py").write_text(
                f"open({str(canary)!r}, 'w').close()\nclass Evil: pass\nclass Config: pass\n"
            )

    return change


class _Program:
    """What runs when it is unpickled."""

    def __init__(self, canary: str) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.canary, "w")


def _canary(file: Path) -> str:
    folder = next(parent for parent in file.absolute().parents if parent.name == "here")
    return str(folder.parent / CANARY)


def _write(file: Path, content: bytes) -> None:
    file.unlink()  # not into a file that another case shares
    file.write_bytes(content)


def _link_outside(file: Path) -> None:
    folder = next(parent for parent in file.absolute().parents if parent.name == "here")
    target = folder.parent / "outside" / file.name
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(file.read_bytes())
    file.unlink()
    file.symlink_to(target)


def _pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def _folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _circle(file: Path) -> None:
    file.unlink()
    file.symlink_to(file.name)


def _huge(file: Path) -> None:
    file.unlink()
    with file.open("wb") as hole:
        hole.truncate(2**34)


def _flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    if content:
        content[len(content) // 2] ^= 0xFF
    _write(file, bytes(content))


HOLE = "a hole of 16 GiB"

FILES: dict[str, Change] = {
    "missing": lambda file: file.unlink(),
    "empty": lambda file: _write(file, b""),
    "cut in half": lambda file: _write(file, file.read_bytes()[: file.stat().st_size // 2]),
    "one byte short": lambda file: _write(file, file.read_bytes()[:-1]),
    "one byte long": lambda file: _write(file, file.read_bytes() + b"x"),
    "one byte changed": _flip,
    "of zeros": lambda file: _write(file, bytes(file.stat().st_size)),
    "of noise": lambda file: _write(file, random.Random(0).randbytes(file.stat().st_size)),
    "a program": lambda file: _write(file, pickle.dumps(_Program(_canary(file)))),
    "a page": lambda file: _write(file, b"<html>404</html>"),
    "a pointer of git-lfs": lambda file: _write(
        file, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    ),
    "a header of 2**60 bytes": lambda file: _write(file, (2**60).to_bytes(8, "little") + b"{}"),
    "a header of brackets": lambda file: _write(file, (100_000).to_bytes(8, "little") + b"[" * 100_000),
    "a link outside": _link_outside,
    "a link to itself": _circle,
    "a pipe": _pipe,
    "a folder": _folder,
    HOLE: _huge,
}
"""What can stand under the name of any file."""


def changes_of(file: Path) -> dict[str, Change]:
    """Everything that can be done to one file, by name; JSON files value by value."""
    found = dict(FILES)
    if file.suffix in (".json", ".jsonl") and file.name != "tokenizer.json":
        found |= {f"holds {name}": in_place(text) for name, text in WHOLE.items()}
    if file.suffix == ".json" and file.name != "tokenizer.json":
        data = json.loads(file.read_text())
        for place in places(data):
            dotted = ".".join(map(str, place))
            found[f"without {dotted}"] = drop(place)
            found |= {f"{dotted} = {json.dumps(value)[:40]}": put(place, value) for value in VALUES}
        if isinstance(data, dict):
            found |= {f"with {key}": add(key, value) for key, value in EXTRA.items()}
    return found


def chosen(files: dict[str, dict[str, Change]], count: int) -> list[tuple[str, str, Change]]:
    """So many changes, the same each time: every file gets as many as any other, as long as it has them."""
    chance = random.Random(0)
    left = {}
    for file, changes in sorted(files.items()):
        left[file] = list(changes.items())
        chance.shuffle(left[file])
    taken: list[tuple[str, str, Change]] = []
    while len(taken) < count and any(left.values()):
        for file, changes in left.items():
            if changes and len(taken) < count:
                taken.append((file, *changes.pop()))
    return taken
