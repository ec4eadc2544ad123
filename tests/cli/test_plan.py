"""`fewstep plan`."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fewstep.cli.main import execute
from fewstep.cli.plan import bytes_of
from fewstep.errors import ConfigError
from tests.planning.test_measurements import file_of, row, written


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


FIELDS = {"peak_gib", "fits", "breakdown", "flops_per_step", "hours", "settings"}


def test_the_json_has_the_documented_fields(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["plan", "sana-600m", "--gpus", "8", "--memory", "80GiB", "--mode", "lora", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made.keys() >= FIELDS
    assert made["fits"] is True
    assert made["peak_gib"] == pytest.approx(sum(made["breakdown"].values()))
    assert made["mode"] == "lora"


def test_the_text_says_the_peak_the_parts_and_the_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["plan", "digits"]) == 0
    text = capsys.readouterr().out
    for word in ("fits", "optimiser", "GiB", "forwards per sample", "memory.microbatch=", "never on a GPU"):
        assert word in text


def test_the_cost_has_its_unit_and_the_price_it_comes_from(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["plan", "digits", "--price", "4"]) == 0
    assert "costs 0.00 US dollars at 4.00 US dollars for a device and hour (--price)." in capsys.readouterr().out


def test_with_a_network_the_exchange_and_the_layout_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["plan", "digits", "--gpus", "16", "--network", "100"]) == 0
    text = capsys.readouterr().out
    for word in ("s of networks at the process that", "s of exchange", "parallel.shard=", "parallel.replicate="):
        assert word in text


@pytest.mark.slow  # tests/planning asks the same of the planner
def test_a_machine_that_is_too_small_gets_advice(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["plan", "sana-600m", "--memory", "3GiB"]) == 0
    assert "does not fit" in (text := capsys.readouterr().out)
    assert "What would fit:" in text


@pytest.mark.parametrize(("text", "size"), [("80GiB", 80 * 2**30), ("24 GB", 24e9), ("512MiB", 2**29), ("16", 2**34)])
def test_sizes_are_read_with_their_unit(text: str, size: float) -> None:
    assert bytes_of(text) == size


@pytest.mark.parametrize("text", ["much", "0GiB", "80 parsecs", "-3GiB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=f"--memory is '{text}', which is no size; write it as 80GiB"):
        bytes_of(text)


def test_an_unknown_recipe_is_the_users_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["plan", "sd3-mediun"]) == 2
    assert "sd3-mediun" in capsys.readouterr().err


def test_a_plan_from_measurements_says_so_and_takes_the_cards_memory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, file_of(row("digits, lora", compute="fp32")))
    assert execute(["plan", "digits", "--measured", str(path)]) == 0
    text = capsys.readouterr().out
    assert "on 1 x 40 GiB fits" in text
    assert (
        "Hours from 300 TFLOP/s, 30% of its peak, measured on Test Card (digits, lora); the reserve is 10% and " in text
    )
    assert "never on a GPU" not in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--memory", "80GiB"], "--memory is 80GiB, but --measured tells of another card: Test Card has 40.0 GiB"),
        (["--utilisation", "0.5"], "--measured tells how fast the card is; leave out --teraflops and --utilisation."),
    ],
)
def test_what_contradicts_the_measurements_is_refused(
    tmp_path: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, file_of(row("digits, lora", compute="fp32")))
    assert execute(["plan", "digits", "--measured", str(path), *arguments]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
