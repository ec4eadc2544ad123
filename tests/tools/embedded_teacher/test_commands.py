"""The two commands of the tool: their exit code says whether the figures are those of the package."""

from pathlib import Path

import pytest

from tools.embedded_teacher import rebuild, verify
from tools.embedded_teacher.__main__ import main


@pytest.mark.parametrize(("differences", "code"), [([], 0), (["teacher_50.fd is 3 now and 1 in the package"], 1)])
def test_a_rebuild_ends_with_the_comparison(
    differences: list[str],
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(rebuild, "rebuild", lambda output, **options: output)
    monkeypatch.setattr(verify, "compare_rebuilt", lambda folder: differences)
    assert main(["rebuild", "--output", str(tmp_path)]) == code
    said = capsys.readouterr().out
    assert all(difference in said for difference in differences)
    assert ("within what another training may differ by" in said) == (code == 0)


def test_another_rebuild_in_the_folder_is_told_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sklearn")
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "settings.json").write_text("{}")
    assert main(["rebuild", "--output", str(tmp_path)]) == 2
    assert "holds a rebuild with other settings" in capsys.readouterr().err
