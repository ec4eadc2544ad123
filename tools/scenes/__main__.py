"""Make a teacher of scenes, or measure it: python -m tools.scenes train | measure | ship"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from fewstep.errors import Exit, FewstepError
from tools.scenes.measuring import measure
from tools.scenes.shipping import PER_CATEGORY, ship
from tools.scenes.workshop import LONGEST, Settings, open_workshop, work


def main(arguments: Sequence[str] | None = None, *, settings: Settings | None = None) -> int:
    """Run one command line; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.scenes", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="make what is missing; goes on where it stopped")
    train.add_argument("--minutes", type=float, help="how long the teacher's training may take in this sitting")
    look = commands.add_parser("measure", help="how right the teacher is, in 50 steps and in 4, as JSON")
    look.add_argument("--prompts", type=int, default=PER_CATEGORY, help="of each category")
    pack = commands.add_parser("ship", help="write what ships into OUTPUT/assets")
    for command in (train, look, pack):
        command.add_argument("--output", type=Path, default=Path("runs/scenes"), help="folder to write")
        command.add_argument("--threads", type=int, default=1, help="of the arithmetic")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    try:
        shop = open_workshop(chosen.output, settings or Settings())
        if chosen.command == "measure":
            print(json.dumps(measure(shop, per_category=chosen.prompts), indent=2))
        elif chosen.command == "ship":
            ship(shop, shop.result("assets"))
        elif not work(shop, seconds=LONGEST if chosen.minutes is None else 60 * chosen.minutes):
            print("The teacher's training is unfinished: the same command goes on with it.")
    except FewstepError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return Exit.OK


if __name__ == "__main__":
    sys.exit(main())
