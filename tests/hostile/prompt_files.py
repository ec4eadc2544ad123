"""Hostile prompt files, by their suffix."""

import functools
import io
import json
import shutil
import tarfile
from pathlib import Path

from tests.hostile.changes import FILES
from tests.hostile.judge import Case

LINES = b"a red cat\na blue dog\n"
CONTENTS: dict[str, bytes] = {
    "surrogates.txt": "a cat \ud800".encode("utf-8", "surrogatepass"),
    "latin.txt": "a café".encode("latin-1"),
    "wide.txt": "a cat".encode("utf-16"),
    "zero.txt": b"a cat\0a dog",
    "blank.txt": b"\n \n\t\n",
    "controls.txt": b"\x1b[31mred\x1b[0m\x07\n",
    "line.txt": b"x" * 10_000_000,
    "words.txt": b"a cat " * 1_000_000,
    "overrides.txt": "\u202ea cat\u200b\ufeff".encode(),
    "lone.csv": b"a cat; on a mat\n1;2\n",
    "more.csv": b"prompt\na cat, on a mat\n",
    "quote.csv": b'prompt\n"a cat\n',
    "lines.csv": b'prompt\n"' + b"a\n" * 8_000_000,
    "field.csv": b"prompt\n" + b"x" * 200_000 + b"\n",
    "twice.csv": b"prompt,prompt\na,b\n",
    "header.csv": b"prompt\n",
    "noheader.csv": b"a red cat\n",
    "zero.csv": b"prompt\na\0b\n",
    "tabs.tsv": b"prompt\ta\tb\nx\n",
    "columns.tsv": ("\t".join(f"c{i}" for i in range(20_000)) + "\n").encode(),
    "brackets.jsonl": b"[" * 100_000,
    "digits.jsonl": b'{"prompt": ' + b"9" * 5000 + b"}\n",
    "number.jsonl": b'{"prompt": 3}\n',
    "null.jsonl": b"null\n",
    "list.jsonl": b'["a"]\n',
    "halves.jsonl": b'{"prompt": "\\ud800"}\n',
    "zero.jsonl": b'{"prompt": "a\\u0000b"}\n',
    "nan.jsonl": b'{"prompt": NaN}\n',
    "keys.jsonl": (json.dumps({f"k{i}": i for i in range(50_000)}) + "\n").encode(),
    "deep.jsonl": b'{"prompt": ' + b'{"a":' * 50_000 + b"\n",
    "float.jsonl": b'{"prompt": "a", "x": ' + b"9" * 400 + b"}\n",
    "objects.jsonl": b'{"prompt": [' + b"{}," * 5_000_000 + b"{}]}\n",
    "objects.json": b"[" + b'{"p":1},' * 4_000_000 + b"{}]",
    "commas.json": b"[" + b'"",' * 8_000_000 + b'""]',
    "mapping.json": b'{"a": 1}',
    "list.json": b"[1, 2]",
    "brackets.json": b"[" * 100_000,
    "text.parquet": LINES,
    "magic.parquet": b"PAR1" + bytes(100) + b"PAR1",
    "footer.parquet": b"PAR1" + bytes(8) + (2**31 - 1).to_bytes(4, "little") + b"PAR1",
    "text.tar": LINES,
    "unknown.docx": LINES,
    "nosuffix": LINES,
}


def hostile_prompt_files(origin: Path) -> list[Case]:
    """All of them; ``origin`` is the folder that ``write_inputs`` made."""
    cases = [_case(origin, name, name, functools.partial(_write, name=name)) for name in CONTENTS]
    cases += [_case(origin, f"a tar with {name}", "p.tar", functools.partial(_tar, kind=name)) for name in TARS]
    for suffix in ("txt", "csv"):
        for name, change in FILES.items():
            cases.append(
                _case(
                    origin,
                    f"{suffix} is {name}",
                    f"p.{suffix}",
                    functools.partial(_changed, change=change, suffix=suffix),
                )
            )
    return cases


def _case(origin: Path, name: str, file: str, make: functools.partial[None]) -> Case:
    def prepare(folder: Path) -> None:
        shutil.copytree(origin / "teacher", folder / "teacher")
        text = (origin / "tiny.yaml").read_text().replace(str(origin / "teacher"), "./teacher")
        (folder / "tiny.yaml").write_text(text)
        make(folder)

    return Case(name, ("embed", "tiny.yaml", f"prompts.path={file}", "--root", "runs"), prepare, ("runs",))


def _write(folder: Path, *, name: str) -> None:
    (folder / name).write_bytes(CONTENTS[name])


def _changed(folder: Path, *, change: object, suffix: str) -> None:
    (folder / f"p.{suffix}").write_bytes(b"prompt\n" + LINES)
    assert callable(change)
    change(folder / f"p.{suffix}")


TARS = (
    "a path upwards",
    "an absolute path",
    "a link upwards",
    "a pipe",
    "a device",
    "a size that is not there",
    "no text",
)


def _tar(folder: Path, *, kind: str) -> None:
    with tarfile.open(folder / "p.tar", "w") as archive:
        member = tarfile.TarInfo("00000.txt")
        text = b"a red cat"
        if kind == "a path upwards":
            member.name = "../outside.txt"
        elif kind == "an absolute path":
            member.name = str(folder.parent / "outside.txt")
        elif kind == "a link upwards":
            member.type, member.linkname, text = tarfile.SYMTYPE, "../../outside.txt", b""
        elif kind == "a pipe":
            member.type, text = tarfile.FIFOTYPE, b""
        elif kind == "a device":
            member.type, text = tarfile.CHRTYPE, b""
        elif kind == "no text":
            member.name = "00000.jpg"
        member.size = len(text)
        archive.addfile(member, io.BytesIO(text))
    if kind == "a size that is not there":
        content = (folder / "p.tar").read_bytes()
        (folder / "p.tar").write_bytes(content[:512] + content[512:515])
