"""Files that people keep prompts in: what they mean, and what is refused because it could mean something else."""

import io
import json
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fewstep.config.prompt_sources import PromptFile
from fewstep.data.prompts import load_prompts
from fewstep.errors import ConfigError
from fewstep.evaluation.prompt_sets import load_prompt_set
from fewstep.files import MAX_LINE_BYTES


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def prompts(path: Path, column: str | None = None) -> tuple[str, ...]:
    return load_prompts(PromptFile(path=str(path), column=column))


def refusal(path: Path, column: str | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        prompts(path, column)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


TABLES = {
    "a text in quotes": ("p.csv", 'prompt\n"a cat, on a mat"\n', ("a cat, on a mat",)),
    "a quote written twice": ("p.csv", 'prompt\n"a sign ""STOP"""\n', ('a sign "STOP"',)),
    "a text over two lines": ("p.csv", 'id,prompt\n1,"a cat\non a mat"\n2,a dog\n', ("a cat\non a mat", "a dog")),
    "pairs of quotes in a text": ("p.csv", 'id,prompt\n1,the word "STOP" on a sign\n', ('the word "STOP" on a sign',)),
    "Windows line ends": ("p.csv", "prompt\r\na cat\r\n\r\n", ("a cat",)),
    "a mark before the header": ("p.csv", "\ufeffprompt\na cat\n", ("a cat",)),
    "no line feed at the end": ("p.csv", "prompt\na cat", ("a cat",)),
    "a header in capitals": ("p.csv", "Caption\na cat\n", ("a cat",)),
    "spaces around names": ("p.csv", "id, prompt\n1, a cat\n", ("a cat",)),
    "tabs": ("p.tsv", "prompt\tkind\na cat, on a mat\tx\n", ("a cat, on a mat",)),
    "quotes among tabs": ("p.tsv", 'prompt\n"Fall" in leaves\na 6" pipe\n', ('"Fall" in leaves', 'a 6" pipe')),
    "a quoted field with a tab": ("p.tsv", 'prompt\tkind\n"a\tcat"\tx\n', ("a\tcat",)),
    "a list": ("p.json", '["a cat", "a dog"]', ("a cat", "a dog")),
    "objects": ("p.json", '[{"prompt": "a cat", "n": 1}]', ("a cat",)),
}  # fmt: skip


@pytest.mark.parametrize(("name", "content", "expected"), TABLES.values(), ids=TABLES)
def test_a_table_means_what_it_says(tmp_path: Path, name: str, content: str, expected: tuple[str, ...]) -> None:
    path = written(tmp_path / name, content)
    assert prompts(path) == expected
    assert tuple(item.text for item in load_prompt_set(str(path)).items) == expected


AMBIGUOUS = {
    "a text without quotes": ("p.csv", "prompt\na cat, on a mat\n", "Line 2 of {} has 2 fields and its first line 1"),
    "a short row": ("p.csv", "id,prompt\n1,a cat\na dog\n", "Line 3 of {} has 1 field and its first line 2"),
    "a comma at the end": ("p.csv", "prompt\na cat,\n", "Line 2 of {} has 2 fields"),
    "an open quote": ("p.csv", 'prompt\na cat\n"a dog\n', "Line 3 of {} opens a double quote that is not closed"),
    "an open quote before another": ("p.csv", 'prompt\n"a cat\n"a dog"\n', "Line 2 of {} opens a double quote"),
    "a text behind a quote": ("p.csv", 'prompt\n"STOP" on a sign\n', "Line 2 of {} has a double quote in the middle"),
    "inches": ("p.csv", 'prompt\na 6" pipe\n', "Line 2 of {} has a double quote in the middle of the field"),
    "an open quote among tabs": ("p.tsv", 'prompt\n"a cat\na dog\n', "Line 2 of {} opens a double quote"),
    "semicolons": ("p.csv", "id;prompt\n1;a cat\n", "The first line of {} is 'id;prompt', one name with semicolons"),
    "tabs in a csv": ("p.csv", "id\tprompt\n1\ta cat\n", "one name with tabs; if they separate its columns, name"),
    "commas in a tsv": ("p.tsv", "id,prompt\n1,a cat\n", "one name with commas; if they separate its columns,"),
    "bars": ("p.csv", "id|prompt\n1|a cat\n", "one name with bars"),
    "no header": ("p.csv", "a red apple\na dog\n", "The first line of {} is 'a red apple', which does not look like"),
    "a blank header": ("p.csv", "\na cat\n", "The first line of {} is '', which does not look like the name"),
    "a name twice": ("p.csv", "prompt,id,prompt\na,b,c\n", "The first line of {} names the column 'prompt' twice"),
    "old line ends": ("p.csv", "prompt\ra cat\ra dog\r", "Line 1 of {} holds a carriage return that is not followed"),
    "old line ends of a text": ("p.txt", "a cat\ra dog\r", "Line 1 of {} holds a carriage return"),
    "UTF-16": ("p.txt", "a cat\n".encode("utf-16"), "The prompt file {} is UTF-16 or UTF-32; save it as UTF-8."),
    "UTF-16 without a mark": ("p.txt", "a cat\n".encode("utf-16-le"), "Line 1 of {} has a NUL character"),
    "latin-1": ("p.csv", b"prompt\nein K\xe4tzchen\n", "Line 2 of {} is not UTF-8 (byte 0xe4 at position 5)"),
    "an encoded half of a pair": ("p.txt", b"a cat\n\xed\xa0\x80\n", "Line 2 of {} is not UTF-8 (byte 0xed"),
    "NUL": ("p.csv", "prompt\na\0cat\n", "Line 2 of {} has a NUL character in its prompt"),
    "joined files": ("p.txt", "a cat\n\ufeffa dog\n", "Line 2 of {} has a prompt that begins with a byte order mark"),
    "many digits": ("p.jsonl", f'{{"prompt": "a", "n": {"1" * 5000}}}\n', "Line 1 of {} cannot be used: it is not"),
    "many brackets": ("p.jsonl", "[" * 5000, "Line 1 of {} cannot be used: it is not valid JSON (recursion limit"),
    "an escaped half of a pair": ("p.jsonl", '"a \\ud83d"\n', "Line 1 of {} cannot be used: it is not valid JSON"),
    "an escaped NUL": ("p.jsonl", '"a"\n"a\\u0000b"\n', "Line 2 of {} has a NUL character"),
    "a number": ("p.jsonl", '{"prompt": "a"}\n{"prompt": 3}\n', "Line 2 of {} is 3; a prompt must be a text"),
    "a list in a line": ("p.jsonl", '["a", "b"]\n', "Line 1 of {} is ['a', 'b']; a prompt must be a text"),
    "an object in place of a list": ("p.json", '{"prompt": "a"}', "The prompt file {} cannot be used: the whole is"),
    "many brackets in a list": ("p.json", "[" * 100_000, "The prompt file {} cannot be used: it is not valid JSON"),
    "a long field": ("p.csv", f"prompt\n{'a' * 200_000}\n", "Line 2 of {} has a prompt of 200000 characters"),
    "an empty shard": ("p.tar", b"", "The prompt file {} is no sound tar file"),
    "a text called tar": ("p.tar", b"a cat\n" * 1000, "The prompt file {} is no sound tar file"),
    "a text called parquet": ("p.parquet", b"a cat\n" * 10, "The prompt file {} is no sound parquet file"),
    "half a parquet file": ("p.parquet", b"PAR1\0\0\0\0\xff\xff\xff\x7fPAR1", "The prompt file {} is no sound parquet"),
    "another kind": ("p.docx", b"PK", "The prompt file {} ends in none of .txt, .jsonl, .json, .csv, .tsv, .parquet"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "content", "said"), AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_what_could_be_cut_or_misread_is_refused_with_its_row(
    tmp_path: Path, name: str, content: str | bytes, said: str
) -> None:
    path = written(tmp_path / name, content)
    message = refusal(path)
    assert said.format(path) in message
    assert len(message) < 700
    with pytest.raises(ConfigError):
        load_prompt_set(str(path))


def test_a_lone_column_may_have_the_name_that_the_recipe_says(tmp_path: Path) -> None:
    path = written(tmp_path / "p.csv", "a red apple\na dog\n")
    assert prompts(path, "a red apple") == ("a dog",)


@pytest.mark.parametrize(
    "content",
    ["prompt\n" + '"a\n' * 3, 'prompt\n"' + "a\n" * 200_000, 'prompt\n"' + "a\n" * 65_537 + 'b"\n', '","\n' * 50_000],
)
def test_a_quote_that_is_never_closed_is_found_in_one_pass(tmp_path: Path, content: str) -> None:
    refusal(written(tmp_path / "p.csv", content))


def test_a_line_that_is_no_line_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    with path.open("wb") as file:
        file.truncate(200 * 2**20)  # a sparse file of zeros
    tracemalloc.start()
    said = refusal(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert said.startswith(f"Line 1 of {path} has more than {MAX_LINE_BYTES} bytes")
    assert peak < 4 * MAX_LINE_BYTES  # what was read of it, and its copy


def test_a_folder_in_place_of_a_file_needs_shards(tmp_path: Path) -> None:
    assert refusal(tmp_path).endswith("is a folder without .parquet and .tar files; name a file of prompts.")
    assert "No file is called like" in refusal(tmp_path / "part-*.tar")


# webdatasets


def test_the_texts_of_a_webdataset_are_its_prompts(tmp_path: Path) -> None:
    path = tar(
        tmp_path / "p.tar",
        {
            "0/1.jpg": b"\xff\xd8",
            "0/1.txt": b"a cat\n",
            "0/1.json": b'{"caption": "a tabby"}',
            "0/2.txt": "ein Hündchen".encode(),
            "0/2.json": b'{"caption": "a puppy"}',
        },
    )
    assert prompts(path) == ("a cat", "ein Hündchen")
    assert prompts(path, "caption") == ("a tabby", "a puppy")
    assert [item.facts for item in load_prompt_set(str(path)).items] == [{"caption": "a tabby"}, {"caption": "a puppy"}]


def test_shards_are_read_from_a_folder_and_by_a_pattern(tmp_path: Path) -> None:
    tar(tmp_path / "b-1.tar", {"1.txt": b"two"})
    tar(tmp_path / "a-0.tar", {"1.txt": b"one"})
    written(tmp_path / "readme.md", "no prompts")
    assert prompts(tmp_path) == ("one", "two")
    assert prompts(tmp_path / "b-*.tar") == ("two",)


def test_a_sample_without_its_text_is_named(tmp_path: Path) -> None:
    path = tar(tmp_path / "p.tar", {"1.txt": b"a cat", "2.json": b'{"caption": "a dog"}'})
    assert refusal(path).startswith(f"2 in {path} has no text in the column 'txt'")


HOSTILE: dict[str, tuple[dict[str, bytes], str]] = {
    "an array": ({"1.json": b"[1]"}, "1.json in {} cannot be used"),
    "many brackets": ({"1.json": b"[" * 5000}, "1.json in {} cannot be used: it is not valid JSON"),
    "no UTF-8": ({"1.txt": b"\xff"}, "1.txt in {} is not UTF-8"),
    "a large text": ({"1.txt": b"a" * (2**20 + 1)}, "1.txt in {} has 1048577 bytes"),
    "a long text": ({"1.txt": b"a" * 40_000}, "1 in {} has a prompt of 40000 characters"),
    "pictures alone": ({"1.jpg": b"x"}, "There is no prompt in {}"),
}


@pytest.mark.parametrize(("members", "said"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_member_is_one_sentence(tmp_path: Path, members: dict[str, bytes], said: str) -> None:
    path = tar(tmp_path / "p.tar", members)
    assert refusal(path).startswith(said.format(path))


def test_member_names_reach_no_disk(tmp_path: Path) -> None:
    folder = tmp_path / "inside"
    folder.mkdir()
    path = tar(folder / "p.tar", {"../../out.txt": b"one", "/etc/passwd.txt": b"two", "\x1b[31mx.txt": b"three"})
    assert prompts(path) == ("one", "two", "three")
    assert [file.name for file in tmp_path.rglob("*")] == ["inside", "p.tar"]


def test_links_in_a_tar_file_are_not_followed(tmp_path: Path) -> None:
    secret = written(tmp_path / "secret.txt", "secret")
    with tarfile.open(tmp_path / "p.tar", "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            info = tarfile.TarInfo("1.txt")
            info.type, info.linkname = kind, str(secret)
            archive.addfile(info)
    assert refusal(tmp_path / "p.tar").startswith("There is no prompt in")


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_a_header_cannot_ask_for_memory(tmp_path: Path, kind: bytes) -> None:
    info = tarfile.TarInfo("long")
    info.type, info.size = kind, 8 * 2**30 - 1
    (tmp_path / "p.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    assert "is no sound tar file (a header states a size of" in refusal(tmp_path / "p.tar")


def test_a_negative_size_does_not_go_round_in_circles(tmp_path: Path) -> None:
    info = tarfile.TarInfo("1.jpg")
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = (-1024).to_bytes(12, "big", signed=True)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "p.tar").write_bytes(bytes(header) + bytes(1024))
    assert "is no sound tar file" in refusal(tmp_path / "p.tar")


def test_a_shard_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    path = tar(tmp_path / "p.tar", {"1.txt": b"a" * 5000})
    path.write_bytes(path.read_bytes()[:2000])
    assert "is no sound tar file" in refusal(path)


# parquet


def parquet(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def test_a_parquet_column_is_read_without_the_pictures_beside_it(tmp_path: Path) -> None:
    picture = pa.array([{"bytes": b"\xff\xd8", "path": "1.jpg"}] * 2)
    path = parquet(tmp_path / "p.parquet", image=picture, caption=["a cat", "a dog"], score=[1.0, 2.0])
    assert prompts(path, "caption") == ("a cat", "a dog")
    assert refusal(path).endswith(
        "p.parquet has the columns caption, score; name one with prompts.column, or call one of them prompt."
    )
    assert [(item.text, item.facts) for item in load_prompt_set(str(path)).items] == [
        ("a cat", {"score": 1.0}),
        ("a dog", {"score": 2.0}),
    ]


def test_a_lone_parquet_column_needs_no_name(tmp_path: Path) -> None:
    assert prompts(parquet(tmp_path / "p.parquet", label=pa.array(["a", "b"], pa.large_string()))) == ("a", "b")


def test_a_missing_value_and_a_number_are_named_with_their_row(tmp_path: Path) -> None:
    path = parquet(tmp_path / "p.parquet", prompt=["a"] * 1500 + [None])
    assert refusal(path).startswith(f"Row 1501 of {path} has no text in the column 'prompt'")
    assert refusal(parquet(path, prompt=[1])).startswith(f"Row 1 of {path} is 1; a prompt must be a text")


@pytest.mark.parametrize("kind", [pa.date32(), pa.timestamp("s", tz="Nowhere/Else"), pa.time32("s")])
def test_a_parquet_column_that_is_no_text_is_named(kind: pa.DataType, tmp_path: Path) -> None:
    path = parquet(tmp_path / "p.parquet", prompt=pa.array([10**9], kind))
    assert "; a prompt must be a text" in refusal(path)


def test_bytes_in_a_parquet_text_are_checked(tmp_path: Path) -> None:
    broken = pa.array([b"a cat", b"\xff"], pa.binary()).view(pa.string())
    path = parquet(tmp_path / "p.parquet", prompt=broken)
    assert refusal(path).startswith(f"Row 2 of {path} is not UTF-8 (byte 0xff at position 0)")


def test_without_pyarrow_the_command_that_installs_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = parquet(tmp_path / "p.parquet", prompt=["a cat"])
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    said = refusal(path)
    assert said.endswith("is read with the package pyarrow; install it with: pip install 'fewstep[parquet]'.")


# what is left out


def test_what_is_left_out_is_told(tmp_path: Path) -> None:
    told: list[str] = []
    path = written(tmp_path / "p.jsonl", "\n".join(json.dumps(text) for text in ("a", " ", "b", "a ", "a")))
    load_prompts(PromptFile(path=str(path)), tell=told.append)
    assert told == [f"Of 5 rows of {path}, 1 are blank and 2 repeat an earlier one; 2 prompts stay."]
    assert load_prompt_set(str(path)).note == (
        "Of 5 rows of p, 1 have no prompt and 2 repeat an earlier one; 2 prompts are drawn, each once."
    )


def test_nothing_is_told_when_nothing_is_left_out(tmp_path: Path) -> None:
    told: list[str] = []
    load_prompts(PromptFile(path=str(written(tmp_path / "p.txt", "a\n\nb\n"))), tell=told.append)
    assert told == []
    assert load_prompt_set(str(tmp_path / "p.txt")).note is None
