"""The clock of diffusers' FlowMatchEulerDiscreteScheduler, as a map of single noise levels.

Shared by every backbone that ships with that scheduler; :class:`FlowMatchAdapter` answers the clock's questions.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from fewstep.backbones.diffusers_adapter import DiffusersAdapter
from fewstep.backbones.protocol import BackboneConfig
from fewstep.core.flow import stretch_to_terminal, time_shift
from fewstep.errors import ConfigError, shown

_BENDS_THE_GRID = (
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
    "invert_sigmas",
    "stochastic_sampling",
)
"""Options under which a level's sigma depends on the rest of the grid, or the step is no Euler step."""
_TRAINED_STEPS = 1000
_SAME_SIGMA = 1e-6

_MAX_MU = 10
"""exp(10) moves half noise to sigma .99995; published checkpoints stay near 1."""


class FlowMatchAdapter(DiffusersAdapter):
    """A flow-matching pipeline whose scheduler only shifts the levels it is given.

    A family adds ``velocity``, ``encode``, and the names of its classes.
    """

    spaces_levels: ClassVar[bool | None] = None
    """Whether the pipeline, told a number n of steps alone, gives its scheduler the levels 1, 1 - 1/n to 1/n, or leaves
    the grid to it: then the exported scheduler has the student's. None: a call has to give the sigmas."""
    usual_steps: ClassVar[int] = 50
    """Of the teacher: a level by itself is shifted as in its grid of so many, where the shift depends on that."""

    def __init__(self, config: BackboneConfig, components: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__(config, components)
        _require_plain_shift(self.scheduler_config, model=config.model)

    @property
    def num_image_tokens(self) -> int:
        """Of one latent, as the pipeline counts them for a shift that grows with the image."""
        *_, height, width = self.latent_shape(self.config.height, self.config.width)
        return (height // self.patch_size) * (width // self.patch_size)

    def dynamic_mu(self, num_steps: int) -> float:
        """The mu of a shift that grows with the image: linear in its tokens, whatever the number of steps."""
        return linear_mu(self.components["scheduler"], self.num_image_tokens)

    def to_sigma(self, level: Tensor) -> Tensor:
        return shift_level(level, self.components["scheduler"], lambda: self.dynamic_mu(self.usual_steps))

    def sigmas(self, levels: Float[Tensor, "k"]) -> Float[Tensor, "k"]:
        scheduler = self.components["scheduler"]
        shifted = shift_level(levels, scheduler, lambda: self.dynamic_mu(len(levels)))
        terminal = scheduler["shift_terminal"]
        return stretch_to_terminal(shifted, float(terminal)) if terminal else shifted

    def student_scheduler(self, sigmas: Sequence[float]) -> Any:
        own = self._scheduler_with_grid(sigmas)
        return scheduler_of_given_sigmas(self.components["scheduler"]) if own is None else own

    def call_kwargs(self, sigmas: Sequence[float]) -> dict[str, Any]:
        call = super().call_kwargs(sigmas)
        if self._scheduler_with_grid(sigmas) is not None:
            del call["sigmas"]
        return call

    def _scheduler_with_grid(self, sigmas: Sequence[float]) -> Any | None:
        """One that needs to be told the number of steps alone; None where there is none with this grid."""
        if self.spaces_levels is None:
            return None
        makes = shifting_scheduler if self.spaces_levels else own_grid_scheduler
        return makes(sigmas, self.components["scheduler"])


def shift_level(level: Tensor, scheduler: Mapping[str, Any], dynamic_mu: Callable[[], float]) -> Tensor:
    """Map pre-shift levels to sigma with a static shift, or with the one that grows with the image.

        sigma = time_shift(level, s);  s = shift,  or exp(mu)

    Args:
        level: Noise levels in [0, 1].
        scheduler: The scheduler's complete configuration.
        dynamic_mu: Asked by a dynamic shift only.
    """
    if not scheduler["use_dynamic_shifting"]:
        return time_shift(level, float(scheduler["shift"]))
    mu = dynamic_mu()
    return time_shift(level, mu if scheduler["time_shift_type"] == "linear" else math.exp(mu))


def linear_mu(scheduler: Mapping[str, Any], num_tokens: int) -> float:
    """Most pipelines' rule from the number of image tokens to mu."""
    low_tokens, high_tokens = scheduler["base_image_seq_len"], scheduler["max_image_seq_len"]
    low, high = scheduler["base_shift"], scheduler["max_shift"]
    if not (0 < low_tokens < high_tokens and low is not None and high is not None):
        raise ConfigError(
            f"The scheduler shifts noise levels by the size of the picture between base_image_seq_len={low_tokens} and "
            f"max_image_seq_len={high_tokens} tokens, from base_shift={low} to max_shift={high}, which is no line. Use "
            "the original checkpoint's scheduler_config.json."
        )
    slope = (high - low) / (high_tokens - low_tokens)
    mu = float(num_tokens * slope + (low - slope * low_tokens))
    if abs(mu) > _MAX_MU or (mu <= 0 and scheduler["time_shift_type"] == "linear"):
        raise ConfigError(
            f"The scheduler shifts noise levels by mu = {mu:.4g} at {num_tokens} image tokens, with which no level is "
            "left between data and noise. Use the original checkpoint's scheduler_config.json, or a smaller picture "
            "(backbone.height, backbone.width)."
        )
    return mu


def _require_plain_shift(scheduler: Mapping[str, Any], *, model: str) -> None:
    """Raise ConfigError when the scheduler does more to a grid than shift each level."""
    if scheduler.get("_class_name") != "FlowMatchEulerDiscreteScheduler":
        raise ConfigError(
            f"{model} ships with the scheduler {shown(scheduler.get('_class_name'), quoted=False)}; "
            "this backbone knows the clock of FlowMatchEulerDiscreteScheduler only."
        )
    active = [name for name in _BENDS_THE_GRID if scheduler[name]]
    if active:
        raise ConfigError(
            f"The scheduler of {model} sets {active[0]}={scheduler[active[0]]!r}, which moves noise levels in a way "
            "that this backbone cannot follow. Use the original checkpoint's scheduler_config.json."
        )


def static_shift(scheduler: Mapping[str, Any], *, model: str, multistep: str) -> float:
    """The time shift of a multistep scheduler on flow sigmas, or of the Euler one of other conversions.

    Args:
        multistep: Class of the scheduler that the family ships with; its order and its grid are its own.

    Raises:
        ConfigError: Its clock is not a static shift.
    """
    if scheduler.get("_class_name") == "FlowMatchEulerDiscreteScheduler":
        _require_plain_shift(scheduler, model=model)
        if not (scheduler["use_dynamic_shifting"] or scheduler["shift_terminal"]):
            return float(scheduler["shift"])
    elif (
        scheduler.get("_class_name") == multistep
        and scheduler["use_flow_sigmas"]
        and scheduler["prediction_type"] == "flow_prediction"
        and not scheduler["use_dynamic_shifting"]
    ):
        return float(scheduler["flow_shift"])
    raise ConfigError(
        f"The scheduler of {model} is a {shown(scheduler.get('_class_name'), quoted=False)} whose clock this backbone "
        f"does not know; it needs a {multistep} with use_flow_sigmas and prediction_type=flow_prediction, or a "
        "FlowMatchEulerDiscreteScheduler with a static shift. Use the original checkpoint's scheduler_config.json."
    )


def scheduler_of_given_sigmas(
    scheduler: Mapping[str, Any], *, shift: float = 1.0, terminal: float | None = None
) -> Any:
    """The same scheduler with this shift alone; without one it takes the sigmas it is given as they are."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler.from_config(
        dict(scheduler), shift=shift, use_dynamic_shifting=False, shift_terminal=terminal
    )


def shifting_scheduler(sigmas: Sequence[float], scheduler: Mapping[str, Any]) -> Any | None:
    """A scheduler that makes ``sigmas`` of the levels 1, 1 - 1/n to 1/n that a pipeline of n steps gives it.

        sigma_j = k x / (1 + (k - 1) x);   x = 1 - j / n

    Those are the evenly spaced levels under every time shift; two shifts are one with the product.

    Returns:
        The scheduler, or None: ``sigmas`` are no such grid.
    """
    count, shift = len(sigmas), 1.0
    if count > 1:
        if not max(sigmas[1:]) < 1:
            return None
        level, sigma = (middle := 1 - count // 2 / count), sigmas[count // 2]
        shift = sigma * (1 - level) / (middle * (1 - sigma))
    levels = [1 - place / count for place in range(count)]
    if not _near([shift * level / (1 + (shift - 1) * level) for level in levels], sigmas):
        return None
    return scheduler_of_given_sigmas(scheduler, shift=shift)


def _near(made: Sequence[float], sigmas: Sequence[float]) -> bool:
    return max(abs(own - sigma) for own, sigma in zip(made, sigmas, strict=True)) < _SAME_SIGMA


def own_grid_scheduler(sigmas: Sequence[float], scheduler: Mapping[str, Any]) -> Any | None:
    """An Euler scheduler whose own grid of so many steps is ``sigmas``, for a pipeline that is given none.

    Asked for n steps, the stock scheduler spaces them evenly between 1 and m = k / (999 + k), which is its smallest
    level shifted by k, shifts them by k once more, and stretches the result to its ``shift_terminal``:

        1 - sigma_j = (1 - sigma_last) x (1 - r) / (1 - r x);   x = j / (n - 1),   r = 999 (k - 1) / (k (999 + k))

    That is every evenly spaced grid from 1 under every time shift: r follows from one level between, and k from r.

    Returns:
        The scheduler, or None: ``sigmas`` are no such grid.
    """
    shift, last = 1.0, len(sigmas) - 1
    if last and not max(sigmas[1:]) < 1:
        return None
    if last > 1:
        middle = len(sigmas) // 2
        x, share = middle / last, (1 - sigmas[middle]) / (1 - sigmas[last])
        r = (share - x) / (x * (share - 1))
        least = 1 / _TRAINED_STEPS
        # r k^2 - (1 - least) (1 - r) / least k + (1 - least) / least = 0, in the form that survives r = 0
        half = (1 - least) * (1 - r) / 2
        shift = (1 - least) / (half + math.sqrt(max(half**2 - r * least * (1 - least), 0.0)))
    terminal = float(sigmas[last]) if last else None
    made = scheduler_of_given_sigmas(scheduler, shift=shift, terminal=terminal)
    made.set_timesteps(len(sigmas))
    return made if _near(made.sigmas.tolist()[:-1], sigmas) else None


def scheduler_with_own_grid(sigmas: Sequence[float], *, model: str) -> Any:
    """:func:`own_grid_scheduler` of a pipeline that cannot be given a grid at all.

    Args:
        model: For the message.

    Raises:
        ConfigError: ``sigmas`` is no such grid.
    """
    made = own_grid_scheduler(sigmas, {"num_train_timesteps": _TRAINED_STEPS})
    if made is None:
        raise ConfigError(
            f"The pipeline of {model} takes no noise levels, and no scheduler of diffusers makes {shown(list(sigmas))} "
            f"of {len(sigmas)} steps; space sampling.levels evenly from 1, such as [1.0, 0.75, 0.5, 0.25]."
        )
    return made
