"""The ``prompts`` section of a recipe: where the prompts of a run come from."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from fewstep.bounds import Count, Name, Place, Seed
from fewstep.errors import shown
from fewstep.prompts.training_sets import TRAINING_SETS
from fewstep.section import Section


class PromptFile(Section):
    """Prompts from a file, by its suffix: one per line (.txt), or a column of a table, or the texts of a webdataset."""

    kind: Literal["file"] = "file"
    path: Place = Field(
        description="txt, jsonl, json, csv, tsv, parquet or tar; a folder of the last two, or a pattern such as "
        "part-*.tar; relative to the recipe file, or to the working directory"
    )
    column: Name | None = Field(default=None, description="of a table; needed unless one is called prompt")


class DemoPrompts(Section):
    """Prompts that an embedded teacher knows."""

    kind: Literal["demo"] = "demo"
    task: Literal["digits", "scenes"] = Field(default="digits", description="whose prompts: digits or scenes")


class HubPrompts(Section):
    """Prompts from a text column of a Hugging Face dataset (needs the extra ``hub``)."""

    kind: Literal["hub"] = "hub"
    dataset: Place = Field(description="dataset id on the Hugging Face hub")
    column: Name
    split: Name = "train"
    revision: Name | None = None


class NamedPrompts(Section):
    """Prompts of a set that ``fewstep prompts`` lists, from the hub."""

    kind: Literal["set"] = "set"
    name: Name
    limit: Count | None = Field(default=None, description="so many at most; None is all of them")
    seed: Seed | None = Field(default=None, description="draws prompts.limit of them; None takes the first")

    @field_validator("name")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name not in TRAINING_SETS:
            raise ValueError(
                f"prompts.name is {shown(name)}, which is no set; the sets are {', '.join(TRAINING_SETS)} (see "
                "fewstep prompts), and a file of your own is prompts={kind: file, path: FILE}"
            )
        return name

    @model_validator(mode="after")
    def _seed_draws_a_part(self) -> "NamedPrompts":
        if self.seed is not None and self.limit is None:
            raise ValueError(
                f"prompts.seed is {self.seed}, which draws prompts.limit of the prompts; state prompts.limit, or leave "
                "the seed out"
            )
        return self


PromptSource = Annotated[PromptFile | DemoPrompts | HubPrompts | NamedPrompts, Field(discriminator="kind")]
