"""The entry point of the command line: every error becomes a message and an exit code.

in   the words of the command line
out  an exit code; a stack trace only for a bug in mvssl
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
from mvssl.process.threads import shorten_spinning
from mvssl.text import printable


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `mvssl` and `python -m mvssl`."""
    reopen_closed_streams()
    shorten_spinning()
    # the exit code is final here, even if a second signal arrives
    code = flush_stdout(_run(sys.argv[1:] if arguments is None else arguments, restore_signals=arguments is not None))
    if code:
        sys.exit(code)


def _run(arguments: list[str], restore_signals: bool) -> int:
    """Run the command, write its message, and return the exit code."""
    try:
        with stop_signals(restore_signals) as stop, stop.interruptible("interrupted"):
            from mvssl.cli.commands import app  # here, so that a signal during the import prints no stack trace

            code = app(_check_words(arguments), prog_name="mvssl", standalone_mode=False)
    except SystemExit as done:
        if isinstance(done.__context__, BrokenPipeError):  # typer exits so after a broken pipe
            return BROKEN_PIPE
        raise
    except Stopped as stopped:  # between two parts of the work
        print_error("interrupted")
        return exit_code(stopped.number)
    except Exception as error:
        return _report_error(error)
    if isinstance(code, int) and code:  # typer turns Ctrl-C into an exit code
        print_error("interrupted")
        return code
    return 0


def _report_error(error: Exception) -> int:
    """Write the message of an error; return its exit code."""
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


def _check_words(arguments: list[str]) -> list[str]:
    """Return the words with ~ replaced by the home folder. Raises `RecipeError` for a word that is empty or no UTF-8.

    An empty word is often a variable of the shell that is not set. The libraries used here open only UTF-8 names.
    """
    for number, word in enumerate(arguments, 1):
        if not word:
            raise RecipeError(f"word {number} of the command line is empty; check the variables of the shell")
        if any("\udc80" <= letter <= "\udcff" for letter in word):  # Python stores bytes that are no UTF-8 so
            raise RecipeError(f"word {number} of the command line is no UTF-8: {os.fsencode(word)!r}; rename the file")
    return [_expand_word(word) for word in arguments]


def _expand_word(word: str) -> str:
    """Replace ~ in a path or in an option such as --out=~/x; the value of a recipe's key stays as it is."""
    option, path = re.fullmatch(r"(--[\w-]+=)?(.*)", word, re.DOTALL).groups(default="")  # pyright: ignore[reportOptionalMemberAccess]
    try:
        return option + expand_home(path)
    except ValueError as error:
        raise RecipeError(str(error)) from None


def _usage_error(error: Exception) -> str | None:
    """Return typer's message about a wrong command line; None for any other exception."""
    format_message: Any = getattr(error, "format_message", None)
    if format_message is None:
        return None
    command = getattr(getattr(error, "ctx", None), "command_path", "mvssl")
    return f"{format_message().rstrip('.')}; see `{command} --help`".removeprefix("; ")
