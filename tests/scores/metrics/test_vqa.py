from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import PreTrainedModel

from fewstep.errors import CheckpointError, ConfigError
from fewstep.scores.checkpoints.source import Source
from fewstep.scores.metric import Finding, MetricError, Picture, PromptItem
from fewstep.scores.metrics.dpgbench import DpgBenchMetric
from fewstep.scores.networks.vqa import BlipVqa, QwenVqa, VqaName
from tests.scores.tiny_clip import write_clip
from tests.scores.tiny_pictures import metric_of, pattern, scores_of
from tests.scores.tiny_vqa import WORDS, write_blip, write_qwen, write_tokenizer

QUESTIONS = ["is there a dog ?", "is there a bench ?", "dog", "bench ? bench", "a a a a", "there", "is", "only . ?"]


def loaded(kind: type, folder: Path):  # type: ignore[no-untyped-def]
    vqa = kind(Source("dpgbench", str(folder)))
    vqa.check()
    vqa.load(torch.device("cpu"))
    return vqa


def qwen_logits(  # type: ignore[no-untyped-def]
    model, tokenizer: dict[str, int], image: Image.Image, question: str, *, asks_for_yes_or_no: bool = True
) -> torch.Tensor:
    """The next word's logits for a picture of 56x84 pixels, its patches cut by hand: 4x6 of them, merged to 2x3."""
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    pixels = (np.asarray(image, dtype=np.float64) / 255 - mean) / std
    patches = []
    for block_row in range(2):
        for block_column in range(3):
            for row in range(2):
                for column in range(2):
                    top, left = (2 * block_row + row) * 14, (2 * block_column + column) * 14
                    patch = pixels[top : top + 14, left : left + 14].transpose(2, 0, 1)
                    patches.append(np.repeat(patch[:, None], 2, axis=1).reshape(-1))  # a still picture is two frames
    words = [
        *("<|im_start|>", "system", "You", "are", "a", "helpful", "assistant", ".", "<|im_end|>"),
        *("<|im_start|>", "user", "<|vision_start|>", *["<|image_pad|>"] * 6, "<|vision_end|>"),
        *question.split(),
        *(("Answer", "with", "yes", "or", "no", "only", ".") if asks_for_yes_or_no else ()),
        *("<|im_end|>", "<|im_start|>", "assistant"),
    ]
    ids = torch.tensor([[tokenizer.get(word, tokenizer["[UNK]"]) for word in words]])
    with torch.no_grad():
        return model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            pixel_values=torch.tensor(np.array(patches), dtype=torch.float32),
            image_grid_thw=torch.tensor([[1, 4, 6]]),
            mm_token_type_ids=(ids == tokenizer["<|image_pad|>"]).int(),
        ).logits[0, -1]


def test_qwen_answers_with_the_likelier_of_yes_and_no(tmp_path: Path) -> None:
    model = write_qwen(tmp_path)
    tokenizer = write_tokenizer(tmp_path)
    image = pattern(84, 56)
    vqa = loaded(QwenVqa, tmp_path)
    expected = []
    for question in QUESTIONS:
        words = qwen_logits(model, tokenizer, image, question).softmax(-1)
        yes, no = (words[tokenizer[word]] + words[tokenizer[word.capitalize()]] for word in ("yes", "no"))
        expected.append("yes" if yes > no else "no")
    assert vqa.answers(image, QUESTIONS) == expected
    assert len(set(expected)) == 2


def test_a_qwen_tokenizer_without_the_words_is_refused(tmp_path: Path) -> None:
    write_qwen(tmp_path)
    write_tokenizer(tmp_path, WORDS.replace(" yes ", " ja "))
    with pytest.raises(CheckpointError, match="has no single token for 'yes'"):
        loaded(QwenVqa, tmp_path).answers(pattern(56, 56), ["dog"])


def test_a_network_of_another_family_is_refused(tmp_path: Path) -> None:
    write_clip(tmp_path)
    with pytest.raises(CheckpointError, match=r"is a clip, and qwen-vl reads qwen2_vl and qwen2_5_vl"):
        loaded(QwenVqa, tmp_path)


def test_blip_says_what_it_generates_word_by_word(tmp_path: Path) -> None:
    model = write_blip(tmp_path)
    names = {number: word for word, number in write_tokenizer(tmp_path, wrap=True).items()}
    image = pattern(50, 40)
    pixels = np.asarray(image.resize((32, 32), Image.Resampling.BICUBIC), dtype=np.float64) / 255
    pixels = (pixels - (0.48145466, 0.4578275, 0.40821073)) / (0.26862954, 0.26130258, 0.27577711)
    ids = torch.tensor([[2, 9, 10, 11, 12, 14, 3]])  # [CLS] is there a dog ? [SEP]
    with torch.no_grad():
        seen = model.vision_model(torch.tensor(pixels, dtype=torch.float32).permute(2, 0, 1)[None])[0]
        asked = model.text_encoder(ids, torch.ones_like(ids), encoder_hidden_states=seen, return_dict=False)[0]
        said = [4]  # [DEC]
        while len(said) < 11 and said[-1] != 3:
            logits = model.text_decoder(torch.tensor([said]), encoder_hidden_states=asked, is_decoder=True).logits
            said.append(int(logits[0, -1].argmax()))
    special = {"[PAD]", "[CLS]", "[SEP]", "[DEC]", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"}
    expected = " ".join(names[number] for number in said if names[number] not in special | {"<|image_pad|>"})
    assert loaded(BlipVqa, tmp_path).answers(image, ["is there a dog ?"]) == [expected.replace("<|video_pad|> ", "")]


ROWS = [
    {"proposition_id": 1, "dependency": "0", "tuple": "entity - whole (dog)", "question_natural_language": "a dog ?"},
    {"proposition_id": 2, "dependency": "1", "tuple": "attribute - color (x)", "question_natural_language": "a ?"},
]


def test_dpgbench_scores_the_models_answers_by_the_graph(tmp_path: Path) -> None:
    write_qwen(tmp_path / "qwen")
    image = pattern(56, 56)
    said = dict(zip(QUESTIONS, loaded(QwenVqa, tmp_path / "qwen").answers(image, QUESTIONS), strict=True))
    yes, no = (next(text for text in QUESTIONS if said[text] == word) for word in ("yes", "no"))
    # 1 yes, 2 no, 3 depends on 2: of three questions only the first counts
    rows = [
        {"proposition_id": number, "dependency": parent, "tuple": "entity (x)", "question_natural_language": text}
        for number, parent, text in ((1, "0", yes), (2, "0", no), (3, "1,2", yes))
    ]
    item = PromptItem("dog", "a dog", {"questions": rows})
    image.save(tmp_path / "dog.png")
    metric = metric_of("dpgbench", source=str(tmp_path / "qwen"))
    metric.check([item])
    metric.load(torch.device("cpu"))
    (finding,) = metric.examine([Picture(tmp_path / "dog.png", item, seed=0)])
    assert finding.score == pytest.approx(100 / 3)
    assert finding.details == {"answers": {"1": "yes", "2": "no", "3": "yes"}}


def test_the_score_is_the_mean_over_prompts_of_the_mean_over_pictures() -> None:
    dog, sky = PromptItem("dog", "", {"questions": ROWS}), PromptItem("sky", "", {"questions": ROWS})
    pictures = [Picture(Path("x.png"), item, seed) for item, seed in ((dog, 0), (dog, 1), (sky, 0))]
    answers = [("yes", "yes"), ("no", "Yes"), ("YES", "no")]
    scores = [100.0, 0.0, 50.0]
    findings = [
        Finding(score, {"answers": {"1": first, "2": second}})
        for score, (first, second) in zip(scores, answers, strict=True)
    ]
    figures = metric_of("dpgbench").conclude(pictures, findings)
    # categories take the answers as they are, of all pictures: the colour of the second one is a yes although there is
    # no dog. The official script, which looks at a prompt's last picture alone, would give 50 and 50
    assert "the last picture of a prompt alone" in DpgBenchMetric.card.comparable
    assert figures == pytest.approx({"dpgbench": 50.0, "dpgbench_attribute": 200 / 3, "dpgbench_entity": 200 / 3})


@pytest.mark.parametrize(("name", "write"), [("qwen-vl", write_qwen), ("blip-vqa", write_blip)])
def test_numbers_that_are_not_finite_are_no_answer_and_name_the_picture(
    name: VqaName, write: Callable[[Path], PreTrainedModel], tmp_path: Path
) -> None:
    write(tmp_path / "vqa")
    item = PromptItem("dog", "a dog", {"questions": ROWS})
    pattern(56, 56).save(tmp_path / "dog.png")
    metric = metric_of("dpgbench", source=str(tmp_path / "vqa"), vqa=name)
    metric.load(torch.device("cpu"))
    for weight in metric._vqa.network.parameters():
        weight.fill_(float("nan"))
    with pytest.raises(MetricError, match=r"dog\.png \(prompt dog, seed 0\): .* not finite"):
        scores_of(metric, [Picture(tmp_path / "dog.png", item, seed=0)])


def test_a_missing_answering_model_is_one_sentence_with_the_command() -> None:
    with pytest.raises(ConfigError, match=r"hf download Qwen/Qwen2\.5-VL-7B-Instruct"):
        metric_of("dpgbench").check([PromptItem("dog", "", {"questions": ROWS})])


def test_a_prompt_without_questions_is_refused_before_anything_is_drawn(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="dpgbench has no questions for the prompt p1"):
        metric_of("dpgbench").check([PromptItem("p1", "a dog")])


def test_the_answering_model_is_part_of_the_protocol() -> None:
    assert metric_of("dpgbench", vqa="blip-vqa").identity() == {"vqa": "Salesforce/blip-vqa-capfilt-large"}
