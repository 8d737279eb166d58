"""One strict pass over the headers of a tar.

in   an open shard; ustar, GNU (long names) and PAX (path, size) archives
out  name, offset and size of every regular file, and a digest of all headers; or a `DataError` that names the fault

A streaming reader takes a damaged header for the end of the archive and silently loses what follows. Here every
header's checksum must hold and every member must end inside the file. After the last member there must be zeros only,
and no more of them than tar writes. File bodies are skipped, not read.
"""

import hashlib
import re
import sys
import zlib
from collections.abc import Generator, Iterator
from typing import Any, NamedTuple

from mvssl.data.shards.shard_file import ShardFile
from mvssl.errors import DataError
from mvssl.text import printable

BLOCK = 512
LONGEST_NAME = 255  # bytes
_MOST_ZEROS = (2 + 20) * BLOCK  # the end mark, then tar fills its last record; a power failure fills far more
_ZERO = bytes(BLOCK)
_MOST_EXTENDED = 1 << 20  # bytes of the largest extended header that is accepted
_PLAIN_FILE = b"0\0007"  # types of members
_USUAL = re.compile(  # name of at most 99 ASCII characters, size, checksum, type 0; neither link nor prefix
    rb"(?=([\x01-.0-\x7f][\x01-\x7f]{0,98})\0).{124}([0-7]{11})\0.{12}([0-7]{6}\0 )0\0{100}.{88}\0{167}", re.DOTALL
)
_HASHED = 512  # headers that are hashed at once
_WINDOW = 1 << 16  # bytes that are read at once where members are small
_COMPRESSED = {
    b"\x1f\x8b": "gunzip",
    b"BZh": "bunzip2",
    b"\xfd7zXZ\0": "unxz",
    b"\x28\xb5\x2f\xfd": "unzstd",
    b"\x04\x22\x4d\x18": "unlz4",
    b"PK\x03\x04": "unzip",  # its files are then written with tar
}


class Member(NamedTuple):
    name: str
    offset: int  # of the body, in bytes
    size: int  # bytes
    start: int  # of its first header, in bytes; one block before the body, unless the name is long


class Archive:
    """The members of a tar. After iteration, `digest` holds the hash of all headers.

    Iteration reads the full tar, `between` and `check_end` a part of it. They raise `DataError` if it is damaged,
    cut short, compressed, or holds what a shard may not hold, and `StorageError` if the disk fails.
    """

    def __init__(self, shard: ShardFile):
        self._shard, self._size = shard, shard.stamp().size
        self._window, self._window_start = b"", 0  # the part of the file that was read last
        self.end = 0  # of the last member, where the end mark begins
        self._hash = hashlib.blake2b(digest_size=16)

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()

    def __iter__(self) -> Iterator[Member]:
        if self._size == 0:
            raise self._fault(0, "the file is empty")
        self.end = yield from self._members(0, self._size)
        self.check_end(self.end)

    def between(self, start: int, stop: int, most: int = sys.maxsize) -> list[Member]:
        """Return the members that fill the file from `start` to `stop`, or the first `most` of them.

        Raise `DataError` if something there is no member, or if the last one does not end at `stop`.
        """
        part, members = [], self._members(start, stop)
        try:
            while len(part) < most:
                part.append(next(members))
        except StopIteration as end:
            if end.value != stop:
                raise self._fault(end.value, f"no member ends at byte {stop}") from None
        return part

    def _members(self, start: int, stop: int) -> Generator[Member, None, int]:
        """Yield members, and return where the last one ends."""
        position, first, extended, headers = start, start, {}, []
        length = BLOCK  # of the member before
        while position < stop and (header := self._header(position, length)) != _ZERO:
            headers.append(header)
            if len(headers) == _HASHED:
                self._hash.update(b"".join(headers))
                headers.clear()
            usual = None if extended else read_usual_header(header)
            if usual is not None and (following := position + BLOCK + padded(usual[1])) <= self._size:
                name, size = usual
                yield Member(name, position + BLOCK, size, first)
                length, position = following - position, following
                first = following
                continue
            self._check(header, position)
            kind = header[156:157]
            size = extended.get("size", -1) if kind in _PLAIN_FILE and "size" in extended else _number(header[124:136])
            body = position + BLOCK
            following = body + padded(size)
            if size < 0 or following > self._size:
                raise self._fault(position, f"a member of {size} bytes reaches past the end; the shard is cut short")
            if kind in b"xgLK":
                self._hash.update(b"".join(headers))
                headers.clear()
                extended.update(self._extended(kind, body, size, position))
            elif kind in _PLAIN_FILE:
                name = self._checked_name(extended.get("path") or _name(header), position)
                yield Member(name, body, size, first)
                first, extended = following, {}
            elif kind == b"5":
                first, extended = following, {}
            else:
                raise self._fault(
                    position,
                    f"a member of type {kind.decode('latin-1')!r}; shards hold plain files "
                    "(write links as files: tar --dereference --hard-dereference)",
                )
            length, position = following - position, following
        self._hash.update(b"".join(headers))
        return position

    def _header(self, position: int, length: int) -> bytes:
        """Return the block at `position`. Where members are small, as the one before with `length` bytes, read more."""
        begin = position - self._window_start
        if not 0 <= begin <= len(self._window) - BLOCK:
            self._window = self._shard.read(_WINDOW if 8 * length < _WINDOW else BLOCK, position)
            self._window_start, begin = position, 0
            if len(self._window) < BLOCK:
                raise self._fault(position, "no end-of-archive mark; the shard is cut short")
        return self._window[begin : begin + BLOCK]

    def _read(self, position: int, size: int) -> bytes:
        block = self._shard.read(size, position)
        if len(block) < size:
            raise self._fault(position, "no end-of-archive mark; the shard is cut short")
        return block

    def _check(self, header: bytes, position: int) -> None:
        if position == 0:
            for magic, program in _COMPRESSED.items():
                if header.startswith(magic):
                    raise self._fault(0, f"it is compressed; samples are read by their place, so unpack it ({program})")
        if _checksum(header) != _number(header[148:156]):
            raise self._fault(position, "no tar header, or a damaged one")

    def _extended(self, kind: bytes, body: int, size: int, position: int) -> dict[str, Any]:
        """Return path and size that a PAX ('x', 'g') or GNU ('L', 'K') header gives the member that follows it."""
        if size > _MOST_EXTENDED:
            raise self._fault(position, f"an extended header of {size} bytes")
        text = self._read(body, size)
        self._hash.update(text)
        if kind == b"L":
            return {"path": text.rstrip(b"\0")}
        if kind == b"K":
            return {}
        try:
            records = dict(_pax_records(text))
            known: dict[str, Any] = {name: records[name] for name in ("path", "size") if name in records}
            if "size" in known:
                known["size"] = int(known["size"])
        except (ValueError, IndexError):
            raise self._fault(position, "a damaged PAX header") from None
        if any(name.startswith("GNU.sparse") for name in records) or (kind == b"g" and known):
            raise self._fault(position, "a sparse file or a global path, which shards may not hold")
        return known

    def _checked_name(self, raw: bytes, position: int) -> str:
        try:
            name = raw.decode()
        except UnicodeDecodeError:
            raise self._fault(position, f"the name {raw!r} is not UTF-8") from None
        if not name or "\0" in name or name.startswith("/") or ".." in name.split("/") or len(raw) > LONGEST_NAME:
            what = f"the name {name[:80]!r} is not a relative path of at most {LONGEST_NAME} bytes"
            raise self._fault(position, what)
        return name

    def check_end(self, position: int) -> None:
        """Raise `DataError` unless the archive ends at `position`."""
        if self._size - position < 2 * BLOCK or self._size % BLOCK:
            raise self._fault(position, "the end-of-archive mark is incomplete; the shard is cut short")
        for place in range(position, self._size, 1 << 20):
            block = self._shard.read(1 << 20, place)
            if block.count(0) != len(block):
                raise self._fault(place, _after_end(block))
        zeros = self._size - position
        if zeros > _MOST_ZEROS:
            raise self._fault(
                position,
                f"{zeros:,} bytes of zeros, where tar writes at most {_MOST_ZEROS:,}; members are lost there, unless "
                "the shard was written with `tar -b` (then write it again without)",
            )

    def _fault(self, position: int, what: str) -> DataError:
        return DataError(f"shard {printable(str(self._shard.path))} is damaged or no shard, at byte {position}: {what}")


def _after_end(block: bytes) -> str:
    """Return what follows the end mark: another archive, or the rest of this one."""
    blocks = (block[at : at + BLOCK] for at in range(0, len(block), BLOCK))
    first = next(each for each in blocks if each.count(0) != len(each))
    if len(first) == BLOCK and first[257:262] == b"ustar" and _checksum(first) == _number(first[148:156]):
        return (
            "data after the end-of-archive mark. If tars were joined (cat a.tar b.tar), keep them as separate shards, "
            "or join them with tar --concatenate; otherwise a header was overwritten with zeros"
        )
    return "data after the end-of-archive mark; a header was overwritten with zeros"


def read_usual_header(header: bytes) -> tuple[str, int] | None:
    """Return name and size of a plain file with a valid header in its usual form; None for any other block.

    In this form most of the header is empty. So the sum of its bytes is below the modulus of Adler-32, whose lower half
    is then one more than the sum: Python takes ten times as long to add them.
    """
    found = _USUAL.fullmatch(header)
    if found is None:
        return None
    name, size, checksum = found.groups()
    if zlib.adler32(header) & 0xFFFF != int(checksum[:6], 8) + 1 + sum(checksum) - 8 * 32 or b".." in name:
        return None
    return name.decode(), int(size, 8)


def padded(size: Any) -> Any:
    """Return the bytes that a body of `size` takes: full blocks. `size` is an int, or an array of them."""
    return (size + BLOCK - 1) & -BLOCK  # a division takes numpy several times as long


def plain_member(header: bytes) -> tuple[str, int] | None:
    """Return name and size of the plain file whose only header this is; None for another kind of block."""
    if header[156:157] not in (b"0", b"\0", b"7") or len(header) != BLOCK:
        return None
    try:
        return _name(header).decode(), _number(header[124:136])
    except UnicodeDecodeError:
        return None


def has_name(header: bytes, name: bytes, size: int) -> bool:
    """Return True if this is surely the only header of a plain file of that name and size. False means unknown."""
    return (
        header.startswith(name + b"\0")
        and header[124:136] == b"%011o\0" % size
        and header[156:157] == b"0"
        and header[345] == 0  # no beginning of the name is stored elsewhere
    )


def is_nameless_pax(headers: bytes) -> bool:
    """Return whether this is one PAX header that gives its member neither a name nor a size, but times and the like.

    `webdataset.TarWriter` and `tar --format=posix` write one before each member.
    """
    if headers[156:157] != b"x" or len(headers) != BLOCK + padded(_number(headers[124:136])):
        return False
    return not any(word in headers for word in (b"path=", b"size=", b"GNU.sparse"))


def _checksum(header: bytes) -> int:
    """Return the sum of all bytes, where the checksum's own field counts as eight spaces."""
    return sum(header) - sum(header[148:156]) + 8 * 32


def _number(field: bytes) -> int:
    """Return an octal number, or GNU's base 256 for large ones; -1 if it is neither."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    try:
        return int(field.split(b"\0", 1)[0].strip() or b"0", 8)
    except ValueError:
        return -1


def _name(header: bytes) -> bytes:
    name, prefix = header[:100].split(b"\0", 1)[0], header[345:500].split(b"\0", 1)[0]
    # GNU archives keep other data at the place of the prefix
    return prefix + b"/" + name if prefix and header[257:263] == b"ustar\0" else name


def _pax_records(text: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield name and value of records "LENGTH NAME=VALUE\\n", where LENGTH counts the full record."""
    while text:
        length = int(text.split(b" ", 1)[0])
        record = text[:length]
        if length <= 0 or not record.endswith(b"\n"):
            raise ValueError
        name, equals, value = record.split(b" ", 1)[1][:-1].partition(b"=")
        if not equals:
            raise ValueError
        yield name.decode(), value
        text = text[length:]
