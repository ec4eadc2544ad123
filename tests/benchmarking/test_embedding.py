"""The benchmark of embedding reads, embeds and uses what it says."""

from pathlib import Path

from benchmarks.embedding import measure


def test_every_prompt_is_read_embedded_and_used(tmp_path: Path) -> None:
    found = measure(70, tmp_path)
    assert found["prompts"] == 70
    assert 0 < found["embed"]["encoders_share"] < 1
    assert found["embed"]["cache_mib"] > 0
    assert found["peak_rss_mib"] >= found["start"]["peak_rss_mib"] > 0
    (cache,) = (tmp_path / "cache").iterdir()
    assert (cache / "index.json").is_file()
