"""A new file or folder that appears whole or not at all, and never in place of another."""

import contextlib
import errno
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mvssl.errors import OutputError
from mvssl.files import writing


def refuse(out: Path) -> None:
    """Raises `OutputError` where `out` exists already or its folder cannot be written; makes that folder."""
    try:
        if os.path.lexists(out) and not (out.suffix == "" and out.is_dir() and not any(out.iterdir())):
            raise OutputError(_exists(out))
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out.absolute().parent):
            pass
    except OSError as error:
        raise OutputError(f"{out} cannot be made: {error.strerror}") from None


@contextlib.contextmanager
def placed(out: Path) -> Iterator[Path]:
    """A path beside `out` to write to, which is renamed to `out` at the end; nothing is left where anything fails."""
    whole = out.absolute()
    aside = whole.with_name(f".{whole.name}.embedding-{secrets.token_hex(4)}")
    try:
        with writing(out, way_out="; nothing was kept of it"):
            yield aside
            try:
                _rename(aside, whole)
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                    raise OutputError(_exists(out)) from None
                raise
    finally:
        if aside.is_dir():
            shutil.rmtree(aside, ignore_errors=True)
        aside.unlink(missing_ok=True)


def _rename(aside: Path, out: Path) -> None:
    if aside.is_dir():
        os.rename(aside, out)  # which fails where something lies in it
        return
    try:
        os.link(aside, out)  # a rename would write over what came meanwhile
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        if os.path.lexists(out):
            raise FileExistsError(errno.EEXIST, "exists") from None
        os.rename(aside, out)


def _exists(out: Path) -> str:
    return f"{out} exists already and is not written over; choose another --out, or remove it"
