"""The section of what only changes memory and speed, which ``fewstep plan`` fills and a resume may change."""

from typing import Annotated, Any, Literal, cast, get_args

from pydantic import Field, PlainValidator

from fewstep.bounds import Batch, Count
from fewstep.errors import shown
from fewstep.roles.compilation import Compilation
from fewstep.section import Changeable, Section


def _recomputation(value: Any) -> bool | Literal["auto", "selective"]:
    if isinstance(value, bool):
        return value
    if value in ("auto", "selective"):
        return cast(Literal["auto", "selective"], value)
    raise ValueError(f"memory.gradient_checkpointing is {shown(value)}; it must be auto, true, false or selective")


def _compilation(value: Any) -> Compilation:
    if isinstance(value, bool) or value in get_args(get_args(Compilation)[1]):
        return cast(Compilation, value)
    raise ValueError(
        f"memory.compiled is {shown(value)}; it must be true, false, reduce-overhead, max-autotune or "
        "max-autotune-no-cudagraphs"
    )


_Compilation = Annotated[Compilation, PlainValidator(_compilation)]
_Recomputation = Annotated[bool | Literal["auto", "selective"], PlainValidator(_recomputation)]


class Offload(Section):
    """What stays in the memory of the CPU while a GPU computes; saves its memory and costs time."""

    teacher: bool = Field(default=False, description="the frozen network, brought over block by block")
    trained: bool = Field(default=False, description="trained weights, gradients and the optimiser's state")


class MemoryConfig(Changeable):
    """What only changes memory and speed, not the gradient; ``fewstep plan`` chooses what is not stated."""

    microbatch: Batch | None = Field(
        default=None, description="samples per process and forward; None is the whole batch over the processes"
    )
    gradient_checkpointing: _Recomputation = Field(
        default="auto",
        description="recompute blocks in the backward; selective keeps matrix products and attention; auto takes the "
        "quickest that the devices have room for when the run starts, and a resume keeps it",
    )
    keep_anchor_graph: bool | None = Field(
        default=None,
        description="the forward at the anchor is also the gradient forward: true, in every microbatch until the "
        "student's update; None, where microbatch does not split the batch",
    )
    batch_frozen_calls: bool = Field(default=True, description="one batched call per frozen network and loss graph")
    offload: Offload = Offload()
    prefetch: Count | None = Field(
        default=None, description="blocks whose spread weights are gathered ahead of their use; None leaves it to FSDP2"
    )
    compiled: _Compilation = Field(
        default=False,
        description="torch.compile of the blocks: minutes at the start, then faster; a mode by torch's name tunes "
        "more, and reduce-overhead and max-autotune record CUDA graphs of forwards without a gradient",
    )

    @property
    def recomputation(self) -> bool | Literal["selective"]:
        """What is recomputed; whole blocks while nobody has looked at what ``auto`` has room for."""
        return True if self.gradient_checkpointing == "auto" else self.gradient_checkpointing

    @property
    def compiler(self) -> str:
        """``compiled`` as a recipe writes it."""
        return str(self.compiled).lower()

    def keeps_anchor_graph(self, rounds: int) -> bool:
        """Whether graphs at anchors are kept by a process that makes so many rounds of its samples."""
        return rounds == 1 if self.keep_anchor_graph is None else self.keep_anchor_graph
