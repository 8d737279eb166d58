"""Write files completely or not at all, hash them, read JSON, and expand paths that begin with ~.

in   a path, and the content of the file or folder
out  the file or folder, or an error that says why it cannot be written and what to do

All commands follow one rule: missing folders are made, and a link is followed. Only a plain file that begins like
the new content is replaced. A folder, a device or a pipe is refused, because a rename would replace even /dev/null.
"""

import contextlib
import errno
import hashlib
import io
import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from io import RawIOBase
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from mvssl.errors import MvsslError, OutputError, RecipeError, StorageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# None: numpy sets no number when it wrote only a part
HALF_WAY = (None, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOMEM)
WRITERS = ("safetensors", "safetensors_rust", "pyarrow")  # packages whose writing errors are not OSError


class Kind(NamedTuple):
    """A kind of output file: its name in messages, its first bytes, and how to choose another path."""

    what: str
    begins: bytes
    hint: str


RECORDS = Kind("records of an evaluation", b"[", "; choose another with --json FILE")
MEASURED = Kind("results of a benchmark", b"{", "; choose another with --json FILE")
SCHEMA = Kind("JSON schema", b"{", "; choose another with --out FILE")
PAGE = Kind("HTML page", b"<!doctype html>", "; choose another with --out FILE")
PICTURE = Kind("PNG picture", b"\x89PNG", "; choose another with --out FILE")


def check_output(file: str | Path, kind: Kind) -> None:
    """Check before the work that `file` can be written, and make its folder. Raise `OutputError`.

    An older file of the same kind may be replaced, also if it is damaged or empty. Any other file is an error.
    """
    file = Path(file)
    try:
        refuse_special(file, OutputError, kind.hint)
        folder = Path(os.path.realpath(file)).parent
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        before = _head(file) if file.exists() else b""
    except FileExistsError as error:
        raise OutputError(f"{file} cannot be written: {error.filename} is no folder{kind.hint}") from None
    except OSError as error:
        raise OutputError(f"{file} cannot be written: {error.strerror}{kind.hint}") from None
    if before and not before.lower().startswith(kind.begins.lower()):
        raise OutputError(f"{file} cannot be written: it exists and holds no {kind.what}{kind.hint}")


def _head(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(64).lstrip()


def refuse_special(file: Path, failure: type[MvsslError], hint: str) -> None:
    """Raise `failure` if `file` exists and is no plain file."""
    if file.exists() and not file.is_file():
        what = "a folder" if file.is_dir() else "a device or a pipe, and no plain file"
        raise failure(f"{file} cannot be written: it is {what}{hint}")


def write_file(
    file: str | Path, content: str | bytes, failure: type[MvsslError] = StorageError, hint: str = ""
) -> None:
    """Write a file so that a reader sees the old or the new content, never a part, also after a power failure.

    A link is followed. A folder, a device or a pipe is refused. Raise `StorageError` on a full disk, else `failure`;
    the message ends with `hint`.
    """
    with write_errors(file, failure, hint):
        refuse_special(Path(file), failure, hint)
        with written_beside(Path(os.path.realpath(file))) as beside:
            write_durably(beside, content if isinstance(content, bytes) else content.encode())


def name_beside(place: Path, prefix: str = ".") -> Path:
    """Return a hidden path in the folder of `place` that no other process uses."""
    # cut, because a name has at most 255 bytes; random, because processes of several containers may share a number
    return place.with_name(f"{prefix}{place.name[:40]}.{secrets.token_hex(4)}")


def replace_path(new: Path, place: Path) -> None:
    """Rename a file or a folder to `place`, and remove what was there. Raise `OSError`."""
    if place.is_dir():
        remove_at_once(place)
    os.replace(new, place)


def put_new(new: Path, place: Path) -> None:
    """Rename a file or a folder to `place`. Raise `FileExistsError` if a file or a folder with content is there."""
    try:
        if new.is_dir():
            os.rename(new, place)  # replaces an empty folder, and nothing else
        else:
            os.link(new, place)  # unlike a rename, it never replaces a file
    except OSError as error:
        is_file = not new.is_dir()
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR) or (is_file and os.path.lexists(place)):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(place)) from None
        if not is_file:
            raise
        os.rename(new, place)  # on a file system without links


@contextlib.contextmanager
def written_beside(place: Path, prefix: str = ".", put: Callable[[Path, Path], None] = replace_path) -> Iterator[Path]:
    """Yield a temporary path beside `place` for a new file or folder, and move it to `place` at the end with `put`.

    `replace_path` replaces what is there, `put_new` never does. After an error nothing is left beside `place`.
    """
    beside = name_beside(place, prefix)
    try:
        yield beside
        put(beside, place)
    finally:
        remove(beside)


@contextlib.contextmanager
def open_atomic(file: Path) -> Iterator[BinaryIO]:
    """Open a new binary file, which replaces the file at the end of the block. After an error `file` is as it was.

    Raise `OSError` if a folder is there.
    """
    with written_beside(file, put=os.replace) as beside, beside.open("wb") as opened:
        yield opened


def write_durably(file: Path, content: bytes) -> None:
    """Write a file and return when it is on the disk. Without this a power failure may leave it empty."""
    with file.open("wb") as opened:
        opened.write(content)
        opened.flush()
        os.fsync(opened.fileno())


def write_all(file: RawIOBase, content: memoryview) -> int:
    """Write all bytes to a file without a buffer, and return their number. Raise `OSError`."""
    done = 0
    while done < len(content):  # a signal or a full disk may end one call half-way
        done += file.write(content[done:]) or 0
    return done


def sync_folder(folder: Path) -> None:
    """Write the names in a folder to the disk, and return when they are there."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_at_once(path: Path, prefix: str = ".") -> None:
    """Rename a file or a folder and remove it then, so that a kill leaves no half of it under its name.

    `prefix` begins the name that a kill may leave behind. Nothing happens where the path cannot be renamed.
    """
    gone = name_beside(path, prefix)
    with contextlib.suppress(OSError):
        path.rename(gone)
        remove(gone)


def remove(path: Path) -> None:
    """Remove a file or a folder if possible; errors of the operating system are ignored."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def hash_bytes(content: bytes) -> str:
    """Return the sha256 of bytes in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def hash_file(file: Path, algorithm: Callable[[], "hashlib._Hash"] = hashlib.sha256) -> str:
    """Return the hexadecimal digest of a file's bytes. Raise `OSError`."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, algorithm).hexdigest()


@contextlib.contextmanager
def write_errors(file: str | Path, failure: type[MvsslError] = StorageError, hint: str = "") -> Iterator[None]:
    """Turn errors of writing `file` inside the block into errors of mvssl that give the reason.

    Raise `StorageError` if writing ended half-way, for example on a full disk. Raise `failure` for other errors of the
    operating system. Errors that do not come from writing are raised unchanged.
    """
    try:
        yield
    except OSError as error:
        kind = StorageError if error.errno in HALF_WAY else failure
        why = error.strerror or error
        if isinstance(error, FileExistsError | NotADirectoryError):
            why = f"{error.filename} is no folder"
        raise kind(f"{file} cannot be written: {why}{hint}") from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in WRITERS:
            raise
        raise StorageError(f"{file} cannot be written: {error}{hint}") from error


def write_picture(figure: "Figure", file: str | Path, hint: str = "") -> Path:
    """Write a matplotlib figure as a PNG for any suffix of `file`. Raise `OutputError` or `StorageError`."""
    image = io.BytesIO()
    figure.savefig(image, format="png")
    write_file(file, image.getvalue(), OutputError, hint)
    return Path(file)


def parse_json(text: str) -> Any:
    """Return the value of a JSON text, or None if it is not valid, too deep, or has a number of thousands of digits."""
    try:
        value = json.loads(text)
        if "\\ud" in text.lower():  # a lone surrogate becomes ?, because it cannot be written or printed
            value = json.loads(json.dumps(value, ensure_ascii=False).encode(errors="replace"))
        return value
    except (ValueError, RecursionError):
        return None


def read_json(file: Path) -> Any:
    """Return the value of a JSON file, or None if it cannot be read or `parse_json` returns None."""
    try:
        return parse_json(file.read_text(errors="replace"))
    except OSError:
        return None


def expand_home(path: str) -> str:
    """Return the path with ~ or ~USER expanded. Raise `ValueError` if the user or the home folder is unknown."""
    kind, rest = re.fullmatch(r"((?:[a-z]+:)?)(.*)", path, re.DOTALL).groups()  # pyright: ignore[reportOptionalMemberAccess]
    if not rest.startswith("~"):
        return path
    expanded = os.path.expanduser(rest)
    if expanded.startswith("~"):
        user = rest.partition("/")[0]
        why = "no home folder is known; set HOME" if user == "~" else f"there is no user {user[1:]!r}"
        raise ValueError(f"{path}: {why}; write {kind}./{rest} if ~ is part of the name")
    return kind + expanded


def home_path(path: str | Path) -> Path:
    """Return the path with ~ or ~USER expanded. Raise `RecipeError`."""
    try:
        return Path(expand_home(str(path)))
    except ValueError as error:
        raise RecipeError(str(error)) from None


def cache_folder() -> Path:
    """Return the folder for files that mvssl can compute again: $MVSSL_CACHE, else ~/.cache/mvssl.

    Without a home folder, as in some containers, it is a private folder of the user in the folder of temporary files.
    Raise `OutputError` if another user made that folder or can read it.
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
        raise OutputError(f"{folder} is open to other users; choose another with MVSSL_CACHE=FOLDER")
    return folder
