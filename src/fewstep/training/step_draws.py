"""The random numbers of a step, from the run's named streams: which simulation it looks at, and at which size."""

from collections.abc import Callable, Sequence

from fewstep.config.run_config import RunConfig
from fewstep.distributed.rounds import Round
from fewstep.methods.draws import Draws, Streams

DrawSource = Callable[[int, Round, bool], Draws]
"""Step, rows of the global batch, whether the student is updated -> the random numbers."""


class StepDraws:
    """The draws of every step of a run; a :data:`DrawSource`.

    Args:
        config: The resolved recipe.
        latent_shapes: Of a picture, one for each size that is trained at.
    """

    def __init__(self, config: RunConfig, latent_shapes: Sequence[tuple[int, ...]]) -> None:
        self.config = config
        self.latent_shapes = latent_shapes

    def __call__(self, step: int, rows: Round, with_terms: bool) -> Draws:
        config = self.config
        looked_at = with_terms or config.draw.reuse_trajectory  # by terms, at this step or at a later one
        return Draws.for_step(
            Streams(config.seed),
            step,
            schedule=config.schedule,
            latent_shape=self.latent_shapes[self.size(step)],
            positions=rows.own,
            concurrent=rows.concurrent,
            terms=config.terms if with_terms else None,
            simulation=self.simulation(step),
            stratified_over=config.batch if config.draw.anchors == "stratified" else None,
            own_anchors=list(config.terms.active()) if self.own_anchors and looked_at else [],
            first_anchor=config.terms.first_anchor,
            renoises=config.simulation.step == "renoise",
        )

    @property
    def own_anchors(self) -> bool:
        """Whether every term has anchors of its own."""
        return self.config.simulation.anchors == "own"

    def simulation(self, step: int) -> int:
        """Number of the simulation that a step looks at: its draws and prompts are named by it."""
        return step // self.config.student.every if self.config.draw.reuse_trajectory else step

    def size(self, step: int) -> int:
        """Which of the training sizes a step's pictures have."""
        last = len(self.latent_shapes) - 1
        return Streams(self.config.seed).integer("size", self.simulation(step), low=0, high=last) if last else 0
