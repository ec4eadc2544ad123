"""The collector rests while a command imports, acts once there is a model, and is left alone outside of commands."""

import subprocess
import sys


def said(program: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_it_rests_until_the_libraries_are_there_and_passes_them_over_from_then_on() -> None:
    program = (
        "import gc\nfrom fewstep.garbage import begin_command, libraries_are_there\n"
        "begin_command()\nresting = gc.get_threshold()[0]\nlibraries_are_there()\nfrozen = gc.get_freeze_count()\n"
        "kept = [[] for _ in range(1000)]\nlibraries_are_there()\n"
        "again = gc.get_freeze_count()\n"
        "print(resting > 1_000_000, gc.get_threshold()[0], gc.isenabled(), frozen > 1000, again <= frozen)"
    )
    assert said(program) == ["True", "50000", "True", "True", "True"]


def test_a_program_that_is_no_command_keeps_its_collector() -> None:
    program = (
        "import gc\nfrom fewstep.garbage import libraries_are_there\nbefore = gc.get_threshold()\n"
        "libraries_are_there()\nprint(gc.get_threshold() == before, gc.get_freeze_count())"
    )
    assert said(program) == ["True", "0"]


def test_a_command_that_opens_a_model_collects_again() -> None:
    program = (
        "import gc, sys\nsys.argv = ['fewstep', 'check', 'fewstep:digits']\nfrom fewstep.cli.main import run\n"
        "try:\n    run()\nexcept SystemExit as ended:\n    assert not ended.code\n"
        "print('END', gc.get_threshold()[0], gc.get_freeze_count() > 100_000)"
    )
    assert said(program)[-3:] == ["END", "50000", "True"]
