"""The command line: every error a sentence and an exit code, never a stack trace."""

import os
import sys
from typing import Any

from mvssl.errors import MvsslError, RecipeError
from mvssl.stopping import stop_signals
from mvssl.words import printable


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `mvssl` and `python -m mvssl`."""
    whole_process = arguments is None
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        # nothing changes how a process ends once that is decided: a second signal may come within the same second
        with stop_signals(restore=not whole_process) as stop, stop.at_once("interrupted"):
            from mvssl.commands import app  # here, so that a signal during the import is no stack trace

            _refuse_unreadable(arguments)
            code = app(arguments, prog_name="mvssl", standalone_mode=False)
    except MvsslError as error:
        _complain(str(error))
        sys.exit(error.code)
    except Exception as error:
        usage = _usage_error(error)
        if usage is None:
            raise
        _complain(usage)
        sys.exit(RecipeError.code)
    if isinstance(code, int) and code:  # typer makes an exit code of Ctrl-C
        _complain("interrupted")
        sys.exit(code)


def _refuse_unreadable(arguments: list[str]) -> None:
    """An empty word is a variable of the shell that is not set; the libraries below open UTF-8 names alone."""
    for number, word in enumerate(arguments, 1):
        if not word:
            raise RecipeError(f"word {number} of the command line is empty; is a variable of the shell not set?")
        if any("\udc80" <= letter <= "\udcff" for letter in word):  # how Python holds bytes that are no UTF-8
            raise RecipeError(f"word {number} of the command line is no UTF-8: {os.fsencode(word)!r}; rename the file")


def _usage_error(error: Exception) -> str | None:
    """The text of what typer says of a wrong command line, or None for any other exception."""
    format_message: Any = getattr(error, "format_message", None)
    if format_message is None:
        return None
    command = getattr(getattr(error, "ctx", None), "command_path", "mvssl")
    return f"{format_message().rstrip('.')}; see `{command} --help`".removeprefix("; ")


def _complain(text: str) -> None:
    """On standard error, with the process's number where it is not the main one."""
    rank = os.environ.get("RANK", "0")
    print(f"mvssl{'' if rank == '0' else f' (process {rank})'}: {printable(text, keep=chr(10))}", file=sys.stderr)
