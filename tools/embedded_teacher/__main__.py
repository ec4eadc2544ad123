"""Make the embedded teacher again, or measure it again: python -m tools.embedded_teacher rebuild | verify"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fewstep.errors import Exit, FewstepError
from tools.embedded_teacher import rebuild, verify


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.embedded_teacher", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    again = commands.add_parser("rebuild", help="train the teacher and its classifier, and compare them")
    again.add_argument("--output", type=Path, default=Path("runs/rebuild"), help="folder to write")
    again.add_argument("--seed", type=int, default=0, help="names the split of the digits and every random number")
    check = commands.add_parser("verify", help="measure the shipped rows again, and compare them")
    for command in (again, check):
        command.add_argument("--threads", type=int, default=1, help="of the arithmetic")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.command == "verify":
            differences, alike = verify.verify(threads=chosen.threads), "The shipped rows are reproduced."
        else:
            folder = rebuild.rebuild(chosen.output, seed=chosen.seed, threads=chosen.threads)
            print(f"The rebuilt files are in {folder}.")
            differences = verify.compare_rebuilt(folder)
            alike = "Their rows are those of the package, within what another training may differ by."
    except FewstepError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print("\n".join(map(str, differences)) or alike)
    return Exit.INTERNAL if differences else Exit.OK


if __name__ == "__main__":
    sys.exit(main())
