"""Make a new file or folder completely or not at all. An existing one is never replaced."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mvssl.errors import OutputError
from mvssl.files import put_new, write_errors, written_beside

EXISTS = "exists already and is not replaced; choose another --out, or remove it"


def require_absent(out: Path) -> None:
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
def write_whole(out: Path) -> Iterator[Path]:
    """Yield a path beside `out` and rename it to `out` at the end. A failure leaves no files.

    Raise `OutputError` if `out` exists by then, and `StorageError` if it cannot be written.
    """
    with write_errors(out, hint="; nothing was kept of it"):
        try:
            with written_beside(out.absolute(), put=put_new) as beside:
                yield beside
        except FileExistsError:
            raise OutputError(f"{out} {EXISTS}") from None
