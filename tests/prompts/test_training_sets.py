"""Named sets: what is known of them, and what is read of them when there is no hub."""

import re
from pathlib import Path

import pytest

from fewstep.cli.main import execute
from fewstep.config import load_recipe
from fewstep.config.prompt_sources import NamedPrompts
from fewstep.data.prompts import load_prompts
from fewstep.errors import ConfigError
from fewstep.evaluation.prompt_sets import NAMED
from fewstep.prompts.training_sets import TRAINING_SETS
from tests.prompts.hub_cache import put_set

PAGE = Path(__file__).parents[2] / "docs" / "prompts.md"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty download cache, and no hub."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.mark.parametrize("name", TRAINING_SETS)
def test_a_set_is_one_commit_of_a_repository(name: str) -> None:
    hub = TRAINING_SETS[name].hub
    assert re.fullmatch(r"[0-9a-f]{40}", str(hub.revision))
    assert hub.dataset.count("/") == 1


def test_no_set_is_one_that_students_are_measured_with() -> None:
    measured = {found.hub.dataset for found in NAMED.values() if found.hub is not None}
    assert not measured & {found.hub.dataset for found in TRAINING_SETS.values()}


def test_the_page_has_every_set_as_the_code_has_it() -> None:
    rows = [
        f"| `{name}` | {found.count} | {found.licence} | {found.megabytes} | {found.what} |"
        for name, found in TRAINING_SETS.items()
    ]
    assert [line for line in PAGE.read_text().splitlines() if line in rows] == rows


def test_the_command_lists_licence_and_count_of_every_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["prompts"]) == 0
    words = " ".join(capsys.readouterr().out.split())
    for name, found in TRAINING_SETS.items():
        assert f"{name} {found.count} prompts, {found.licence}, " in words


def test_a_set_is_read_from_the_download_cache_without_missing_and_repeated_prompts(cache: Path) -> None:
    put_set(cache, "midjourney", ["a cat", None, " a dog ", "a cat", ""])
    told: list[str] = []
    assert load_prompts(NamedPrompts(name="midjourney"), tell=told.append) == ("a cat", "a dog")
    assert told == [
        "Of 5 rows of the prompt set midjourney, 2 are blank and 1 repeat an earlier one; 2 prompts stay.",
    ]


def test_a_set_of_several_files_is_read_in_their_order(cache: Path) -> None:
    put_set(cache, "pixmo-cap", ["a"], ["b", "a"], ["c"], ["d"])
    assert load_prompts(NamedPrompts(name="pixmo-cap")) == ("a", "b", "c", "d")


def test_every_prompt_of_a_set_is_checked(cache: Path) -> None:
    put_set(cache, "pd12m", ["a cat", "a\0dog"])
    with pytest.raises(ConfigError, match=r"Row 2 of .*pd12m.00.parquet has a NUL character"):
        load_prompts(NamedPrompts(name="pd12m"))


def test_a_limit_takes_the_first_distinct_prompts(cache: Path) -> None:
    put_set(cache, "midjourney", ["a", "a", "b", "c"])
    assert load_prompts(NamedPrompts(name="midjourney", limit=2)) == ("a", "b")


def test_a_limit_above_the_number_of_prompts_takes_all_of_them(cache: Path) -> None:
    put_set(cache, "midjourney", ["a", "b"])
    assert load_prompts(NamedPrompts(name="midjourney", limit=9, seed=1)) == ("a", "b")


def test_a_seed_draws_the_same_part_every_time(cache: Path) -> None:
    texts = [f"prompt {number:03d}" for number in range(200)]
    put_set(cache, "midjourney", texts)
    one, again, other = (load_prompts(NamedPrompts(name="midjourney", limit=20, seed=seed)) for seed in (1, 1, 2))
    assert one == again != other
    assert one == tuple(sorted(set(one)))
    assert max(one) > texts[100]


def test_a_set_that_is_not_in_the_cache_says_how_to_get_it_when_there_is_no_hub() -> None:
    with pytest.raises(ConfigError) as caught:
        load_prompts(NamedPrompts(name="pickapic-sfw"))
    assert str(caught.value) == (
        "The prompt set pickapic-sfw cannot be fetched (it is not in the download cache, and the hub cannot be "
        "reached); go online and try again or run: hf download CarperAI/pickapic_v1_no_images_training_sfw "
        "pickapic_training_sfw.parquet --repo-type dataset --revision ebca1a045fbb7d4192df1d4804865f9c4c91f27b; or "
        "give a file, prompts={kind: file, path: FILE}."
    )


@pytest.mark.parametrize(
    "overrides", [["prompts={kind: set, name: pd12m, limit: 7}"], ["prompts.kind=set", "prompts.name=pd12m"]]
)
def test_a_set_takes_the_place_of_a_recipes_file(overrides: list[str]) -> None:
    prompts = load_recipe("sd3-medium", overrides).config.prompts
    assert isinstance(prompts, NamedPrompts)
    assert prompts.name == "pd12m"


@pytest.mark.parametrize(
    ("stated", "told"),
    [
        ("name: pd12", r"prompts\.name is 'pd12', which is no set; the sets are diffusiondb, midjourney, .*your own"),
        (
            "name: pd12m, seed: 3",
            r"prompts\.seed is 3, which draws prompts\.limit of the prompts; state prompts\.limit",
        ),
        ("name: pd12m, path: p.txt", r"prompts\.path, which .*the settings of this one are kind, name, limit, seed"),
    ],
)
def test_what_is_no_set_is_refused_before_anything_is_fetched(stated: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load_recipe("sd3-medium", [f"prompts={{kind: set, {stated}}}"])
