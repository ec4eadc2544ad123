"""A plan: what a recipe needs on a machine, with settings that fit it, and what to change when none do."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from fewstep.config.recipe import load_recipe
from fewstep.config.run_config import RunConfig
from fewstep.errors import ConfigError
from fewstep.planning.cost import EIGHT_H100, Machine, hours
from fewstep.planning.exchange import Links, Timing, timing
from fewstep.planning.measurements import Measurements
from fewstep.planning.memory import GIB, split
from fewstep.planning.planned_roles import PlannedRoles
from fewstep.planning.search import ASSUMED, FREE, Choice, Reserve, choose
from fewstep.planning.text_tokens import counted

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
        timing: Of a student update, by which hours count what devices wait for; None when no links were given.
        text_tokens: Counted of every prompt, where training leaves out those that a mask hides in all of a batch; else
            None.
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
    timing: Timing | None = None
    text_tokens: int | None = None

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
            "settings": self.settings,
            "changes": list(self.changes),
            "text_tokens": self.text_tokens,
            "measured": None if self.basis is None else asdict(self.basis),
            "timing": None if self.timing is None else asdict(self.timing) | {"seconds": self.timing.seconds},
        }

    @property
    def settings(self) -> dict[str, Any]:
        """What was chosen, by the names in a recipe."""
        if self.timing is None:
            return self.choice.settings
        layout = {"parallel.shard": self.timing.shard, "parallel.replicate": self.timing.replicate}
        return self.choice.settings | layout


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
        keep: Folder in which what is measured of networks stays for later plans, such as ``counts.counts_folder()``.
        embeddings: Folder of the prompts' embeddings, whose longest text is counted where training leaves padding
            out; None counts all tokens.
    """

    def __init__(
        self,
        recipe: str,
        overrides: Sequence[str] = (),
        *,
        mode: Mode | None = None,
        measured: Measurements | None = None,
        keep: Path | None = None,
        embeddings: Path | None = None,
    ) -> None:
        self.recipe, self.overrides, self._keep = recipe, tuple(overrides), keep
        self.config = load_recipe(recipe, self.overrides).config
        if mode is not None and _mode_of(self.config) != mode:
            weights = [f"{role}.weights={_MODES[mode]}" for role in ("student", "fake_score")]
            self.config = load_recipe(recipe, [*self.overrides, *weights]).config
        self.fixed = given(self.overrides)
        self.embeddings = embeddings
        self.roles = self._planned(self.config)
        self.text_tokens = counted(self.roles.adapter, embeddings)
        if embeddings is not None:
            # the networks alone are told of fewer tokens; settings that are chosen are those of the recipe
            backbone = self.config.backbone.model_copy(update={"max_sequence_length": self.text_tokens})
            self.roles = self._planned(self.config.model_copy(update={"backbone": backbone}))
        self.measured = measured
        self.reserve = ASSUMED if measured is None else measured.reserve(trains=_mode_of(self.config))

    def _planned(self, config: RunConfig) -> PlannedRoles:
        return PlannedRoles(config) if self._keep is None else PlannedRoles.kept_in(self._keep, config)

    def plan(self, *, gpus: int, memory: float, rates: Rates | None = None, links: Links | None = None) -> Plan:
        """Choose settings for some devices of so many bytes.

        With ``links`` the hours count what devices exchange and wait for, and ``parallel.shard`` with
        ``parallel.replicate`` is chosen too, unless it was given; without, devices share the work at no loss.
        """
        rates = rates or Rates()
        if gpus > 1 and self.roles.base_kind != "compute":
            raise ConfigError(
                f"weights.base is {self.roles.base_kind}, which only one process can train on, but --gpus is {gpus}; "
                "plan for one, or set it to compute."
            )
        timed = None
        if links is None:
            choice, fits = self._choose(gpus, memory)
        else:
            choice, fits, timed = self._laid_out(gpus, memory, rates, links)
        chosen = choice.config
        forwards = choice.units * chosen.batch / chosen.student.every
        machine, basis = self._machine(chosen, gpus, rates)
        rounds = split(chosen, gpus).rounds
        took = hours(chosen, teraflop_per_forward=self.roles.flops / 1e12, machine=machine, rounds=rounds)
        if timed is not None:
            took = timed.seconds * chosen.budget.student_updates / 3600
        made = Plan(
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
            timing=timed,
            text_tokens=self.text_tokens,
        )
        self.roles.keep()
        return made

    def _machine(self, chosen: RunConfig, gpus: int, rates: Rates) -> tuple[Machine, Basis | None]:
        """How fast the devices are, and by which measurement."""
        precision, basis = chosen.precision.compute, self._basis(chosen, gpus)
        if basis is not None:
            return Machine(basis.card, gpus, {precision: basis.teraflops}, utilisation=1.0), basis
        teraflops = rates.teraflops or EIGHT_H100.teraflops[precision]
        return Machine(f"{gpus} devices", gpus, {precision: teraflops}, rates.utilisation), None

    def _laid_out(self, gpus: int, memory: float, rates: Rates, links: Links) -> tuple[Choice, bool, Timing]:
        """The quickest layout that fits, without offloading where that is possible; else the smallest."""
        found = []
        for place, config in enumerate(self._layouts(gpus, links)):
            choice, fits = self._choose(
                gpus, memory, config=config, seconds=lambda one: self._timing(one, gpus, rates, links).seconds
            )
            timed = self._timing(choice.config, gpus, rates, links)
            offload = choice.config.memory.offload
            order = (not fits, 0.0 if fits else choice.needed, offload.trained, offload.teacher, timed.seconds)
            found.append((order, place, (choice, fits, timed)))
        return min(found, key=lambda each: each[:2])[2]

    def _timing(self, config: RunConfig, gpus: int, rates: Rates, links: Links) -> Timing:
        machine, _ = self._machine(config, gpus, rates)
        speed = machine.teraflops[config.precision.compute] * 1e12 * machine.utilisation
        return timing(config, self.roles, processes=gpus, speed=speed, links=links)

    def _layouts(self, gpus: int, links: Links) -> list[RunConfig]:
        """The recipe with every way to cut up and copy the weights that fills whole machines or parts of one."""
        given = self.config.parallel
        shards = [number for number in range(1, gpus + 1) if gpus % number == 0]
        if given.shard is None and given.replicate is None:
            shards = [number for number in shards if links.node % number == 0 or number % links.node == 0]
        else:
            shards = [number for number in shards if number == (given.shard or gpus // (given.replicate or 1))]
            shards = [number for number in shards if given.replicate in (None, gpus // number)]
        if not shards:
            raise ConfigError(
                f"parallel.shard is {given.shard} and parallel.replicate is {given.replicate}, but --gpus is {gpus}; "
                "shard times replicate has to be their number."
            )
        return [
            self.config.model_copy(
                update={"parallel": given.model_copy(update={"shard": number, "replicate": gpus // number})}
            )
            for number in shards
        ]

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

    def _choose(
        self,
        gpus: int,
        memory: float,
        *,
        fixed: Collection[str] | None = None,
        config: RunConfig | None = None,
        seconds: Callable[[RunConfig], float] | None = None,
    ) -> tuple[Choice, bool]:
        return choose(
            config or self.config,
            self.roles,
            processes=gpus,
            limit=memory,
            fixed=self.fixed if fixed is None else fixed,
            reserve=self.reserve,
            seconds=seconds,
        )

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
        fits = self._choose(gpus, memory)[1]
        self.roles.keep()
        return fits

    def _with_factors(self) -> "Planner":
        keep, embeddings = self._keep, self.embeddings
        return Planner(
            self.recipe, self.overrides, mode="lora", measured=self.measured, keep=keep, embeddings=embeddings
        )

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
