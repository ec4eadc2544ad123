"""Tiny real tokenizers, made in milliseconds and without a file: every character or byte is a token."""

from typing import Any

_QWEN_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>")
# pipelines give the content of a message as a text, or as a list of parts
_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ message.content if message.content is string else message.content[0].text }}"
    "{% endfor %}<|im_end|>"
)


def clip_tokenizer(length: int = 40) -> Any:
    """A byte-level CLIP tokenizer without merges; goes with :func:`clip_encoder`.

    Args:
        length: Tokens that a prompt is cut to.
    """
    from transformers import CLIPTokenizer

    alphabet = _byte_symbols()
    vocab = {symbol: index for index, symbol in enumerate(alphabet)}
    vocab.update({f"{symbol}</w>": 256 + index for index, symbol in enumerate(alphabet)})
    vocab.update({"<|startoftext|>": 512, "<|endoftext|>": 513})
    return CLIPTokenizer(vocab=vocab, merges=[], model_max_length=length)


def t5_tokenizer() -> Any:
    """A T5 tokenizer of single ASCII characters; goes with :func:`t5_encoder` and :func:`umt5_encoder`."""
    from transformers import T5Tokenizer

    letters = [(chr(code), -3.0) for code in range(33, 127) if chr(code) not in "<>"]
    return T5Tokenizer(vocab=[("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0), *letters], extra_ids=0)


def qwen_tokenizer() -> Any:
    """A byte-level Qwen2 tokenizer without merges, whose chat template is the messages and an end.

    It goes with :func:`qwen25_vl_encoder`, :func:`qwen3_encoder` and :func:`mistral_encoder`.
    """
    from transformers import Qwen2Tokenizer

    vocab = {symbol: index for index, symbol in enumerate(_byte_symbols())}
    vocab.update({symbol: 256 + index for index, symbol in enumerate(_QWEN_SPECIAL)})
    tokenizer = Qwen2Tokenizer(vocab=vocab, merges=[], additional_special_tokens=list(_QWEN_SPECIAL[1:]))
    tokenizer.chat_template = _CHAT_TEMPLATE
    return tokenizer


def qwen_processor() -> Any:
    """A processor around :func:`qwen_tokenizer` that needs no torchvision, for text; goes with a Qwen3-VL."""
    from transformers import CLIPImageProcessorPil, LlavaProcessor

    tokenizer = qwen_tokenizer()
    return LlavaProcessor(
        CLIPImageProcessorPil(), tokenizer, image_token="<|image_pad|>", chat_template=tokenizer.chat_template
    )


def gemma_tokenizer() -> Any:
    """A byte-fallback Gemma tokenizer without merges; goes with :func:`gemma_encoder`."""
    from transformers import GemmaTokenizer

    vocab = {symbol: index for index, symbol in enumerate(["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"])}
    vocab.update({f"<0x{byte:02X}>": 5 + byte for byte in range(256)})
    vocab["\u2581"] = 261
    return GemmaTokenizer(vocab=vocab, merges=[])


def _byte_symbols() -> list[str]:
    """The 256 characters that stand for bytes in byte-level tokenizers: those that print, and others for the rest."""
    printing = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return sorted(chr(code) for code in [*printing, *range(256, 512 - len(printing))])
