"""VQAScore: how probable a model that answers questions finds it that the picture shows the prompt."""

from collections.abc import Sequence

from PIL import Image

from fewstep.scores.metric import Finding, Metric, MetricCard, MetricSettings, Picture
from fewstep.scores.networks.vqa import QwenVqaScore


class VqaScoreMetric(Metric):
    """VQAScore (Lin et al. 2024) with Qwen2.5-VL."""

    card = MetricCard(
        name="vqascore",
        title="VQAScore: is the prompt what the picture shows, Qwen2.5-VL",
        formula=(
            'P("Yes" | picture, "Does this image show "PROMPT"?"), the first word of the answer among all words; '
            "logits of words of the question are divided by the model's repetition penalty, or times it below 0"
        ),
        scale="0 to 1",
        higher_is_better=True,
        preprocessing="Qwen2-VL's processor, 4 to 16384 tokens of 28 x 28 pixels",
        licence=QwenVqaScore.licence,
        comparable=(
            "with qwen2.5-vl of t2v_metrics; not with the VQAScore of CLIP-FlanT5-XXL that the paper and most tables "
            "print, which is another model"
        ),
        source=QwenVqaScore.default_source,
    )

    def __init__(self, settings: MetricSettings) -> None:
        super().__init__(settings)
        self._vqa = QwenVqaScore(self.checkpoint)
        self.networks = (self._vqa,)

    def look(self, pictures: Sequence[Picture], images: Sequence[Image.Image]) -> list[Finding]:
        findings = []
        for picture, image in zip(pictures, images, strict=True):
            try:
                score = self._vqa.probability_of_yes(image, f'Does this image show "{picture.item.text}"?')
            except ValueError as error:
                raise self.cannot_score(picture, str(error)) from error
            findings.append(Finding(score))
        return findings
