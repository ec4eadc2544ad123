"""``python -m tools.originals``: see the package."""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from tools.originals.environment import prepare
from tools.originals.finding import Finding

_OUTPUT = Path("src/fewstep/scores/originals.json")


def _findings(folder: Path) -> Iterator[Finding]:
    from tools.originals import scorers, sets, vqa

    yield from sets.findings(folder)
    yield from scorers.findings(folder)
    yield from vqa.findings(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description="Run the metrics against their originals.")
    parser.add_argument("--output", type=Path, default=_OUTPUT)
    output = parser.parse_args().output
    prepare()
    found: dict[str, list[dict[str, str]]] = {}
    with TemporaryDirectory() as folder:
        for finding in _findings(Path(folder)):
            print(f"{finding.metric}: {finding.original}, {finding.what}: {finding.difference}", flush=True)
            rest = {key: value for key, value in asdict(finding).items() if key != "metric"}
            found.setdefault(finding.metric, []).append(rest)
    output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
