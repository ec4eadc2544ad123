"""DPG-Bench's dependency graph, on an example that was worked by hand."""

from pathlib import Path

import pytest

from fewstep.errors import ConfigError
from fewstep.evaluation.prompt_sets import load_prompt_set
from fewstep.scores.metric import PromptItem
from fewstep.scores.metrics.dpg_questions import fulfilled, questions_of, share_fulfilled

HEADER = (
    "item_id,text,keywords,proposition_id,dependency,category_broad,category_detailed,tuple,question_natural_language"
)
# a dog (1) on a bench (2): the dog is brown (3) and sits on it (4, needs both); the bench is old (5)
TABLE = f"""{HEADER}
dog,a brown dog on an old bench,,1,0,entity,whole,entity - whole (dog),Is there a dog?
dog,a brown dog on an old bench,,2,0,entity,whole,entity - whole (bench),Is there a bench?
dog,a brown dog on an old bench,,3,1,attribute,color,"attribute - color (dog, brown)",Is the dog brown?
dog,a brown dog on an old bench,,4,"1,2",relation,spatial,"relation - spatial (dog, bench, on)",Is the dog on the bench?
dog,a brown dog on an old bench,,5,2,attribute,state,"attribute - state (bench, old)",Is the bench old?
sky,a sky,,1,0,global,,global - (sky),Is it a sky?
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "dpg_bench.csv"
    path.write_text(TABLE, encoding="utf-8")
    return path


def item(table: Path, name: str = "dog") -> PromptItem:
    return next(item for item in load_prompt_set(str(table)).items if item.id == name)


def test_the_table_gives_each_prompt_its_questions_in_order(table: Path) -> None:
    questions = questions_of(item(table))
    assert [(q.id, q.parents, q.group) for q in questions] == [
        (1, (), "entity"),
        (2, (), "entity"),
        (3, (1,), "attribute"),
        (4, (1, 2), "relation"),
        (5, (2,), "attribute"),
    ]
    assert questions[3].text == "Is the dog on the bench?"
    assert questions[2].category == "attribute - color"
    assert len(questions_of(item(table, "sky"))) == 1


def test_a_no_takes_every_question_that_depends_on_it_along(table: Path) -> None:
    answers = {1: True, 2: False, 3: True, 4: True, 5: True}
    assert fulfilled(questions_of(item(table)), answers) == {1: True, 2: False, 3: True, 4: False, 5: False}
    assert share_fulfilled(questions_of(item(table)), answers) == 2 / 5


def test_a_no_spreads_through_a_chain_of_dependencies() -> None:
    rows = [
        {
            "proposition_id": number,
            "dependency": parent,
            "tuple": "entity - whole (x)",
            "question_natural_language": "?",
        }
        for number, parent in ((1, "0"), (2, "1"), (3, "2"))
    ]
    questions = questions_of(PromptItem("chain", "", {"questions": rows}))
    assert share_fulfilled(questions, {1: False, 2: True, 3: True}) == 0


def test_a_prompt_without_questions_says_which_prompt_set_has_them() -> None:
    with pytest.raises(ConfigError, match=r"no questions for the prompt p1. Use the prompt set dpgbench"):
        questions_of(PromptItem("p1", "a dog"))


def test_a_question_that_depends_on_none_that_is_there_is_refused() -> None:
    row = {"proposition_id": "2", "dependency": "9", "tuple": "other (x)", "question_natural_language": "?"}
    with pytest.raises(ConfigError, match="Question 2 of the prompt p1 depends on question 9"):
        questions_of(PromptItem("p1", "", {"questions": [row]}))


def test_a_row_that_cannot_be_read_is_refused() -> None:
    row = {"proposition_id": "two", "dependency": "0", "tuple": "other (x)", "question_natural_language": "?"}
    with pytest.raises(ConfigError, match="A question of the prompt p1 cannot be read"):
        questions_of(PromptItem("p1", "", {"questions": [row]}))
