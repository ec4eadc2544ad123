"""Prompts from names and files, and what is refused."""

import json
import sys
from pathlib import Path

import pytest

from fewstep.errors import ConfigError
from fewstep.evaluation.prompt_sets import NAMED, load_prompt_set, prompt_set, prompt_set_names


def test_every_set_of_the_issue_has_a_name() -> None:
    wanted = {"drawbench", "parti", "geneval", "dpgbench", "coco", "pickapic", "hpd", "ocr", "mjhq", "t2i-compbench"}
    assert wanted <= set(prompt_set_names())


def test_a_text_file_is_one_prompt_per_line_without_repetitions(tmp_path: Path) -> None:
    file = tmp_path / "drawbench.txt"
    file.write_text("a cat\n\n a dog \na cat\n")
    found = load_prompt_set(str(file))
    assert found.name == "drawbench"
    assert [(item.id, item.text) for item in found.items] == [("00000", "a cat"), ("00001", "a dog")]


def test_columns_beside_the_prompt_are_facts(tmp_path: Path) -> None:
    file = tmp_path / "geneval.jsonl"
    row = {"tag": "counting", "include": [{"class": "bench", "count": 4}], "prompt": "a photo of four benches"}
    file.write_text(json.dumps(row) + "\n")
    (item,) = load_prompt_set(f"geneval={file}").items
    assert item.text == "a photo of four benches"
    assert item.facts == {"tag": "counting", "include": [{"class": "bench", "count": 4}]}


def test_a_table_of_questions_becomes_one_prompt_with_its_questions(tmp_path: Path) -> None:
    file = tmp_path / "dpg_bench.csv"
    file.write_text(
        "item_id,text,keywords,proposition_id,dependency,category_broad,category_detailed,tuple,"
        "question_natural_language\n"
        '7,"a red cat, asleep",x,1,0,entity,whole,entity - whole (cat),Is there a cat?\n'
        '7,"a red cat, asleep",x,2,1,attribute,color,"attribute - color (cat, red)",Is the cat red?\n'
        "9,a hill,x,1,0,entity,whole,entity - whole (hill),Is there a hill?\n"
    )
    first, second = load_prompt_set(str(file)).items
    assert (first.id, first.text, second.id) == ("7", "a red cat, asleep", "9")
    assert [q["question_natural_language"] for q in first.facts["questions"]] == ["Is there a cat?", "Is the cat red?"]
    assert [q["dependency"] for q in first.facts["questions"]] == ["0", "1"]


def test_the_first_of_several_captions_is_the_prompt() -> None:
    found = prompt_set("coco", [{"image_id": 42, "captions": ["a bus", "a red bus"]}])
    assert (found.items[0].id, found.items[0].text) == ("42", "a bus")


@pytest.mark.parametrize(
    ("name", "row", "text"),
    [
        ("drawbench", {"Prompts": "a red car", "Category": "Colors"}, "a red car"),
        ("parti", {"Prompt": "bond", "Category": "Abstract"}, "bond"),
        ("pickapic", {"caption": "a wizard"}, "a wizard"),
        ("hpd", {"prompt": "anime girl", "file": "anime"}, "anime girl"),
    ],
)
def test_the_columns_of_a_named_set_are_read(name: str, row: dict[str, str], text: str) -> None:
    assert prompt_set(name, [row]).items[0].text == text


def test_the_embedded_set_is_the_demos_full_prompts() -> None:
    found = load_prompt_set("digits")
    assert len(found.items) == 70
    assert (found.items[0].id, found.items[0].text) == ("a-red-handwritten-zero", "a red handwritten zero")


def test_the_digest_tells_other_prompts_apart_and_not_their_name() -> None:
    one, other = prompt_set("a", [{"prompt": "x"}]), prompt_set("a", [{"prompt": "y"}])
    assert one.digest == prompt_set("b", [{"prompt": "x"}]).digest
    assert one.digest != other.digest


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(
        ConfigError,
        match=r"'drawbnch', which is no file and none of digits, digits-open, scenes, scenes-held-out, draw",
    ):
        load_prompt_set("drawbnch")


def test_a_missing_file_is_named() -> None:
    with pytest.raises(ConfigError, match=r"The prompt file nowhere/prompts.txt does not exist; check its path."):
        load_prompt_set("nowhere/prompts.txt")


def test_a_set_that_is_not_on_the_hub_says_where_it_is() -> None:
    with pytest.raises(ConfigError, match=r"fetch it from https://github.com/djghosh13/.* and give --prompts geneval="):
        load_prompt_set("geneval")


def test_a_missing_package_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError, match=r"package datasets; install it with: pip install 'fewstep\[eval\]'"):
        load_prompt_set("coco")


def test_a_set_that_cannot_be_fetched_says_how_to_go_on() -> None:
    # the tests run offline
    with pytest.raises(ConfigError, match=r"parti cannot be fetched \(.*; fetch it from https://github.com/google-res"):
        load_prompt_set("parti")


def test_a_row_without_a_prompt_names_its_columns() -> None:
    with pytest.raises(
        ConfigError, match=r"Row 1 of mine has no text in a column called prompt or .* columns are label"
    ):
        prompt_set("mine", [{"label": "a cat"}])


def test_two_prompts_of_one_id_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"Two prompts of mine have the id '1'; make the ids distinct"):
        prompt_set("mine", [{"id": 1, "prompt": "a"}, {"id": 1, "prompt": "b"}])


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "empty.txt"
    file.write_text("\n\n")
    with pytest.raises(ConfigError, match=r"There is no prompt in empty; give a file with at least one"):
        load_prompt_set(str(file))


def test_no_named_set_is_inside_the_package() -> None:
    assert all(found.address.startswith("https://") and found.licence for found in NAMED.values())


def test_a_json_list_of_texts_is_read_as_prompts(tmp_path: Path) -> None:
    file = tmp_path / "anime.json"
    file.write_text('["a girl", "a robot"]')
    assert [item.text for item in load_prompt_set(f"hpd={file}").items] == ["a girl", "a robot"]


def test_an_object_of_objects_has_its_ids_as_keys(tmp_path: Path) -> None:
    """The form of MJHQ-30K's meta_data.json."""
    (tmp_path / "meta_data.json").write_text(
        json.dumps({"a1f": {"category": "animals", "prompt": "a fox"}, "0b2": {"category": "food", "prompt": "a pie"}})
    )
    found = load_prompt_set(f"mjhq={tmp_path / 'meta_data.json'}").items
    assert [(item.id, item.text, item.facts["category"]) for item in found] == [
        ("a1f", "a fox", "animals"),
        ("0b2", "a pie", "food"),
    ]


def test_several_files_of_a_set_tell_which_prompt_is_from_which(tmp_path: Path) -> None:
    """The form of T2I-CompBench's folder."""
    for name, text in (
        ("color_val", "a red car\na blue cup\n"),
        ("color_train", "no\n"),
        ("shape_val", "a round bag\n"),
    ):
        (tmp_path / f"{name}.txt").write_text(text)
    found = load_prompt_set(f"t2i-compbench={tmp_path}/*_val.txt").items
    assert [(item.text, item.facts["file"]) for item in found] == [
        ("a red car", "color_val"),
        ("a blue cup", "color_val"),
        ("a round bag", "shape_val"),
    ]


def test_questions_about_an_item_that_is_no_name_are_grouped_or_refused(tmp_path: Path) -> None:
    row = {"item_id": [7], "text": "a cat", "proposition_id": {}, "dependency": None, "question_natural_language": 3}
    (tmp_path / "dpg.jsonl").write_text(f"{json.dumps(row)}\n" * 2)
    (item,) = load_prompt_set(str(tmp_path / "dpg.jsonl")).items
    assert (item.id, len(item.facts["questions"])) == ("_7_", 2)
    (tmp_path / "dpg.jsonl").write_text(json.dumps({**row, "text": 5}))
    with pytest.raises(ConfigError, match="Row 1 of dpg has no text in a column called"):
        load_prompt_set(str(tmp_path / "dpg.jsonl"))
