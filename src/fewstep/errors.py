"""The errors a user can meet, and the exit code each one ends the command with."""

EXIT_OK = 0
EXIT_INTERNAL = 1
EXIT_USER = 2
EXIT_INTERRUPTED = 130


class FewstepError(Exception):
    """Base of every error that is told to the user as one sentence, without a traceback."""

    exit_code = EXIT_USER
    told = False
    """Whether another process of the run tells it, so that this one keeps quiet."""


class ConfigError(FewstepError, ValueError):
    """What the user asked for cannot be done: a value, a file or a combination of settings."""


class CheckpointError(FewstepError, RuntimeError):
    """A file that should hold saved state is damaged, incomplete or belongs to something else."""


class NonFiniteError(FewstepError, RuntimeError):
    """A loss or a gradient is not a finite number; the run stopped before any weight moved."""

    exit_code = EXIT_INTERNAL
