"""How a pipeline counts guidance and what it does with it, as data: one home for its units.

Two units are in use. A *scale* is what the pipeline's call is given, and what users and cards state. A *weight* is that
of the difference in ``null + weight (conditional - null)``, so that 1 is off; settings of loss terms are weights.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

_Renormalise = Callable[[Tensor, Tensor], Tensor]
"""From the guided and the conditional velocity to the one that is followed."""


@dataclass(frozen=True)
class Guidance:
    """One pipeline's guidance.

    Attributes:
        argument: The argument of the pipeline's call.
        off: The scale under which the pipeline asks as a student is asked.
        offset: Weight minus scale: 1 where the pipeline counts from 0.
        embedded: Whether the scale is an input of the network, so that there is no unconditional branch.
        default: The scale of a picture that states none, where the call's own default is not the family's.
        null_prompt: The text of the unconditional branch.
        spelled_out: Whether the call guides only when it is given the null prompt as ``negative_prompt``.
        renormalise: What follows the guidance, in pictures of the teacher; training terms use the plain branches.
    """

    argument: str = "guidance_scale"
    off: float = 1.0
    offset: float = 0.0
    embedded: bool = False
    default: float | None = None
    null_prompt: str = ""
    spelled_out: bool = False
    renormalise: _Renormalise | None = None

    def weight(self, scale: float) -> float:
        """The weight of the difference at a scale of the pipeline."""
        return scale + self.offset

    def scale(self, weight: float) -> float:
        """The pipeline's scale at which the difference has this weight."""
        return weight - self.offset

    def call(self, scale: float, *, num_prompts: int) -> dict[str, Any]:
        """Arguments of the stock pipeline's call that guide by ``scale``."""
        if not self.spelled_out or scale == self.off:
            return {self.argument: scale}
        return {self.argument: scale, "negative_prompt": [self.null_prompt] * num_prompts}

    def default_scale(self, pipeline_class: type[Any]) -> float | None:
        """The scale of a picture that states none; None when neither the family nor the pipeline has one."""
        if self.default is not None:
            return self.default
        found = inspect.signature(pipeline_class.__call__).parameters.get(self.argument)
        return float(found.default) if found is not None and isinstance(found.default, int | float) else None
