"""The clock of variance-preserving checkpoints: from the scheduler's betas to flow noise levels and back.

Time steps and noise levels are two names of the same 1000 knots. A whole time step maps to the exact noise level of
its knot and back to exactly that whole number; between knots both directions interpolate linearly in the logarithm of
the signal-to-noise ratio.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor

from fewstep.core.vp import sigma_from_signal
from fewstep.errors import ConfigError, shown

_Prediction = Literal["epsilon", "v_prediction"]

_WHOLE = 1e-3
"""Time steps closer than this to a whole number are that number: a float32 level of 0.98 is 979.99998 steps long."""
_LEAST_SIGNAL = 2.0**-24
"""Squared signal that diffusers' samplers put in place of zero at the last time step of zero-terminal-SNR betas."""
_LEAST_OF_COGVIDEOX = 2.0**-44
"""Its sampler takes zero itself; this is as near as float32 noise levels tell apart from 1."""


class VPSchedule:
    """Noise levels of one checkpoint.

    Args:
        scheduler: The scheduler's complete configuration; only its betas and its prediction type are read.
        model: The checkpoint, for messages.

    Attributes:
        prediction: What the network predicts.

    Raises:
        ConfigError: The scheduler has no betas, or predicts something that has no velocity.
    """

    def __init__(self, scheduler: Mapping[str, Any], *, model: str) -> None:
        self.model = model
        self.scheduler = scheduler
        self.prediction = _prediction(scheduler, model=model)
        # the float32 noise levels themselves are the knots, so that a whole time step survives the way there and back
        sigmas = sigma_from_signal(_squared_signal(scheduler, model=model).double().sqrt()).float()
        if not (len(sigmas) > 1 and (sigmas.diff() > 0).all() and sigmas[0] > 0 and sigmas[-1] < 1):
            raise ConfigError(
                f"The betas of {model} (beta_start={scheduler['beta_start']}, beta_end={scheduler['beta_end']}, "
                f"{len(sigmas)} time steps) do not add noise from step to step, so they are no noise schedule. Use the "
                "original checkpoint's scheduler_config.json."
            )
        self._knots = {torch.device("cpu"): sigmas.double()}

    @property
    def num_steps(self) -> int:
        """Time steps the network was trained on."""
        return len(self._knots[torch.device("cpu")])

    @property
    def sigma_max(self) -> float:
        """The noise level of the last time step: the largest there is."""
        return float(self._knots[torch.device("cpu")][-1])

    def sigma(self, level: Tensor) -> Tensor:
        """Map levels of a uniform grid to noise levels, as "trailing" time steps do.

            t = num_steps level - 1;   1 -> 999, .75 -> 749, .5 -> 499, .25 -> 249, 0 -> no noise

        Increasing and continuous; below the first time step it runs linearly down to 0.
        """
        exact = _float64(level)
        time = self.num_steps * exact - 1
        time = torch.where((time - time.round()).abs() < _WHOLE, time.round(), time)
        knots = self._on(exact.device)
        between = torch.sigmoid(_between(time.clamp(min=0), self._times(exact.device), torch.logit(knots)))
        below = knots[0] * (time + 1).clamp(min=0)
        return torch.where(time < 0, below, between).to(level.device, torch.float32)

    def time(self, sigma: Tensor) -> Tensor:
        """Map noise levels to the network's time, float32; outside the trained range it stays at the first or last."""
        return self._time(_float64(sigma)).clamp(0, self.num_steps - 1).to(sigma.device, torch.float32)

    def whole_times(self, sigmas: Sequence[float]) -> list[int]:
        """The time steps of a grid, which stock schedulers take as whole numbers only.

        Raises:
            ConfigError: A noise level lies between two time steps, or before the first.
        """
        times = self._time(torch.tensor(list(sigmas), dtype=torch.float32).double()).tolist()
        for sigma, time in zip(sigmas, times, strict=True):
            if not -_WHOLE < time < self.num_steps - 1 + _WHOLE or abs(time - round(time)) > _WHOLE:
                nearest = ((int(min(time, self.num_steps - 2)) + more) / self.num_steps for more in (1, 2))
                raise ConfigError(
                    f"The noise level {sigma:.6g} is time step {time:.2f} of {self.model}, and the scheduler of an "
                    f"exported student takes whole ones. Make every sampling.levels a multiple of 1/{self.num_steps}, "
                    f"here {' or '.join(f'{level:.6g}' for level in nearest)}."
                )
        return [round(time) for time in times]

    def deterministic_scheduler(self) -> Any:
        """A stock scheduler whose every step is an Euler step in flow coordinates.

        DPM++ of first order is DDIM, starts at standard normal noise and takes its time steps from the call; called
        without them it uses the same uniform grid as :meth:`sigma`.

        Raises:
            ConfigError: The noise levels are moved in a way that this scheduler does not know.
        """
        stretch = self.scheduler.get("snr_shift_scale")
        if stretch not in (None, 1):
            raise ConfigError(
                f"The scheduler of {self.model} moves every noise level by snr_shift_scale={shown(stretch)}, as "
                "CogVideoX does, and that of a student cannot. Use the original checkpoint's scheduler_config.json."
            )
        from diffusers import DPMSolverMultistepScheduler

        kept = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas")
        return DPMSolverMultistepScheduler(
            **{name: self.scheduler[name] for name in kept},
            # PNDM and some other classes do not know it
            rescale_betas_zero_snr=bool(self.scheduler.get("rescale_betas_zero_snr")),
            prediction_type=self.prediction,
            solver_order=1,
            timestep_spacing="trailing",
            final_sigmas_type="zero",
            steps_offset=1,  # not used by trailing steps; SD's pipeline warns about any other value
        )

    def _time(self, sigma: Tensor) -> Tensor:
        """The inverse of :meth:`sigma`, float64: from -1 without noise to beyond the last time step."""
        knots = self._on(sigma.device)
        above = _between(torch.logit(sigma), torch.logit(knots), self._times(sigma.device))
        return torch.where(sigma < knots[0], sigma / knots[0] - 1, above)

    def _times(self, device: torch.device) -> Tensor:
        return torch.arange(self.num_steps, dtype=torch.float64, device=device)

    def _on(self, device: torch.device) -> Tensor:
        if device not in self._knots:
            self._knots[device] = self._knots[torch.device("cpu")].to(device)
        return self._knots[device]


def _between(x: Tensor, knots: Tensor, values: Tensor) -> Tensor:
    """Linear interpolation; beyond the knots, the first and last pieces go on."""
    left = (torch.searchsorted(knots, x.contiguous(), right=True) - 1).clamp(0, len(knots) - 2)
    share = (x - knots[left]) / (knots[left + 1] - knots[left])
    return values[left] + share * (values[left + 1] - values[left])


def _float64(values: Tensor) -> Tensor:
    # MPS has no float64; a handful of levels crosses to the CPU instead
    return (values.cpu() if values.device.type == "mps" else values).double()


def _prediction(scheduler: Mapping[str, Any], *, model: str) -> _Prediction:
    name = shown(scheduler.get("_class_name"), quoted=False)
    if "beta_start" not in scheduler or "prediction_type" not in scheduler:
        raise ConfigError(
            f"{model} ships with the scheduler {name}, which has no betas; this backbone knows the clock of "
            "variance-preserving models only. A retraining with flow matching needs a backbone of its own."
        )
    prediction = scheduler["prediction_type"]
    foreign = scheduler.get("use_flow_sigmas") or scheduler.get("timestep_type", "discrete") != "discrete"
    if foreign or prediction not in ("epsilon", "v_prediction"):
        raise ConfigError(
            f"The {name} of {model} asks for prediction_type={shown(prediction)} on a clock that is not the one of its "
            "betas, or for something other than epsilon or v_prediction; this backbone cannot read a velocity off it."
        )
    return cast(_Prediction, prediction)


def _squared_signal(scheduler: Mapping[str, Any], *, model: str) -> Tensor:
    """The cumulative product of 1 - beta, with the float32 operations of diffusers' schedulers."""
    signal = torch.cumprod(1.0 - _betas(scheduler, model=model), dim=0)
    stretch = scheduler.get("snr_shift_scale")
    if stretch is not None:  # CogVideoX divides every signal-to-noise ratio by it
        signal = signal / (stretch + (1 - stretch) * signal)
    if scheduler.get("rescale_betas_zero_snr"):
        root = signal.sqrt()
        signal = ((root - root[-1]) * (root[0] / (root[0] - root[-1]))) ** 2
    least = _LEAST_SIGNAL if stretch is None else _LEAST_OF_COGVIDEOX
    if signal[-1] <= least:
        if scheduler["prediction_type"] == "epsilon":
            raise ConfigError(
                f"{model} predicts epsilon on betas without signal at the last time step (zero terminal SNR), where "
                "an epsilon tells nothing about the picture. Use a v-prediction checkpoint, or the original "
                "scheduler_config.json without rescale_betas_zero_snr."
            )
        signal[-1] = least
    return signal


def _betas(scheduler: Mapping[str, Any], *, model: str) -> Tensor:
    if scheduler["trained_betas"] is not None:
        return torch.tensor(scheduler["trained_betas"], dtype=torch.float32)
    count = int(scheduler["num_train_timesteps"])
    start, end = float(scheduler["beta_start"]), float(scheduler["beta_end"])
    match scheduler["beta_schedule"]:
        case "linear":
            return torch.linspace(start, end, count, dtype=torch.float32)
        case "scaled_linear":
            return torch.linspace(start**0.5, end**0.5, count, dtype=torch.float32) ** 2
        case other:
            raise ConfigError(
                f"The scheduler of {model} has beta_schedule={shown(other)}; this backbone knows linear, scaled_linear "
                "and trained_betas."
            )
