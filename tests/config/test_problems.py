"""What a user reads when settings are wrong: the value, where it came from, what to do, all of it at once."""

from pathlib import Path

import pytest

from fewstep.config import load_recipe
from fewstep.errors import ConfigError


def problem(*overrides: str, recipe: str = "digits") -> str:
    with pytest.raises(ConfigError) as caught:
        load_recipe(recipe, overrides)
    return str(caught.value)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        (
            "student.evry=2",
            "There is no setting student.evry, which the command line states; did you mean student.every?",
        ),
        ("lr=1e-4", "There is no setting lr, which the command line states; did you mean student.lr or fake_score.lr?"),
        (
            "backbone.max_seq_length=3",
            "There is no setting backbone.max_seq_length, which the command line states; "
            "did you mean backbone.max_sequence_length?",
        ),
        (
            "schedule.inner.lo=0.5",
            "There is no setting schedule.inner.lo, which the command line states; did you mean schedule.inner.low?",
        ),
        (
            "terms.dm.scale=3",
            "There is no setting terms.dm.scale, which the command line states; did you mean terms.ca.scale",
        ),
        (
            "schedule.levels=[1.0]",
            "There is no setting schedule.levels, which the command line states; it belongs to another kind of "
            "schedule, and the settings of this one are kind, min_steps, max_steps, inner, length.",
        ),
        (
            "checkpoint.zzzzzz=1",
            "There is no setting checkpoint.zzzzzz, which the command line states; "
            "the settings there are every, keep_last.",
        ),
        ("student.lr=fast", "student.lr is 'fast', from the command line; it must be a number."),
        ("student.lr='1e-4'", "student.lr is '1e-4', from the command line; it must be a number."),
        ("student.lr=0", "student.lr is 0, from the command line; it must be greater than 0."),
        ("student.lr=null", "student.lr is null, from the command line; it must be a number."),
        ("student.lr=.nan", "student.lr is nan, from the command line; it must be a finite number."),
        ("student.every=1.5", "student.every is 1.5, from the command line; it must be a whole number."),
        ("batch=true", "batch is true, from the command line; it must be a whole number."),
        (
            "memory.gradient_checkpointing=yes",
            "memory.gradient_checkpointing is 'yes'; it must be auto, true, false or selective "
            "(from the command line).",
        ),
        (
            "gradient_checkpointing=false",
            "There is no setting gradient_checkpointing, which the command line states; "
            "it is memory.gradient_checkpointing now.",
        ),
        (
            "savings.keep_anchor_graph=false",
            "There is no setting savings, which the command line states; "
            "it is memory.keep_anchor_graph and memory.batch_frozen_calls now.",
        ),
        (
            "parallel.offload.teacher=true",
            "There is no setting parallel.offload, which the command line states; it is memory.offload now.",
        ),
        (
            "report.tensorboard=true",
            "There is no setting report.tensorboard, which the command line states; it is report.trackers now.",
        ),
        (
            "report.trackers=[tensorbord]",
            "report.trackers.0 is 'tensorbord', from the command line; it must be 'tensorboard', 'trackio' or 'wandb'.",
        ),
        ("student=3", "student is 3, from the command line; it must be a mapping of settings."),
        ("schedule=[]", "schedule is [], from the command line; it must be a mapping of settings."),
        ("student.betas=[0.9]", "student.betas.1 is not stated and has no default"),
        (
            "student.betas=[0.9, 0.9, 0.9]",
            "student.betas is [0.9, 0.9, 0.9], from the command line; it must be a list of at most 2.",
        ),
        (
            "precision.compute=fp16",
            "precision.compute is 'fp16', from the command line; it must be 'fp32' or 'bf16'.",
        ),
        (
            "schedule.kind=fixd",
            "schedule.kind is 'fixd', from the command line; it must be one of 'fixed', 'random_length'.",
        ),
        (
            "fake_score.sigma.law=uniform_below_query",
            "fake_score.sigma.law is 'uniform_below_query', from the command line; "
            "it must be one of 'uniform', 'logit_normal'.",
        ),
        (
            "fake_score.sigma={low: 0.1}",
            "fake_score.sigma is {'low': 0.1}, from the command line, and does not say its 'law'.",
        ),
        ("backbone.kind=sd33", "backbone.kind is 'sd33'"),
        (
            "prompts.kind=file",
            "prompts.path is not stated and has no default; add it to the recipe or to the command line.",
        ),
        (
            "terms={ca: null, dm: null, cdm: null}",
            "terms names no loss; switch on at least one of ca, dm, cdm (from the command line).",
        ),
        (
            "sampling.levels=[1.0, 0.25, 0.5]",
            "sampling.levels: levels [1.0, 0.25, 0.5] must strictly descend and stay above 0 (the final 0 is implied) "
            "(from the command line).",
        ),
        (
            "schedule.inner.low=0.99",
            "schedule.inner: low 0.99 and high 0.95 must satisfy 0 <= low < high <= 1 (from the command line).",
        ),
        (
            "memory.microbatch=64",
            "memory.microbatch is 64, more than batch, which is 32; it splits the batch, so it must be at most that "
            "(from the command line).",
        ),
        ("student.lr", "'student.lr' on the command line is no override; write it as student.lr=1e-4."),
        ("student..lr=1", "'student..lr=1' on the command line is no override; write it as student.lr=1e-4."),
        ("student.lr=[1", "The value of 'student.lr=[1' on the command line is not valid YAML: line 1, column 3:"),
    ],
)
def test_a_wrong_override_is_told_in_one_sentence(override: str, sentence: str) -> None:
    said = problem(override)
    assert said.startswith(sentence)
    assert "\n" not in said


def test_a_quantised_base_is_not_compiled() -> None:
    said = problem("memory.compiled=true", "student.weights={kind: lora, base: nf4}")
    assert "student.weights.base is nf4 and memory.compiled is true, but a quantised base is not compiled" in said


def test_what_is_no_way_of_compiling_is_told_in_one_sentence() -> None:
    assert problem("memory.compiled=fastest").startswith(
        "memory.compiled is 'fastest'; it must be true, false, reduce-overhead, max-autotune or "
        "max-autotune-no-cudagraphs (from the command line)."
    )


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("memory.offload.teacher=true", "memory.offload.teacher is true"),
        ("memory.offload.trained=true", "memory.offload.trained is true"),
        ("precision.frozen=bf16", "precision.frozen is bf16"),
    ],
)
def test_graphs_are_not_recorded_of_weights_that_move(setting: str, told: str) -> None:
    said = problem("memory.compiled=max-autotune", setting, "precision.compute=fp32")
    assert said.startswith(
        "memory.compiled is max-autotune, which records CUDA graphs of weights that stay where they are, but "
        f"{told}, which brings them for each use; choose one of the two"
    )


def test_segments_are_not_compared_where_no_euler_step_crosses_them() -> None:
    said = problem("terms.isg={}", "simulation.step=renoise")
    assert said.startswith(
        "terms.isg compares Euler steps across a segment, but simulation.step is renoise: the student would never make "
        "them; set terms.isg=null or simulation.step=euler"
    )


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (
            ("schedule={kind: fixed}", "simulation.step=renoise"),
            "terms.dp teaches the first of the student's Euler steps, but simulation.step is renoise: the student "
            "would never make them; set terms.dp=null or simulation.step=euler",
        ),
        (
            (),
            "terms.dp has the first anchor for itself, but a schedule may have no more than 1; set "
            "schedule.min_steps=2",
        ),
        (("schedule={kind: fixed, levels: [1.0]}",), "terms.dp has the first anchor for itself, but a schedule may"),
    ],
)
def test_a_first_step_of_its_own_needs_euler_steps_and_a_second_one(overrides: tuple[str, ...], sentence: str) -> None:
    assert problem("terms.dp={}", *overrides).startswith(sentence)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (("batch=6",), "terms.NAME.normalise_over needs whole groups of 4, but batch is 6; set a multiple of it"),
        (
            ("memory.microbatch=3",),
            "terms.NAME.normalise_over needs groups of 4 together, but memory.microbatch is 3; set memory.microbatch=4",
        ),
        (("terms.cdm.normalise_over=3",), "terms.NAME.normalise_over needs whole groups of 12, but batch is 32"),
    ],
)
def test_groups_are_not_cut(overrides: tuple[str, ...], sentence: str) -> None:
    assert problem("terms.dm.normalise_over=4", *overrides).startswith(sentence)


def test_all_problems_are_told_at_once() -> None:
    said = problem("student.lr=fast", "batch=0", "schedule.maxsteps=3", "backbone.height=tall")
    assert said.splitlines()[0] == "The settings have 4 problems:"
    for place in ("student.lr is 'fast'", "batch is 0", "no setting schedule.maxsteps", "backbone.height is 'tall'"):
        assert place in said


def test_a_problem_names_the_recipe_file_that_states_it(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("base: digits\nbatch: many\n")
    assert problem(recipe=str(mine)) == f"batch is 'many', from {mine}; it must be a whole number."


def test_a_problem_names_the_base_that_states_it(tmp_path: Path) -> None:
    (tmp_path / "below.yaml").write_text("base: digits\nbatch: many\n")
    (tmp_path / "above.yaml").write_text("base: below.yaml\nseed: 3\n")
    assert f"from {tmp_path / 'below.yaml'};" in problem(recipe=str(tmp_path / "above.yaml"))


def test_a_missing_recipe_file_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "mine.yaml"
    assert problem(recipe=str(missing)) == f"There is no recipe file {missing}; check the path."


def test_a_missing_base_names_the_file_that_asks_for_it(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("base: other.yaml\n")
    said = problem(recipe=str(mine))
    assert said == f"There is no recipe file {tmp_path / 'other.yaml'}, which is the base of {mine}; check the path."


def test_an_empty_recipe_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("# nothing yet\n")
    assert "mine.yaml is empty; a recipe states at least" in problem(recipe=str(tmp_path / "mine.yaml"))


def test_a_recipe_file_that_is_a_list_is_told(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("- digits\n")
    assert "holds list ['digits']; a recipe is a mapping of names to values." in problem(
        recipe=str(tmp_path / "mine.yaml")
    )


def test_a_key_written_twice_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("base: digits\nstudent: {lr: 1e-4}\nstudent: {every: 2}\n")
    said = problem(recipe=str(tmp_path / "mine.yaml"))
    assert "mine.yaml is not valid YAML: line 3, column 1: the key 'student' is written twice." in said


def test_a_folder_instead_of_a_recipe_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").mkdir()
    assert "mine.yaml cannot be read:" in problem(recipe=str(tmp_path / "mine.yaml"))


def test_a_base_that_is_no_name_is_told(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("base: [digits]\n")
    assert "base is ['digits'] in " in problem(recipe=str(tmp_path / "mine.yaml"))


def test_a_setting_that_a_complete_recipe_lacks_is_told(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("backbone: {kind: sd3, model: 'fewstep:digits'}\nprompts: {kind: demo}\n")
    said = problem(recipe=str(tmp_path / "mine.yaml"))
    for missing in ("terms", "student", "fake_score", "batch", "budget"):
        assert f"  {missing} is not stated and has no default" in said
