"""Prompts from files, from the demo and from a dataset: what is kept, in which order, and what is refused."""

import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewstep.config.prompt_sources import DemoPrompts, HubPrompts, PromptFile
from fewstep.data.prompts import load_prompts, prompt_index
from fewstep.errors import ConfigError


def prompts_of(path: Path, text: str, column: str | None = None) -> tuple[str, ...]:
    path.write_text(text, encoding="utf-8")
    return load_prompts(PromptFile(path=str(path), column=column))


def refusal(path: Path, text: str | None, column: str | None = None) -> str:
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_prompts(PromptFile(path=str(path), column=column))
    return str(caught.value)


def test_a_text_file_holds_one_prompt_per_line(tmp_path: Path) -> None:
    assert prompts_of(tmp_path / "p.txt", "a cat\r\n\n  a dog  \na cat\n") == ("a cat", "a dog")


def test_a_byte_order_mark_is_no_part_of_the_first_prompt(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_bytes(b"\xef\xbb\xbfa cat\n")
    assert load_prompts(PromptFile(path=str(tmp_path / "p.txt"))) == ("a cat",)


def test_a_line_separator_inside_a_prompt_does_not_split_it(tmp_path: Path) -> None:
    assert prompts_of(tmp_path / "p.txt", "a cat\u2028asleep\n") == ("a cat\u2028asleep",)


def test_the_first_occurrence_decides_the_order(tmp_path: Path) -> None:
    assert prompts_of(tmp_path / "p.txt", "b\na\nb\nc\na\n") == ("b", "a", "c")


def test_a_jsonl_column_is_read_by_its_name(tmp_path: Path) -> None:
    text = '{"id": "1", "caption": "a cat"}\n\n{"id": "2", "caption": "a dog"}\n'
    assert prompts_of(tmp_path / "p.jsonl", text, "caption") == ("a cat", "a dog")


def test_the_column_called_prompt_needs_no_name(tmp_path: Path) -> None:
    assert prompts_of(tmp_path / "p.jsonl", '{"id": "1", "prompt": "a cat"}\n') == ("a cat",)


def test_a_jsonl_file_may_hold_texts(tmp_path: Path) -> None:
    assert prompts_of(tmp_path / "p.jsonl", '"a cat"\n"a dog"\n') == ("a cat", "a dog")


def test_a_quoted_csv_prompt_keeps_its_commas_and_line_breaks(tmp_path: Path) -> None:
    assert prompts_of(tmp_path / "p.csv", 'caption\n"a cat, asleep\non a mat"\n') == ("a cat, asleep\non a mat",)


def test_several_columns_without_a_name_are_listed(tmp_path: Path) -> None:
    said = refusal(tmp_path / "p.csv", "id,caption\n1,a cat\n")
    assert said.endswith("has the columns id, caption; name one with prompts.column, or call one of them prompt.")


def test_a_column_that_is_not_there_lists_those_that_are(tmp_path: Path) -> None:
    said = refusal(tmp_path / "p.csv", "id,caption\n1,a cat\n", "text")
    assert said.startswith("prompts.column is 'text', which ")
    assert said.endswith("its columns are id, caption.")


def test_a_value_that_is_no_text_is_named_with_its_row(tmp_path: Path) -> None:
    said = refusal(tmp_path / "p.jsonl", '{"prompt": "a cat"}\n{"prompt": 3}\n')
    assert said == f"Line 2 of {tmp_path / 'p.jsonl'} is 3; a prompt must be a text."


def test_a_column_of_a_text_file_is_refused(tmp_path: Path) -> None:
    assert "which has no columns; remove it." in refusal(tmp_path / "p.txt", "a cat\n", "caption")


def test_broken_json_is_named_with_its_line(tmp_path: Path) -> None:
    said = refusal(tmp_path / "p.jsonl", '"a cat"\n{"prompt": \n')
    assert said.startswith(f"Line 2 of {tmp_path / 'p.jsonl'} cannot be used: it is not valid JSON")


def test_a_missing_prompt_file_is_named(tmp_path: Path) -> None:
    said = refusal(tmp_path / "p.txt", None)
    assert said.startswith(f"The prompt file {tmp_path / 'p.txt'} does not exist; check its path. `fewstep prompts`")


@pytest.mark.parametrize(("name", "text"), [("p.txt", " \n\n"), ("p.jsonl", ""), ("p.csv", "prompt\n"), ("p.csv", "")])
def test_an_empty_prompt_file_is_refused(tmp_path: Path, name: str, text: str) -> None:
    said = refusal(tmp_path / name, text)
    assert said == f"There is no prompt in {tmp_path / name}; a run needs at least one that is not blank."


def test_an_unknown_suffix_is_refused(tmp_path: Path) -> None:
    said = refusal(tmp_path / "p.xlsx", "x")
    assert said.endswith("p.xlsx ends in none of .txt, .jsonl, .json, .csv, .tsv, .parquet, .tar; convert it.")


def test_the_demo_has_its_prompts_without_the_null_prompt() -> None:
    prompts = load_prompts(DemoPrompts())
    assert len(prompts) == 88
    assert "a red handwritten three" in prompts
    assert "" not in prompts


class _Rows(dict[str, list[Any]]):
    """What ``datasets.load_dataset`` returns, as far as it is used: columns by name."""

    @property
    def column_names(self) -> list[str]:
        return list(self)


@pytest.fixture
def _datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("datasets")

    def load_dataset(name: str, *, split: str, revision: str | None) -> _Rows:
        if split != "train":
            raise ValueError(f"Unknown split {split!r}.")
        return _Rows(caption=["a cat", None, "a dog", "a cat"])

    module.load_dataset = load_dataset  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", module)


@pytest.mark.usefixtures("_datasets")
def test_a_dataset_column_is_read_without_its_missing_values() -> None:
    assert load_prompts(HubPrompts(dataset="a/b", column="caption")) == ("a cat", "a dog")


@pytest.mark.usefixtures("_datasets")
def test_a_dataset_without_the_column_lists_its_columns() -> None:
    with pytest.raises(
        ConfigError, match=r"prompts.column is 'text', which a/b does not have; its columns are caption."
    ):
        load_prompts(HubPrompts(dataset="a/b", column="text"))


@pytest.mark.usefixtures("_datasets")
def test_a_dataset_that_cannot_be_loaded_is_told_with_the_reason() -> None:
    with pytest.raises(ConfigError, match=r"'a/b' with split 'test', and it cannot be loaded: Unknown split 'test'"):
        load_prompts(HubPrompts(dataset="a/b", column="caption", split="test"))


def test_without_the_extra_the_command_to_install_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError, match=r"needs the package datasets; install it with: pip install 'fewstep\[hub\]'"):
        load_prompts(HubPrompts(dataset="a/b", column="caption"))


@given(seed=st.integers(0, 2**40), epoch=st.integers(0, 1000), num_prompts=st.integers(1, 50))
def test_every_epoch_uses_each_prompt_once(seed: int, epoch: int, num_prompts: int) -> None:
    start = epoch * num_prompts
    used = [prompt_index(seed, start + place, num_prompts) for place in range(num_prompts)]
    assert sorted(used) == list(range(num_prompts))


def test_two_epochs_have_different_orders() -> None:
    first = [prompt_index(0, position, 50) for position in range(50)]
    second = [prompt_index(0, position, 50) for position in range(50, 100)]
    assert first != second


def test_two_seeds_have_different_orders() -> None:
    assert [prompt_index(0, position, 50) for position in range(50)] != [
        prompt_index(1, position, 50) for position in range(50)
    ]


def test_the_order_does_not_depend_on_what_was_asked_before() -> None:
    backwards = {position: prompt_index(3, position, 7) for position in reversed(range(100))}
    assert [backwards[position] for position in range(100)] == [prompt_index(3, position, 7) for position in range(100)]


def test_the_order_is_the_same_on_every_machine() -> None:
    # recorded once: a run that is resumed elsewhere, or later, must see the same prompts
    assert [prompt_index(42, position, 10) for position in range(10)] == [2, 9, 7, 0, 8, 1, 3, 4, 6, 5]


def test_each_place_sees_each_prompt_equally_often() -> None:
    first = Counter(prompt_index(0, 4 * epoch, 4) for epoch in range(2000))
    # 500 expected each; 5 standard deviations of a binomial are 97
    assert all(abs(first[prompt] - 500) < 97 for prompt in range(4))
