"""GenEval: are the objects there, in the number, the colours and the places that the prompt asks for."""

from collections.abc import Sequence
from functools import partial

from PIL import Image
from pydantic import Field

from fewstep.bounds import Place
from fewstep.scores.checkpoints.source import Source
from fewstep.scores.metric import Finding, Metric, MetricCard, MetricSettings, Picture, PromptItem, mean_score
from fewstep.scores.metrics.geneval_rules import TAGS, check_facts, confident, judge
from fewstep.scores.networks.colour_check import ColourCheck
from fewstep.scores.networks.detector import Detector


class _GenEvalSettings(MetricSettings):
    """Which CLIP tells colours; ``source`` is the detector's checkpoint."""

    colour_source: Place = Field(default="openai/clip-vit-large-patch14", description="CLIP that tells colours")
    colour_revision: str | None = None


class GenEvalMetric(Metric):
    """Object-focused evaluation (Ghosh 2023)."""

    card = MetricCard(
        name="geneval",
        title="GenEval: objects, counts, colours, positions",
        formula=(
            "1 when a detector finds all objects asked for (confidence above 0.3; 0.9 for counting), CLIP names their "
            "colours and their boxes lie as asked, else 0; mean over pictures of a task, then over the six tasks"
        ),
        scale="0 to 1",
        higher_is_better=True,
        preprocessing="detector: shorter side to 800, ImageNet's mean and deviation; colours: crop on grey, CLIP's own",
        licence="MIT (Mask2Former and CLIP weights; GenEval's prompts and rules)",
        comparable=(
            "roughly with published GenEval: the detector is the same network (Mask2Former, Swin-S, COCO) with weights "
            "of another training, which moves a score by one or two points"
        ),
        source="facebook/mask2former-swin-small-coco-instance",
    )
    settings_class = _GenEvalSettings
    settings: _GenEvalSettings

    def __init__(self, settings: MetricSettings) -> None:
        super().__init__(settings)
        chosen = self.settings
        self._detector = Detector(self.checkpoint)
        colours = (chosen.colour_source, chosen.colour_revision, chosen.allow_pickle)
        self._colours = ColourCheck(Source(self.card.name, *colours, setting="colour_source"))
        self.networks = (self._detector, self._colours)

    def check_prompt(self, item: PromptItem) -> None:
        check_facts(item)

    def look(self, pictures: Sequence[Picture], images: Sequence[Image.Image]) -> list[Finding]:
        return [self._look_at(picture, image) for picture, image in zip(pictures, images, strict=True)]

    def _look_at(self, picture: Picture, image: Image.Image) -> Finding:
        facts = picture.item.facts
        try:
            objects = confident(self._detector.find(image), tag=facts["tag"])
            verdict = judge(facts, objects, partial(self._colours.colours, image))
        except ValueError as error:
            raise self.cannot_score(picture, str(error)) from error
        found = {name: len(same) for name, same in objects.items()}
        return Finding(float(verdict.correct), {"found": found, "wrong": list(verdict.reasons)})

    def conclude(self, pictures: Sequence[Picture], findings: Sequence[Finding]) -> dict[str, float]:
        tasks: dict[str, list[Finding]] = {}
        for picture, finding in zip(pictures, findings, strict=True):
            tasks.setdefault(picture.item.facts["tag"], []).append(finding)
        means = {tag: mean_score(tasks[tag]) for tag in TAGS if tag in tasks}
        overall = sum(means.values()) / len(means)
        return {self.card.name: overall, **{f"geneval_{tag}": value for tag, value in means.items()}}
