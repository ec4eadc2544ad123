"""One suite for every backbone, as a class of tests."""

from pathlib import Path

from fewstep.errors import ConfigError
from fewstep.testing.case import Case, open_case, save
from fewstep.testing.family import Family

try:
    import pytest
except ImportError:
    raise ConfigError("fewstep.testing needs pytest; install it with: pip install 'fewstep[testing]'.") from None

# pytest says what an assertion compared only where it may rewrite it, which is in tests and in what is named here
pytest.register_assert_rewrite("fewstep.testing.closeness", "fewstep.testing.suite")


def conformance(*families: Family) -> type:
    """Tests of everything a backbone is held to, for a file that pytest collects.

        TestAuraFlow = conformance(Family("auraflow", tiny_auraflow))

    One method per behaviour, parametrised over the families: pictures as the stock pipeline draws them, with guidance
    and without, at two sizes; the velocity's sign by a finite difference; encoding, decoding; recomputation, low-rank
    factors, two steps of training, export into stock diffusers and back.

    Returns:
        A class; give it a name that begins with ``Test``.
    """
    from fewstep.testing.suite.drawing import Drawing
    from fewstep.testing.suite.exporting import Exporting
    from fewstep.testing.suite.low_rank import LowRank
    from fewstep.testing.suite.networks import Networks
    from fewstep.testing.suite.prompts import Prompts
    from fewstep.testing.suite.two_steps import TwoSteps

    class Conformance(Drawing, Prompts, Networks, LowRank, TwoSteps, Exporting):
        @pytest.fixture(scope="class", params=families, ids=str)
        @classmethod
        def saved(cls, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Family, Path]:
            family: Family = request.param
            return family, save(family, tmp_path_factory.mktemp("pipeline") / "teacher")

        @pytest.fixture(scope="class")
        @classmethod
        def case(cls, saved: tuple[Family, Path]) -> Case:
            family, folder = saved
            return open_case(family, folder, family.size)

        @pytest.fixture(scope="class")
        @classmethod
        def oblong(cls, saved: tuple[Family, Path]) -> Case:
            family, folder = saved
            return open_case(family, folder, family.other_size)

    return Conformance
