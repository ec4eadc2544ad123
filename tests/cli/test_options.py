"""Every number of every command has bounds, and a complaint about a command line is short and printable."""

from collections.abc import Iterator
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest
import typer

from fewstep.cli.app import app
from fewstep.cli.main import execute

ARGUMENTS = {"show": ["digits"], "train": ["digits"], "plan": ["digits"], "embed": ["digits", "--estimate"]}
# what a command needs before its numbers are looked at
NEEDED = {"sample": ["m", "--output", "o.png"], "measure": ["--output", "o"]}


def numbers(group: typer.Typer = app, path: tuple[str, ...] = ()) -> Iterator[tuple[list[str], str, str]]:
    """Every option of every command that takes a number: the command, the option, the kind of number."""
    for below in group.registered_groups:
        assert below.typer_instance is not None
        yield from numbers(below.typer_instance, (*path, str(below.name)))
    for command in group.registered_commands:
        assert command.callback is not None
        here = [*path, command.name or command.callback.__name__]
        for name, hint in get_type_hints(command.callback, include_extras=True).items():
            kinds = {int, float} & plain_types(hint)
            if kinds and get_origin(hint) is Annotated:
                option = next(iter(get_args(hint)[1].param_decls or ()), f"--{name.replace('_', '-')}")
                yield here, option, "whole" if int in kinds else "real"


def plain_types(hint: Any) -> set[Any]:
    below = get_args(hint)[:1] if get_origin(hint) is Annotated else get_args(hint)
    return {hint}.union(*map(plain_types, below)) if below else {hint}


NUMBERS = list(numbers())
OUTSIDE = {"whole": [str(10**30), str(-(10**30)), "9" * 5000], "real": ["1e300", "-1e300", "nan", "inf", "9" * 5000]}


def test_the_numbers_of_all_commands_are_found() -> None:
    assert {(path[-1], option) for path, option, _ in NUMBERS} >= {
        ("sample", "--steps"),
        ("sample", "--guidance-scale"),
        ("plan", "--gpus"),
        ("embed", "--num-prompts"),
        ("measure", "--ladder"),
        ("demo", "--seed"),
    }


@pytest.mark.parametrize(
    ("path", "option", "kind"), NUMBERS, ids=[f"{path[-1]} {option}" for path, option, _ in NUMBERS]
)
def test_a_number_far_outside_is_refused_by_its_name(
    path: list[str], option: str, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for value in OUTSIDE[kind]:
        code = execute([*path, *ARGUMENTS.get(path[-1], []), *NEEDED.get(path[-1], []), f"{option}={value}"])
        printed = capsys.readouterr()
        assert code == 2, value
        assert option in printed.err
        assert printed.err.count("\n") <= 20
        assert printed.out == ""


@pytest.mark.parametrize(
    "size", ["0", "1e3", "9" * 400, "10000000000000000000000GiB", "80 parsecs", "-3GiB", "\x1b[31m"]
)
def test_a_size_that_no_device_has_is_refused(size: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["plan", "digits", f"--memory={size}"]) == 2
    said = capsys.readouterr().err
    assert "which is no size; write it as 80GiB" in said
    assert said.rstrip("\n").isprintable()


@pytest.mark.parametrize("argument", ["x" * 10_000, "\x1b]0;title\x07", "\udcff" * 100, "a\nb" * 500])
def test_an_argument_that_nothing_takes_is_told_in_few_lines(argument: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["recipes", argument]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") <= 20
    assert "\x1b]" not in said


@pytest.mark.parametrize(
    "setting", ["fid.batch=!!python/name:os.system", "fid.batch=" + "[" * 5000, "fid.batch=" + "9" * 5000]
)
def test_a_setting_of_a_metric_is_read_as_a_recipe_is(setting: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["evaluate", "--output", "nowhere", "--set", setting]) == 2
    said = capsys.readouterr().err
    assert said.startswith("fewstep: The value of --set 'fid.batch=")
    assert said.count("\n") == 1
