"""Make a new file or folder completely or not at all, and never in place of another."""

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mvssl.errors import OutputError
from mvssl.files import write_errors, written_beside

EXISTS = "exists already and is not replaced; choose another --out, or remove it"


def check_new(out: Path) -> None:
    """Make the folder of `out`. Raise `OutputError` if `out` exists already or its folder cannot be written."""
    try:
        if os.path.lexists(out) and not (out.suffix == "" and out.is_dir() and not any(out.iterdir())):
            raise OutputError(f"{out} {EXISTS}")
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out.absolute().parent):
            pass
    except OSError as error:
        raise OutputError(f"{out} cannot be made: {error.strerror}") from None


@contextlib.contextmanager
def renamed_at_end(out: Path) -> Iterator[Path]:
    """Yield a path beside `out` and rename it to `out` at the end. A failure leaves no files."""
    with write_errors(out, hint="; nothing was kept of it"), written_beside(out.absolute(), put=_put_new) as beside:
        yield beside


def _put_new(beside: Path, out: Path) -> None:
    """Rename a file or folder. Raise `OutputError` if `out` was made in the meantime."""
    try:
        if beside.is_dir():
            os.rename(beside, out)  # fails if `out` is not empty
        else:
            os.link(beside, out)  # a rename would replace a file that was made in the meantime
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST) or (beside.is_file() and os.path.lexists(out)):
            raise OutputError(f"{out} {EXISTS}") from None
        if beside.is_dir():
            raise
        os.rename(beside, out)  # a file system without links
