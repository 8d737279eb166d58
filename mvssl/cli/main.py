"""The command line: every end is a sentence and an exit code.

in   the words of the command line
out  an exit code; of a bug in mvssl, and of nothing else, the stack trace
"""

import os
import re
import sys
import traceback
from typing import Any

from mvssl.errors import BROKEN_PIPE, BUG, MvsslError, RecipeError
from mvssl.files import expand_home
from mvssl.process.signals import Stopped, exit_code, stop_signals
from mvssl.process.streams import flush_stdout, print_error, reopen_closed_streams
from mvssl.process.system_errors import as_storage_error
from mvssl.text import printable


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `mvssl` and `python -m mvssl`."""
    reopen_closed_streams()
    # Nothing changes how a process ends once that is decided: a second signal may come within the same second.
    code = flush_stdout(_run(sys.argv[1:] if arguments is None else arguments, restore_signals=arguments is not None))
    if code:
        sys.exit(code)


def _run(arguments: list[str], restore_signals: bool) -> int:
    """Do what the words say; the exit code, when the sentence is written."""
    try:
        with stop_signals(restore_signals) as stop, stop.interruptible("interrupted"):
            from mvssl.cli.commands import app  # here, so that a signal during the import is no stack trace

            code = app(_readable(arguments), prog_name="mvssl", standalone_mode=False)
    except SystemExit as done:
        if isinstance(done.__context__, BrokenPipeError):  # typer's own way to end then
            return BROKEN_PIPE
        raise
    except Stopped as stopped:  # between two parts of the work
        print_error("interrupted")
        return exit_code(stopped.number)
    except Exception as error:
        return _told(error)
    if isinstance(code, int) and code:  # typer makes an exit code of Ctrl-C
        print_error("interrupted")
        return code
    return 0


def _told(error: Exception) -> int:
    """Say what ended the command; its exit code."""
    usage = _usage_error(error)
    known = error if isinstance(error, MvsslError) else RecipeError(usage) if usage else as_storage_error(error)
    if known:
        print_error(printable(str(known), keep="\n"))
        return known.code
    print_error(
        "".join(traceback.format_exception(error)).rstrip()
        + "\nmvssl: this is a bug in mvssl, or in a class of yours that the recipe names; please report it"
    )
    return BUG


def _readable(arguments: list[str]) -> list[str]:
    """The words with ~ written out. Raises `RecipeError` for one that is empty or no UTF-8.

    An empty word is a variable of the shell that is not set; the libraries below open UTF-8 names alone.
    """
    for number, word in enumerate(arguments, 1):
        if not word:
            raise RecipeError(f"word {number} of the command line is empty; is a variable of the shell not set?")
        if any("\udc80" <= letter <= "\udcff" for letter in word):  # how Python holds bytes that are no UTF-8
            raise RecipeError(f"word {number} of the command line is no UTF-8: {os.fsencode(word)!r}; rename the file")
    return [_at_home(word) for word in arguments]


def _at_home(word: str) -> str:
    """A path, or an option with one, as in --out=~/x. What follows a recipe's key is the recipe's affair."""
    option, path = re.fullmatch(r"(--[\w-]+=)?(.*)", word, re.DOTALL).groups(default="")  # pyright: ignore[reportOptionalMemberAccess]
    try:
        return option + expand_home(path)
    except ValueError as error:
        raise RecipeError(str(error)) from None


def _usage_error(error: Exception) -> str | None:
    """The text of what typer says of a wrong command line, or None for any other exception."""
    format_message: Any = getattr(error, "format_message", None)
    if format_message is None:
        return None
    command = getattr(getattr(error, "ctx", None), "command_path", "mvssl")
    return f"{format_message().rstrip('.')}; see `{command} --help`".removeprefix("; ")
