"""The charts of the reports keep their size, however many there are."""

import re

from fewstep.evaluation.report_style import CSS


def test_one_chart_alone_is_no_larger_than_one_of_many() -> None:
    """An SVG that is as wide as its column scales its letters with it: both the column and the SVG are bounded."""
    columns = re.search(r"\.charts \{[^}]*repeat\(([\w-]+), minmax\((\d+)px, 1fr\)\)", CSS)
    assert columns is not None
    assert columns[1] == "auto-fill"
    bound = re.search(r"\.chart svg \{[^}]*max-width: (\d+)px", CSS)
    assert bound is not None
    # letters are at most half as large again as in the narrowest column
    assert int(bound[1]) <= 1.5 * int(columns[2])
