"""The questions of DPG-Bench, by the columns of its table, and how answers make a score."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fewstep.errors import ConfigError
from fewstep.scores.metric import PromptItem


@dataclass(frozen=True)
class _Question:
    """One yes-or-no question about a picture.

    Attributes:
        id: Its number within the prompt.
        parents: Questions that must hold for this one to count.
        text: As it is asked.
        category: Such as ``attribute - color``.
    """

    id: int
    parents: tuple[int, ...]
    text: str
    category: str

    @property
    def group(self) -> str:
        """The category's first part: entity, attribute, relation, global or other."""
        return self.category.partition("-")[0].strip()


def questions_of(item: PromptItem) -> tuple[_Question, ...]:
    """The questions of one prompt, in the order of the table.

    Raises:
        ConfigError: It has none, a row cannot be read, or a question depends on one that is not there.
    """
    rows = item.facts.get("questions")
    if not rows:
        raise ConfigError(
            f"dpgbench has no questions for the prompt {item.id}. Use the prompt set dpgbench, whose table "
            f"(dpg_bench.csv) has them, or leave the metric out."
        )
    # a number that comes twice keeps its place and takes the later row, as in the official script
    questions = tuple({question.id: question for question in (_question(row, item) for row in rows)}.values())
    known = {question.id for question in questions}
    for question in questions:
        unknown = [parent for parent in question.parents if parent not in known]
        if unknown:
            raise ConfigError(
                f"Question {question.id} of the prompt {item.id} depends on question {unknown[0]}, which the table of "
                f"dpgbench does not have. Get the table again."
            )
    return questions


def _question(row: Mapping[str, Any], item: PromptItem) -> _Question:
    try:
        parents = tuple(int(part) for part in str(row["dependency"]).split(","))
        return _Question(
            id=int(row["proposition_id"]),
            parents=tuple(parent for parent in parents if parent != 0),
            text=str(row["question_natural_language"]),
            category=str(row["tuple"]).partition("(")[0].strip(),
        )
    except (KeyError, ValueError) as error:
        raise ConfigError(
            f"A question of the prompt {item.id} cannot be read ({error}); dpgbench needs a number, the numbers it "
            f"depends on (0 for none), a tuple and a text. Get the table again."
        ) from error


def fulfilled(questions: Sequence[_Question], answers: Mapping[int, bool]) -> dict[int, bool]:
    """Which questions count as fulfilled: answered yes, and all those fulfilled that they depend on.

    In the order of the table, so that a no spreads to the questions after it that depend on it.

    Args:
        questions: Of one prompt.
        answers: Whether each was answered with yes.
    """
    counted = dict(answers)
    for question in questions:
        if not all(counted[parent] for parent in question.parents):
            counted[question.id] = False
    return counted


def share_fulfilled(questions: Sequence[_Question], answers: Mapping[int, bool]) -> float:
    """Fulfilled questions over all of them; a question whose condition fails counts as not fulfilled."""
    counted = fulfilled(questions, answers)
    return sum(counted.values()) / len(counted)
