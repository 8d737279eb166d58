"""Files that a command writes where it is told: tried before the work, and there whole or not at all.

in   a path, and what is to stand there
out  the file, or an error that says what is in the way and how to go round it

One rule for all verbs: what is missing of the folder is made, a link is followed, and only a plain file that begins
like what is to be written is written over. A folder, a device or a pipe is refused: a file is put in its place by a
rename, which would replace /dev/null by a file.
"""

import contextlib
import errno
import io
import os
import re
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mvssl.errors import MvsslError, OutputError, RecipeError, StorageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# numpy gives no number of an error where it wrote less than it should
HALF_WAY = (None, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOMEM)
WRITERS = ("safetensors", "safetensors_rust", "pyarrow")  # whose errors of writing are no OSError


class Kind(NamedTuple):
    """What a file holds: in words, the bytes that every such file begins with, and how to name another one."""

    what: str
    begins: bytes
    way_out: str


RECORDS = Kind("records of an evaluation", b"[", "; choose another with --json FILE")
MEASURED = Kind("results of a benchmark", b"{", "; choose another with --json FILE")
SCHEMA = Kind("JSON schema", b"{", "; choose another with --out FILE")
PAGE = Kind("HTML page", b"<!doctype html>", "; choose another with --out FILE")
PICTURE = Kind("PNG picture", b"\x89PNG", "; choose another with --out FILE")


def try_place(file: str | Path, kind: Kind) -> None:
    """See, before the work, that `file` can be written, and make its folder. Raises `OutputError`.

    An older file of the same kind may be written over, also a damaged or an empty one; anything else that is there is
    kept.
    """
    file = Path(file)
    try:
        refuse_odd(file, OutputError, kind.way_out)
        folder = Path(os.path.realpath(file)).parent
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        before = _head(file) if file.exists() else b""
    except FileExistsError as error:
        raise OutputError(f"{file} cannot be written: {error.filename} is no folder{kind.way_out}") from None
    except OSError as error:
        raise OutputError(f"{file} cannot be written: {error.strerror}{kind.way_out}") from None
    if before and not before.lower().startswith(kind.begins.lower()):
        raise OutputError(f"{file} cannot be written: it is there and holds no {kind.what}{kind.way_out}")


def _head(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(64).lstrip()


def refuse_odd(file: Path, failure: type[MvsslError], way_out: str) -> None:
    """Raise `failure` where something is there that is no plain file."""
    if file.exists() and not file.is_file():
        what = "a folder" if file.is_dir() else "a device or a pipe, and no plain file"
        raise failure(f"{file} cannot be written: it is {what}{way_out}")


def write_aside(
    file: str | Path, content: str | bytes, failure: type[MvsslError] = StorageError, way_out: str = ""
) -> None:
    """Write a file so that a reader sees the old content or the new, never a part; raises `failure`.

    A link is followed; what is no plain file is refused. On a full disk it is `StorageError` that is raised.
    """
    whole = Path(os.path.realpath(file))
    # short, as a name has at most 255 bytes; drawn, as processes of several containers may have one number
    aside = whole.with_name(f".{whole.name[:40]}.{secrets.token_hex(4)}")
    with writing(file, failure, way_out):
        refuse_odd(Path(file), failure, way_out)
        try:
            with aside.open("wb") as opened:
                opened.write(content if isinstance(content, bytes) else content.encode())
                opened.flush()
                os.fsync(opened.fileno())  # else a power failure may leave an empty file under the new name
            os.replace(aside, whole)
        except BaseException:
            with contextlib.suppress(OSError):
                aside.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def writing(file: str | Path, failure: type[MvsslError] = StorageError, way_out: str = "") -> Iterator[None]:
    """Inside, a library writes `file`; what it raises then becomes an error of ours that says why.

    `StorageError` where writing ended half-way, as on a full disk or at a limit of file sizes; `failure` for any other
    error of the operating system. An error that does not come from writing passes.
    """
    try:
        yield
    except OSError as error:
        kind = StorageError if error.errno in HALF_WAY else failure
        why = error.strerror or error
        if isinstance(error, FileExistsError | NotADirectoryError):
            why = f"{error.filename} is no folder"
        raise kind(f"{file} cannot be written: {why}{way_out}") from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in WRITERS:
            raise
        raise StorageError(f"{file} cannot be written: {error}{way_out}") from error


def write_picture(figure: "Figure", file: str | Path, way_out: str = "") -> Path:
    """Write a matplotlib figure as a PNG, whatever the name ends in. Raises `OutputError`, `StorageError`."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    write_aside(file, drawn.getvalue(), OutputError, way_out)
    return Path(file)


def at_home(path: str) -> str:
    """The path with ~ or ~USER written out. Raises `ValueError` where there is no such user or no home is known."""
    kind, rest = re.fullmatch(r"((?:[a-z]+:)?)(.*)", path, re.DOTALL).groups()  # pyright: ignore[reportOptionalMemberAccess]
    if not rest.startswith("~"):
        return path
    whole = os.path.expanduser(rest)
    if whole.startswith("~"):
        user = rest.partition("/")[0]
        why = "no home folder is known; set HOME" if user == "~" else f"there is no user {user[1:]!r}"
        raise ValueError(f"{path}: {why}; write {kind}./{rest} for what is really named so")
    return kind + whole


def known_home(path: str) -> str:
    """The path as it is written. Raises `ValueError` where `at_home` would."""
    at_home(path)
    return path


def home_path(path: str | Path) -> Path:
    """The path with ~ or ~USER written out. Raises `RecipeError`."""
    try:
        return Path(at_home(str(path)))
    except ValueError as error:
        raise RecipeError(str(error)) from None


def cache_folder() -> Path:
    """Where mvssl keeps what it can make again: $MVSSL_CACHE, else ~/.cache/mvssl.

    Where there is no home, as in some containers, it is a folder of the user's own among the temporary files. Raises
    `OutputError` where somebody else made it.
    """
    if os.environ.get("MVSSL_CACHE"):
        return home_path(os.environ["MVSSL_CACHE"])
    try:
        return Path.home() / ".cache" / "mvssl"
    except RuntimeError:
        folder = Path(tempfile.gettempdir()) / f"mvssl-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        stat = folder.lstat()
    except OSError as error:
        raise OutputError(
            f"{folder} cannot be made: {error.strerror}; choose another with MVSSL_CACHE=FOLDER"
        ) from None
    if folder.is_symlink() or stat.st_uid != os.getuid() or stat.st_mode & 0o077:
        raise OutputError(f"{folder} is not this user's alone; choose another with MVSSL_CACHE=FOLDER")
    return folder
