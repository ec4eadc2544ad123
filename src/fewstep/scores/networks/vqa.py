"""Models that answer yes-or-no questions about a picture."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from PIL import Image
from torch import Tensor, nn

from fewstep.errors import CheckpointError
from fewstep.scores.checkpoints.reading import build_network, read_json
from fewstep.scores.checkpoints.source import fetch_file
from fewstep.scores.networks.network import CONFIG_FILE, Network
from fewstep.scores.networks.preprocessing import squashed
from fewstep.scores.networks.prompt_rows import TOKENIZER_FILE

VqaName = Literal["qwen-vl", "blip-vqa"]
_PIXELS_OF_A_TOKEN = 28 * 28
_GENERATION_FILE = "generation_config.json"


class _Vqa(Network):
    """Answers questions about one picture."""

    default_source: ClassVar[str]
    licence: ClassVar[str]
    files: ClassVar[tuple[str, ...]] = (CONFIG_FILE, TOKENIZER_FILE)
    _tokenizer: Any

    def build(self) -> nn.Module:
        from transformers import PreTrainedTokenizerFast

        self._tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(fetch_file(self.checkpoint, TOKENIZER_FILE)))
        return self._answering()

    @abstractmethod
    def _answering(self) -> nn.Module:
        """The network with its weights."""

    @abstractmethod
    def answers(self, image: Image.Image, questions: Sequence[str]) -> list[str]:
        """``yes``, ``no``, or whatever else the model says, for each question.

        Raises:
            ValueError: The model's numbers are not finite: its answer would be a no that means nothing.
        """


class QwenVqa(_Vqa):
    """Qwen2-VL or Qwen2.5-VL: yes where its next word is more probably yes than no."""

    default_source = "Qwen/Qwen2.5-VL-7B-Instruct"
    licence = "Apache-2.0 (Qwen2.5-VL-7B-Instruct)"
    max_picture_tokens = 1280

    def _answering(self) -> nn.Module:
        import transformers

        families = {
            "qwen2_vl": (transformers.Qwen2VLConfig, transformers.Qwen2VLForConditionalGeneration),
            "qwen2_5_vl": (transformers.Qwen2_5_VLConfig, transformers.Qwen2_5_VLForConditionalGeneration),
        }
        config = self.config()
        kind = config.get("model_type")
        if kind not in families:
            raise CheckpointError(
                f"{self.checkpoint.name} is a {kind}, and qwen-vl reads {' and '.join(families)}. "
                f"Give one of those with --set {self.checkpoint.metric}.source=FOLDER."
            )
        config_class, network_class = families[kind]
        # half precision where it is fast; arithmetic on a CPU stays in single
        dtype = torch.float32 if self.device.type == "cpu" else torch.bfloat16
        return build_network(self.checkpoint, network_class, config_class.from_dict(config), dtype=dtype)

    @torch.no_grad()
    def answers(self, image: Image.Image, questions: Sequence[str]) -> list[str]:
        pixels, grid = self._pixels(image)
        # one question at a time: no padding, so an answer depends on its own question only
        return [self._answer(question, pixels, grid) for question in questions]

    def _pixels(self, image: Image.Image) -> tuple[Tensor, Tensor]:
        from transformers import Qwen2VLImageProcessorPil

        vision = self.network.config.vision_config
        processor = Qwen2VLImageProcessorPil(
            patch_size=vision.patch_size,
            merge_size=vision.spatial_merge_size,
            temporal_patch_size=vision.temporal_patch_size,
            size={
                "shortest_edge": 4 * _PIXELS_OF_A_TOKEN,
                "longest_edge": self.max_picture_tokens * _PIXELS_OF_A_TOKEN,
            },
        )
        read = processor(images=[image], return_tensors="pt")
        return read["pixel_values"].to(self.device), read["image_grid_thw"].to(self.device)

    def _answer(self, question: str, pixels: Tensor, grid: Tensor) -> str:
        logits, _ = self._next_word(f"{question} Answer with yes or no only.", pixels, grid)
        words = logits.log_softmax(-1)
        yes, no = (words[self._word_ids(word)].logsumexp(0) for word in ("yes", "no"))
        return "yes" if yes > no else "no"

    def _next_word(self, question: str, pixels: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the first word of the answer, and the words of the question."""
        config = self.network.config
        count = int(grid.prod()) // config.vision_config.spatial_merge_size**2
        text = (
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|>"
            + "<|image_pad|>" * count
            + f"<|vision_end|>{question}<|im_end|>\n<|im_start|>assistant\n"
        )
        ids = torch.tensor([self._tokenizer(text, add_special_tokens=False)["input_ids"]], device=self.device)
        logits = self.network(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            pixel_values=pixels.to(self.network.dtype),
            image_grid_thw=grid,
            mm_token_type_ids=(ids == config.image_token_id).int(),
            logits_to_keep=1,
        ).logits[0, -1]
        return _finite(logits.float()), ids[0]

    def _word_ids(self, word: str) -> Tensor:
        """The tokens that are this word, with and without a capital."""
        forms = (word, word.capitalize())
        rows = [self._tokenizer(form, add_special_tokens=False)["input_ids"] for form in forms]
        if [self._tokenizer.convert_ids_to_tokens(row) for row in rows] != [[form] for form in forms]:
            raise CheckpointError(
                f"The tokenizer of {self.checkpoint.name} has no single token for {word!r}, so the answer cannot be "
                f"read from the next word. Give a Qwen2-VL or Qwen2.5-VL checkpoint with its own tokenizer."
            )
        return torch.tensor([row[0] for row in rows], device=self.device)


class QwenVqaScore(QwenVqa):
    """The same as t2v_metrics asks it: pictures at their size, and words of the question are less probable answers."""

    files = (*QwenVqa.files, _GENERATION_FILE)
    max_picture_tokens = 16384

    @torch.no_grad()
    def probability_of_yes(self, image: Image.Image, question: str) -> float:
        """How probable it is, among all words, that the answer begins with ``Yes``.

        Raises:
            ValueError: The model's numbers are not finite.
        """
        logits, asked = self._next_word(question, *self._pixels(image))
        penalty = float(read_json(fetch_file(self.checkpoint, _GENERATION_FILE)).get("repetition_penalty", 1.0))
        logits[asked] = torch.where(logits[asked] < 0, logits[asked] * penalty, logits[asked] / penalty)
        return float(logits.softmax(-1)[self._word_ids("Yes")[0]])


class BlipVqa(_Vqa):
    """BLIP fine-tuned on VQA: small, and the weaker judge."""

    default_source = "Salesforce/blip-vqa-capfilt-large"
    licence = "BSD-3-Clause (BLIP)"
    max_answer_tokens = 10

    def _answering(self) -> nn.Module:
        from transformers import BlipConfig, BlipForQuestionAnswering

        return build_network(self.checkpoint, BlipForQuestionAnswering, BlipConfig.from_dict(self.config()))

    @torch.no_grad()
    def answers(self, image: Image.Image, questions: Sequence[str]) -> list[str]:
        size = self.network.config.vision_config.image_size
        pixels = squashed(image, size)[None].to(self.device)
        said = []
        for question in questions:
            ids = torch.tensor([self._tokenizer(question)["input_ids"]], device=self.device)
            answer = self.network.generate(
                input_ids=ids,
                pixel_values=pixels,
                max_new_tokens=self.max_answer_tokens,
                do_sample=False,
                output_logits=True,
                return_dict_in_generate=True,
            )
            _finite(torch.stack(answer.logits))
            said.append(self._tokenizer.decode(answer.sequences[0], skip_special_tokens=True).strip())
        return said


def _finite(logits: Tensor) -> Tensor:
    if not bool(torch.isfinite(logits).all()):
        raise ValueError("the answering model gives numbers that are not finite")
    return logits


VQA_MODELS: dict[str, type[_Vqa]] = {"qwen-vl": QwenVqa, "blip-vqa": BlipVqa}
