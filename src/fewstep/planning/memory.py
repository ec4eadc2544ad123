"""The most memory that one process needs at once in a step: a formula over sizes and measured activations.

A step goes through phases: the backward simulation, the fake score's update, the calls of the frozen networks, the
student's backward. Weights, averages and the optimiser's state are there in all of them; the peak is the phase that
needs the most besides.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import torch

from fewstep.config.memory_config import Offload
from fewstep.config.run_config import RunConfig
from fewstep.devices import DTYPES
from fewstep.distributed.rounds import rounds
from fewstep.planning.activations import Activations
from fewstep.planning.planned_roles import FAKE_SCORE, STUDENT, PlannedRoles
from fewstep.planning.sizes import Spread

GIB = 2**30
# bytes of a weight of a block by LoraWeights.base, what belongs to it included
_QUANTISED = {"int8": 1.0, "nf4": 0.56}
_FP32 = 4


@dataclass(frozen=True)
class Memory:
    """What one process needs.

    Attributes:
        phase: Of a step, in which the peak is.
        parts: Bytes at that moment by what they are for.
    """

    phase: str
    parts: dict[str, float]

    @property
    def peak(self) -> float:
        """Bytes of tensors alive at once."""
        return sum(self.parts.values())


@dataclass(frozen=True)
class _Split:
    """How the batch is dealt out.

    Attributes:
        shards: Processes that share one copy of the weights.
        rows: Samples of a process in a step.
        micro: Samples of a process in one call.
        rounds: Calls that a process makes for its rows.
    """

    shards: int
    rows: int
    micro: int
    rounds: int


def split(config: RunConfig, processes: int) -> _Split:
    """Deal the batch out as training does."""
    parallel, microbatch = config.parallel, config.memory.microbatch
    made = rounds(config.batch, rank=0, size=processes, microbatch=microbatch, group=config.terms.group)
    shards = parallel.shard or max(1, processes // (parallel.replicate or 1))
    own = [len(each.own) for each in made]
    return _Split(shards=shards, rows=sum(own), micro=max(own), rounds=len(made))


def predict(config: RunConfig, roles: PlannedRoles, *, processes: int, accelerator: bool = True) -> Memory:
    """The peak of one process over a whole step in which the student is updated, without the pictures of a sheet.

    Args:
        config: The recipe with its settings for memory.
        roles: Made from the same backbone, precision and weights.
        processes: Of the run.
        accelerator: False for a run on CPUs: there offloading moves nothing and no exchange overlaps with computing.
    """
    return _Prediction(config, roles, processes, accelerator).memory()


class _Prediction:
    def __init__(self, config: RunConfig, roles: PlannedRoles, processes: int, accelerator: bool) -> None:
        self.config, self.roles, self.processes, self.accelerator = config, roles, processes, accelerator
        self.dealt = split(config, processes)
        self.offload = config.memory.offload if accelerator else Offload()
        self.sizes = {role: roles.spread(role, self.dealt.shards) for role in (STUDENT, FAKE_SCORE, "teacher")}
        kind = config.memory.recomputation
        self.student, self.fake = (roles.activations(role, kind) for role in (STUDENT, FAKE_SCORE))

    def memory(self) -> Memory:
        resident = self._resident()
        phases = {"simulation": self._simulation(), "fake_score update": self._fake_update()}
        phases |= {"frozen networks": self._look(), "student update": self._student_update()}
        if self.config.health is not None and self.config.health.probe is not None:
            phases["health probe"] = self._probe()
        if self._begun(FAKE_SCORE, "teacher"):
            phases["student forward"] = self._student_forward()
        phase = max(phases, key=lambda name: sum(phases[name].values()))
        return Memory(phase, {**resident, **phases[phase]})

    # What is there all the time.

    def _resident(self) -> dict[str, float]:
        trained = {role: self._trained(role) for role in (STUDENT, FAKE_SCORE)}
        on_device = 0.0 if self.offload.trained else 1.0
        ema = 0.0 if self.config.student.ema is None else _FP32 * trained[STUDENT] * on_device
        parts = {
            "weights": self._weights(trained),
            "optimiser": sum(self._moments(role) for role in trained) * on_device,
            "ema": ema,
            "embeddings": self._states(),
        }
        if self.config.report.sheet_every is not None or self.config.evaluation is not None:
            parts["decoder"] = float(_FP32 * self.roles.decoder_parameters)
        return parts

    def _trained(self, role: str) -> float:
        return self.roles.trained(role, self.dealt.shards)

    def _moments(self, role: str) -> float:
        packed = getattr(self.config, role).moments == "8bit"
        return self.roles.moment_bytes(role, self.dealt.shards, packed=packed)

    def _weights(self, trained: dict[str, float]) -> float:
        teacher = self.sizes["teacher"]
        factors = bool(self.roles.factors)
        moved = self.offload.teacher or (self.offload.trained and factors)
        total = 0.0 if moved else self._frozen(teacher) + _FP32 * teacher.trained
        full = [role for role in trained if role not in self.roles.factors]
        total += sum(_FP32 * trained[role] for role in full if not self.offload.trained)
        # on a CPU all networks share their buffers with the loaded checkpoint
        buffers = [teacher.buffer_bytes, *(self.sizes[role].buffer_bytes for role in full)]
        return total + (sum(buffers) if self.accelerator else max(buffers))

    def _frozen(self, teacher: Spread) -> float:
        fewer = _QUANTISED.get(self.roles.base_kind)
        if fewer is not None:
            return teacher.frozen_bytes - (1 - fewer / self._element) * teacher.frozen_block_bytes
        return teacher.frozen_bytes * self._held.itemsize / self._element

    def _states(self) -> float:
        """States of all rows, which stay until the student's update is done; prompts and noise of those in a call."""
        terms, simulation = self.config.terms, self.config.simulation
        probed = sum(term.probe_of != "query" for term in terms.active().values())
        noises = 2 + probed + len(terms.noisy_queries()) + (terms.isg is not None)
        noises += self.config.schedule.bounds[1] - 1 if simulation.step == "renoise" else 0
        # state, velocity and x0 at the anchor, and the x0 that entered it, for each who has an anchor
        anchored = 4 * (1 + (len(terms.active()) if self._own_anchors else 0)) * self._latent
        return self.dealt.rows * anchored + self.dealt.micro * (noises * self._latent + self.roles.prompt_bytes)

    @property
    def _own_anchors(self) -> bool:
        return self.config.simulation.anchors == "own"

    @cached_property
    def _latent(self) -> float:
        size = self.config.backbone
        return _FP32 * float(math.prod(self.roles.adapter.latent_shape(size.height, size.width)))

    # The phases.

    def _simulation(self) -> dict[str, float]:
        held = (self.dealt.rounds - 1) * self._anchor_graph
        parts = self._call(held + self.student.forward.at(self.dealt.micro), STUDENT, self.dealt.micro)
        return {**parts, "gathered": parts["gathered"] + self._begun(FAKE_SCORE)}

    def _fake_update(self) -> dict[str, float]:
        return self._backward(self.fake, FAKE_SCORE, held=self.dealt.rounds * self._anchor_graph)

    def _look(self) -> dict[str, float]:
        calls = (self._frozen_call(place) for place in range(len(self._graphs)))
        return max(calls, key=lambda call: sum(call.values()))

    def _probe(self) -> dict[str, float]:
        """As many pictures at a time as a step asks about, guided ones in two rows each; they lie on the CPU."""
        samples = max(self.dealt.micro, 2)
        return self._call(self.student.forward.at(samples), "teacher", samples)

    def _frozen_call(self, place: int) -> dict[str, float]:
        """Of the student's graphs only the one whose losses are asked for is alive, and those kept at anchors."""
        samples = self._questions(self._graphs[place]) * self.dealt.micro
        held = self._waiting + self.student.kept.at(self.dealt.micro)
        parts = self._call(held + self.student.forward.at(samples), "teacher", samples)
        gathered = parts["gathered"] + self._begun(FAKE_SCORE)
        return {**parts, "gathered": gathered, "gradients": self._earlier_gradients(place)}

    def _student_forward(self) -> dict[str, float]:
        micro, last = self.dealt.micro, len(self._graphs) - 1
        parts = self._call(self._waiting + self.student.kept.at(micro), STUDENT, micro)
        gathered = parts["gathered"] + self._begun(FAKE_SCORE, "teacher")
        return {**parts, "gathered": gathered, "gradients": self._earlier_gradients(last)}

    def _earlier_gradients(self, place: int) -> float:
        """Of the student, left by earlier rounds or graphs."""
        first = self.dealt.rounds == 1 and place == 0
        return 0.0 if first or self.offload.trained else _FP32 * self._trained(STUDENT)

    def _student_update(self) -> dict[str, float]:
        return self._backward(self.student, STUDENT, held=self._waiting, again=len(self._graphs) > 1)

    @cached_property
    def _anchor_graph(self) -> float:
        """What a round's graph at the anchors holds until the student's update; 0 when none is kept."""
        kept = self.config.memory.keeps_anchor_graph(self.dealt.rounds) and not self._own_anchors
        return self.student.kept.at(self.dealt.micro) if kept else 0.0

    @property
    def _waiting(self) -> float:
        """Kept at anchors for later rounds, or for nobody, while a graph of the first is used."""
        used = any(term.at_anchor for term in self.config.terms.active().values())
        return (self.dealt.rounds - used) * self._anchor_graph

    @property
    def _graphs(self) -> list[tuple[str, ...]]:
        return self.config.terms.graphs(own_anchors=self._own_anchors)

    def _questions(self, graph: tuple[str, ...]) -> int:
        """Probes that the teacher is asked at together for a graph's losses; the fake score is asked at fewer."""
        companions = self.config.terms.companions()
        if graph[0] in companions:
            return 1 + (companions[graph[0]].guides and not self.roles.adapter.guidance.embedded)
        if not self.config.memory.batch_frozen_calls:
            return 1
        terms = [self.config.terms.active()[name] for name in graph]
        return max(len(terms) + sum(term.asks_guidance for term in terms), sum(term.asks_fake_score for term in terms))

    def _call(self, activations: float, role: str, samples: int) -> dict[str, float]:
        inputs = samples * (self.roles.prompt_bytes + 3 * self._latent)
        return {"activations": activations + inputs, "gathered": self._gathered(role)}

    def _backward(self, one: Activations, role: str, *, held: float, again: bool = False) -> dict[str, float]:
        """The larger of the beginning, when the graph is whole, and the end, when all gradients are there.

        Args:
            one: What the role's calls need.
            held: By graphs that wait.
            again: Another graph comes later, which begins with all gradients there.
        """
        micro, size = self.dealt.micro, self.sizes[role]
        kept, within = one.kept.at(micro), one.backward.at(micro) - one.kept.at(micro)
        gradients = 0.0 if self.offload.trained else _FP32 * self._trained(role)
        # gradients as they are made and as they are cut up; a network that is not spread adds them up in place
        reduced = self._element + _FP32 if self._spread else 0
        transient = max(within, reduced * size.block_trained)
        earlier = gradients if self.dealt.rounds > 1 else 0.0
        moments = [
            (kept + transient, gradients if again else earlier),
            (transient, gradients),
            # what was gathered is freed before its gradients are reduced
            (reduced * size.root_trained - size.root if self._spread else 0.0, gradients),
        ]
        activations, grown = max(moments, key=sum)
        return {**self._call(held + activations, role, micro), "gradients": grown}

    @property
    def _element(self) -> int:
        return self.roles.compute.itemsize

    @property
    def _spread(self) -> bool:
        """Whether FSDP2 holds the weights: one process that neither casts nor offloads keeps them whole."""
        offload = self.config.memory.offload
        cast = self._element != _FP32 or self._held != self.roles.compute
        return self.processes > 1 or cast or offload.teacher or offload.trained

    @property
    def _held(self) -> torch.dtype:
        return DTYPES[self.config.precision.held]

    def _gathered(self, role: str) -> float:
        """Weights that are whole while a role computes, and exchanges on their way."""
        if not self._spread:
            return 0.0
        full = [self.sizes[name] for name in self.roles.weights if name not in self.roles.factors]
        size = self.sizes[role]
        if self.roles.on_base(role) and self.roles.base_kind in _QUANTISED:
            return 0.0  # it is not cut up; a layer at a time is widened
        if size.stays_whole:
            return sum(each.root for each in [self.sizes["teacher"], *full])
        # with other processes the block before or behind is on its way as well; streams of a GPU add one more
        ahead = self.config.memory.prefetch or 1
        blocks = 1 if self.dealt.shards == 1 else 1 + ahead + self.accelerator
        return size.root + blocks * size.block

    def _begun(self, *roles: str) -> float:
        """Weights of networks that are asked next, gathered while another one computes."""
        ahead = self.config.memory.prefetch
        if ahead is None or self.dealt.shards == 1:
            return 0.0
        on_base = ("teacher", *self.roles.factors)
        # the student's own network is there already
        others = {role for role in roles if not (role in on_base and STUDENT in on_base)}
        others -= {FAKE_SCORE} if "teacher" in others and FAKE_SCORE in on_base else set()
        sizes = [self.sizes[role] for role in others]
        return sum(size.root + ahead * size.block for size in sizes if not size.stays_whole)
