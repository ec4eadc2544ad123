"""DPG-Bench: does a picture hold everything that a dense prompt says, asked question by question."""

from collections.abc import Sequence

from PIL import Image
from pydantic import Field

from fewstep.scores.metric import Finding, Metric, MetricCard, MetricSettings, Picture, PromptItem, mean_score
from fewstep.scores.metrics.dpg_questions import questions_of, share_fulfilled
from fewstep.scores.networks.vqa import VQA_MODELS, QwenVqa, VqaName

_PERCENT = 100.0


class _DpgSettings(MetricSettings):
    """Which model answers; ``source`` is its checkpoint."""

    vqa: VqaName = Field(default="qwen-vl", description="what answers the questions")


class DpgBenchMetric(Metric):
    """Dense prompt graph benchmark (Hu 2024, ELLA)."""

    card = MetricCard(
        name="dpgbench",
        title="DPG-Bench: dense prompts, answered questions",
        formula=(
            "share of a prompt's questions answered yes, where a question counts only if those that it depends on "
            "count; mean over pictures of a prompt, then over prompts, times 100. Categories are means of the answers "
            "themselves, over all pictures"
        ),
        scale="0 to 100",
        higher_is_better=True,
        preprocessing=(
            "qwen-vl: Qwen2-VL's processor, 4 to 1280 tokens; blip-vqa: bicubic to a square, CLIP's mean and deviation"
        ),
        licence=QwenVqa.licence,
        comparable=(
            "only with figures of the same answering model, whose name belongs beside the number; published tables use "
            "mPLUG-large, which answers differently, and four pictures per prompt; the official script loses the first "
            "question of the table and takes the categories from the last picture of a prompt alone"
        ),
        source=QwenVqa.default_source,
    )
    settings_class = _DpgSettings
    settings: _DpgSettings

    def __init__(self, settings: MetricSettings) -> None:
        super().__init__(settings)
        self._vqa = VQA_MODELS[self.settings.vqa](self.checkpoint)
        self.networks = (self._vqa,)

    @property
    def source(self) -> str | None:
        return self.settings.source or VQA_MODELS[self.settings.vqa].default_source

    def check_prompt(self, item: PromptItem) -> None:
        questions_of(item)

    def identity(self) -> dict[str, str]:
        return {"vqa": self._vqa.checkpoint.name}

    def look(self, pictures: Sequence[Picture], images: Sequence[Image.Image]) -> list[Finding]:
        findings = []
        for picture, image in zip(pictures, images, strict=True):
            questions = questions_of(picture.item)
            try:
                said = self._vqa.answers(image, [question.text for question in questions])
            except ValueError as error:
                raise self.cannot_score(picture, str(error)) from error
            answers = {question.id: text.lower() == "yes" for question, text in zip(questions, said, strict=True)}
            share = share_fulfilled(questions, answers)
            details = {str(question.id): text for question, text in zip(questions, said, strict=True)}
            findings.append(Finding(_PERCENT * share, {"answers": details}))
        return findings

    def conclude(self, pictures: Sequence[Picture], findings: Sequence[Finding]) -> dict[str, float]:
        by_prompt: dict[str, list[Finding]] = {}
        for picture, finding in zip(pictures, findings, strict=True):
            by_prompt.setdefault(picture.item.id, []).append(finding)
        means = [mean_score(found) for found in by_prompt.values()]
        figures = {self.card.name: sum(means) / len(means)}
        groups: dict[str, list[bool]] = {}
        for picture, finding in zip(pictures, findings, strict=True):
            for question in questions_of(picture.item):
                said = finding.details["answers"][str(question.id)]
                groups.setdefault(question.group, []).append(said.lower() == "yes")
        for group in sorted(groups):
            figures[f"dpgbench_{group}"] = _PERCENT * sum(groups[group]) / len(groups[group])
        return figures
