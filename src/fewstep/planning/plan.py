"""A plan: what a recipe needs on a machine, with settings that fit it, and what to change when none do."""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from fewstep.config.recipe import load_recipe
from fewstep.config.run_config import RunConfig
from fewstep.errors import ConfigError
from fewstep.planning.cost import EIGHT_H100, Machine, hours
from fewstep.planning.measurements import Measurements
from fewstep.planning.memory import GIB, PlannedRoles, split
from fewstep.planning.search import ASSUMED, FREE, Choice, Reserve, choose

Mode = Literal["full", "lora"]
_MODES: dict[str, str] = {"full": "{kind: full}", "lora": "{kind: lora, rank: 64, alpha: 128}"}
_MOST_GPUS = 512


@dataclass(frozen=True)
class Plan:
    """What running a recipe on some devices takes.

    Attributes:
        recipe: Its name or file.
        gpus: Devices, one process each.
        memory: Bytes of one.
        mode: What both roles train: ``full`` or ``lora``, or ``mixed``.
        choice: The settings, and what they need.
        fits: Whether they fit.
        flops_per_step: Floating-point operations of one step over all devices, on average.
        hours: Of the whole budget's network calls.
        price: Of those hours on all devices, US dollars.
        changes: When nothing fits, what would; else nothing.
        basis: The measurement that hours and reserve come from; None when both are assumed.
    """

    recipe: str
    gpus: int
    memory: float
    mode: str
    choice: Choice
    fits: bool
    flops_per_step: float
    hours: float
    price: float
    changes: tuple[str, ...]
    basis: "Basis | None" = None

    def as_dict(self) -> dict[str, Any]:
        """As ``fewstep plan --json`` prints it."""
        return {
            "recipe": self.recipe,
            "gpus": self.gpus,
            "memory_gib": self.memory / GIB,
            "mode": self.mode,
            "peak_gib": self.choice.memory.peak / GIB,
            "needed_gib": self.choice.needed / GIB,
            "fits": self.fits,
            "phase": self.choice.memory.phase,
            "breakdown": {name: value / GIB for name, value in self.choice.memory.parts.items()},
            "units_per_update": self.choice.units,
            "flops_per_step": self.flops_per_step,
            "hours": self.hours,
            "cost": self.price,
            "settings": self.choice.settings,
            "changes": list(self.changes),
            "measured": None if self.basis is None else asdict(self.basis),
        }


@dataclass(frozen=True)
class Basis:
    """What was measured, of which a plan makes use.

    Attributes:
        card: Its name.
        case: The measured student updates that are most like the plan's.
        teraflops: That they reached, 1e12 operations a second.
        utilisation: The same as a share of the card's peak; None where that is not known.
        reserve: That the card needed beside the predicted peak.
        reserve_measured: Whether it was; else it is the assumed one.
    """

    card: str
    case: str
    teraflops: float
    utilisation: float | None
    reserve: Reserve
    reserve_measured: bool


@dataclass(frozen=True)
class Rates:
    """What time costs and how fast a device is.

    Attributes:
        teraflops: Of one device at its peak, 1e12 operations a second; None is an H100 in the recipe's precision.
        utilisation: Share of the peak that is reached.
        price: Of one device for an hour, US dollars.
    """

    teraflops: float | None = None
    utilisation: float = EIGHT_H100.utilisation
    price: float = 2.5


class Planner:
    """Plans for one recipe; what is measured of its networks serves all of them.

    Args:
        recipe: A recipe's name or a file.
        overrides: Settings given by the user; those that only concern memory are kept as they are.
        mode: Train all weights or low-rank factors, whatever the recipe does; None leaves it.
        measured: Of the card that is planned for; None assumes its speed and its reserve.
    """

    def __init__(
        self,
        recipe: str,
        overrides: Sequence[str] = (),
        *,
        mode: Mode | None = None,
        measured: Measurements | None = None,
    ) -> None:
        self.recipe, self.overrides = recipe, tuple(overrides)
        self.config = load_recipe(recipe, self.overrides).config
        if mode is not None and _mode_of(self.config) != mode:
            weights = [f"{role}.weights={_MODES[mode]}" for role in ("student", "fake_score")]
            self.config = load_recipe(recipe, [*self.overrides, *weights]).config
        self.fixed = given(self.overrides)
        self.roles = PlannedRoles(self.config)
        self.measured = measured
        self.reserve = ASSUMED if measured is None else measured.reserve(trains=_mode_of(self.config))

    def plan(self, *, gpus: int, memory: float, rates: Rates | None = None) -> Plan:
        """Choose settings for some devices of so many bytes."""
        rates = rates or Rates()
        if gpus > 1 and self.roles.base_kind != "compute":
            raise ConfigError(
                f"weights.base is {self.roles.base_kind}, which only one process can train on, but --gpus is {gpus}; "
                "plan for one, or set it to compute."
            )
        choice, fits = self._choose(gpus, memory)
        chosen = choice.config
        forwards = choice.units * chosen.batch / chosen.student.every
        precision = chosen.precision.compute
        teraflops = rates.teraflops or EIGHT_H100.teraflops[precision]
        machine = Machine(f"{gpus} devices", gpus, {precision: teraflops}, rates.utilisation)
        basis = self._basis(chosen, gpus)
        if basis is not None:
            machine = Machine(basis.card, gpus, {precision: basis.teraflops}, utilisation=1.0)
        rounds = split(chosen, gpus).rounds
        took = hours(chosen, teraflop_per_forward=self.roles.flops / 1e12, machine=machine, rounds=rounds)
        return Plan(
            recipe=self.recipe,
            gpus=gpus,
            memory=memory,
            mode=_mode_of(chosen),
            choice=choice,
            fits=fits,
            flops_per_step=forwards * self.roles.flops,
            hours=took,
            price=took * gpus * rates.price,
            changes=() if fits else tuple(self._changes(choice, gpus=gpus, memory=memory)),
            basis=basis,
        )

    def _basis(self, chosen: RunConfig, gpus: int) -> Basis | None:
        if self.measured is None:
            return None
        case, update = self.measured.nearest(chosen, trains=_mode_of(chosen), microbatch=split(chosen, gpus).micro)
        return Basis(
            card=self.measured.card.name,
            case=case,
            teraflops=update.teraflops,
            utilisation=update.utilisation,
            reserve=self.reserve,
            reserve_measured=self.reserve is not ASSUMED,
        )

    def _choose(self, gpus: int, memory: float, *, fixed: Collection[str] | None = None) -> tuple[Choice, bool]:
        held = self.fixed if fixed is None else fixed
        return choose(self.config, self.roles, processes=gpus, limit=memory, fixed=held, reserve=self.reserve)

    def fewest_gpus(self, memory: float, *, more_than: int = 0) -> int | None:
        """The smallest power of two of devices that suffices."""
        gpus = 1
        while gpus <= _MOST_GPUS:
            if gpus > more_than and self._fits(gpus, memory):
                return gpus
            gpus *= 2
        return None

    def _fits(self, gpus: int, memory: float) -> bool:
        if gpus > 1 and self.roles.base_kind != "compute":
            return False
        return self._choose(gpus, memory)[1]

    def _with_factors(self) -> "Planner":
        return Planner(self.recipe, self.overrides, mode="lora", measured=self.measured)

    def _changes(self, smallest: Choice, *, gpus: int, memory: float) -> list[str]:
        changes = [f"{smallest.needed / GIB:.1f} GiB on each device, with the settings above"]
        if self.fixed and self._choose(gpus, memory, fixed=())[1]:
            changes.append(f"leave out {', '.join(sorted(self.fixed))}, so that the plan can choose")
        more = self.fewest_gpus(memory, more_than=gpus)
        if more is not None:
            changes.append(f"--gpus {more} of the same size")
        if _mode_of(self.config) != "lora" and self._with_factors()._fits(gpus, memory):
            changes.append("--mode lora (student.weights and fake_score.weights of kind lora)")
        if len(changes) == 1:
            changes.append("a smaller picture (backbone.height, backbone.width), or another checkpoint")
        return changes


def given(overrides: Sequence[str]) -> Collection[str]:
    """The settings for memory that a command line states itself."""
    keys = [override.partition("=")[0].strip() for override in overrides]
    return {name for name in FREE for key in keys if name == key or name.startswith(f"{key}.")}


def _mode_of(config: RunConfig) -> str:
    """What both roles train: ``full``, ``lora`` or ``mixed``."""
    kinds = {config.student.weights.kind, config.fake_score.weights.kind}
    return kinds.pop() if len(kinds) == 1 else "mixed"
