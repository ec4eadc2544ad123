"""The prompts of the embedded teacher: which digit and which colour a text names."""

DIGIT_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (1.0, 0.15, 0.15),
    "green": (0.15, 0.85, 0.2),
    "blue": (0.2, 0.4, 1.0),
    "yellow": (1.0, 0.9, 0.15),
    "magenta": (0.95, 0.25, 0.9),
    "cyan": (0.15, 0.9, 0.95),
    "white": (1.0, 1.0, 1.0),
}
NUM_DIGITS = len(DIGIT_WORDS)
NUM_COLOURS = len(COLOURS)


def prompt_for(digit: int | None, colour: int | None) -> str:
    """Write the prompt that names a digit and a colour; ``None`` leaves that one open."""
    noun = "digit" if digit is None else DIGIT_WORDS[digit]
    words = ["a", "handwritten", noun] if colour is None else ["a", list(COLOURS)[colour], "handwritten", noun]
    return " ".join(words)


def full_prompts() -> list[str]:
    """List the 70 prompts that name both, digit by digit: index = digit * 7 + colour."""
    return [prompt_for(digit, colour) for digit in range(NUM_DIGITS) for colour in range(NUM_COLOURS)]


def open_colour_prompts() -> list[str]:
    """List the 10 prompts that leave the colour open: index = digit."""
    return [prompt_for(digit, None) for digit in range(NUM_DIGITS)]


def _open_digit_prompts() -> list[str]:
    """List the 7 prompts that leave the digit open: index = colour."""
    return [prompt_for(None, colour) for colour in range(NUM_COLOURS)]


def all_prompts() -> list[str]:
    """List every prompt that the teacher is trained on; the last one is the empty null prompt."""
    return [*full_prompts(), *open_colour_prompts(), *_open_digit_prompts(), prompt_for(None, None), ""]
