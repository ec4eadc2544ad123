"""What an embedded task consists of: a teacher, prompts, a judge of pictures, and real features to compare with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

from fewstep.embedded.assets import REFERENCE_FILE, TEACHER_FOLDER, assets_folder, check_files

if TYPE_CHECKING:
    from torch import Tensor, nn


JudgeT = TypeVar("JudgeT", bound="nn.Module")


class EmbeddedTask(ABC, Generic[JudgeT]):
    """One task; nothing is read before it is asked for.

    Attributes:
        name: Of the task, its metric, its prompts and its features; its teacher is ``fewstep:NAME``.
        example: One of its prompts.
        image_size: Height and width of its pictures.
        prompt_sets: Names of the prompts to evaluate with; the first are those of the reference.
        judge_file: Weights of what judges pictures.
    """

    name: ClassVar[str]
    example: ClassVar[str]
    image_size: ClassVar[int]
    prompt_sets: ClassVar[tuple[str, ...]]
    judge_file: ClassVar[str]

    @abstractmethod
    def prompts(self, prompt_set: str) -> Sequence[str]:
        """The prompts of one of :attr:`prompt_sets`."""

    @abstractmethod
    def training_prompts(self) -> Sequence[str]:
        """The prompts to distil with."""

    @abstractmethod
    def read_judge(self, path: Path) -> JudgeT:
        """Read the judge, ready to use; ``features`` turns byte pixels ``(n, 3, h, w)`` into rows."""

    def check_judge(self) -> Path:
        """Check the judge's file and return its path."""
        return check_files(self.name, under=self.judge_file)

    def load_judge(self) -> JudgeT:
        """Check and load the judge that ships."""
        return self.read_judge(self.check_judge())

    def check_reference(self) -> Path:
        """Check the reference's file and return its path."""
        return check_files(self.name, under=REFERENCE_FILE)

    def load_reference(self) -> Tensor:
        """Check and load the features (float32) of real pictures, as many of each prompt, in the prompts' order."""
        from fewstep.tensors import all_tensors

        return all_tensors(self.check_reference())["features"].float()

    @property
    def has_teacher(self) -> bool:
        """Whether a teacher ships."""
        return (assets_folder(self.name) / TEACHER_FOLDER).is_dir()

    def teacher_folder(self) -> Path:
        """Check the teacher's files and return its diffusers folder."""
        return check_files(self.name, under=TEACHER_FOLDER)
