"""Errors that a user can act on, and the exit codes that a supervisor can act on.

An `MvsslError` says what was wrong, where, and what is accepted. The command line prints its text without a stack trace
and exits with its code; anything else that is raised and is not known to `mvssl.process.streams` is a bug in mvssl.
"""

OK, USAGE, DATA, BUG, CANNOT_CREATE, IO, HANG, BROKEN_PIPE, PREEMPTED = 0, 64, 65, 70, 73, 74, 75, 141, 143


class MvsslError(Exception):
    """An error that the user can correct. `code` is the exit code."""

    code = USAGE


class RecipeError(MvsslError):
    """The recipe or the command line asks for something that does not exist or does not fit."""


class DataError(MvsslError):
    """Shards, samples or labels are missing or damaged, or they do not fit the recipe."""

    code = DATA


class OutputError(MvsslError):
    """A file or folder cannot be created."""

    code = CANNOT_CREATE


class StorageError(MvsslError):
    """Reading or writing failed, for example on a full disk, or there was too little memory or too few open files."""

    code = IO


class OtherProcessError(MvsslError):
    """Another process failed and stopped this one. The message of the other process states the cause."""

    def __init__(self, text: str, code: int = HANG):
        super().__init__(text)
        self.code = code


class HangError(MvsslError):
    """A process of the run, or one of its loader processes, makes no progress. A new launch continues the run."""

    code = HANG


class Interrupted(MvsslError):
    """A signal stopped the run. The run can be continued. `code` is 128 plus the number of the signal."""

    def __init__(self, text: str, code: int = PREEMPTED):
        super().__init__(text)
        self.code = code
