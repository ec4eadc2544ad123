"""Whether a recipe's noise levels fit the backbone: an error at the start, not a bad picture at the end."""

import itertools
from collections.abc import Sequence

import torch

from fewstep.backbones.protocol import ModelAdapter
from fewstep.config.run_config import RunConfig
from fewstep.core.schedules import FixedSchedule
from fewstep.errors import ConfigError
from fewstep.sampling.sampler import teacher_sigmas

# of the first sigma against sigma_max: float32 in the map, and tables of a thousand noise levels
_START_TOLERANCE = 1e-4


def require_fitting_levels(config: RunConfig, adapter: ModelAdapter) -> None:
    """Check every grid of a recipe on its backbone before anything is loaded.

    Raises:
        ConfigError: Levels that differ fall on one sigma, leave the range of the network, or do not start at noise.
    """
    schedule = config.schedule
    grids: dict[str, Sequence[float]] = {"sampling.levels": config.sampling.levels}
    if isinstance(schedule, FixedSchedule):
        grids["schedule.levels"] = schedule.levels
    else:
        grids["schedule.inner"] = (1.0, schedule.inner.high)
    if config.terms.isg is not None:
        grids["terms.isg.levels"] = config.terms.isg.levels
    if config.terms.dp is not None:
        grids["terms.dp"] = config.terms.dp.levels
    for height, width in dict.fromkeys(((adapter.config.height, adapter.config.width), *config.backbone.sizes)):
        for setting, levels in grids.items():
            _require_fit(setting, levels, adapter.at_size(height, width))
    try:
        teacher_sigmas(adapter, config.sampling.teacher_steps)
    except ConfigError as error:
        raise ConfigError(f"sampling.teacher_steps does not fit: {error}") from error
    # an adapter refuses a grid that the exported student's scheduler could not take
    sigmas = adapter.to_sigma(torch.tensor(config.sampling.levels)).tolist()
    adapter.call_kwargs(sigmas)
    adapter.sampling_scheduler(sigmas, step=config.simulation.step)
    if config.sigma_range.low >= adapter.sigma_max:
        raise ConfigError(
            f"sigma_range.low is {config.sigma_range.low}, but {adapter.config.model} was trained up to sigma "
            f"{adapter.sigma_max:.4g} only; lower sigma_range.low."
        )


def _require_fit(setting: str, levels: Sequence[float], adapter: ModelAdapter) -> None:
    sigmas = adapter.to_sigma(torch.tensor(list(levels), dtype=torch.float32)).tolist()
    model = adapter.config.model
    for (level, sigma), (lower, next_sigma) in itertools.pairwise(zip(levels, sigmas, strict=True)):
        # "not >" instead of "<=": a sigma that is no number fails as well
        if not sigma > next_sigma:
            raise ConfigError(
                f"{setting} does not fit {model}: its levels {level:.8g} and {lower:.8g} become sigma {sigma:.6g} and "
                f"{next_sigma:.6g}, which do not descend. Space them further apart."
            )
    if not abs(sigmas[0] - adapter.sigma_max) <= _START_TOLERANCE:
        raise ConfigError(
            f"{setting} does not fit {model}: its first level becomes sigma {sigmas[0]:.6g}, but this network starts "
            f"from noise at {adapter.sigma_max:.6g}. The scheduler_config.json is not the original checkpoint's."
        )
    if not sigmas[-1] > 0.0:
        raise ConfigError(
            f"{setting} does not fit {model}: its last level {levels[-1]:.8g} becomes sigma {sigmas[-1]:.6g}, where "
            "no noise is left. Raise that level."
        )
