"""The kind of a file, by its ending and by its first bytes."""

_SIGNATURES = (  # first bytes, ending
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpg"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"II*\0", "tif"),
    (b"MM\0*", "tif"),
    (b"II+\0", "tif"),  # BigTIFF
    (b"MM\0+", "tif"),
    (b"BM", "bmp"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "jp2"),
    (b"\xff\x4f\xff\x51", "j2k"),
    (b"\x93NUMPY", "npy"),
    (b"PK\x03\x04", "zip"),
    (b"8BPS", "psd"),
    (b"\x89HDF\r\n\x1a\n", "h5"),
    (b"%PDF", "pdf"),
    (b"\x1f\x8b", "gz"),
)
_TEXT_SIGNATURES = (  # likewise, of text, which may begin with blanks and in either case
    (b"<!doctype html", "html"),
    (b"<html", "html"),
    (b"<?xml", "xml"),
    (b"<svg", "svg"),
    (b"version https://git-lfs", "git-lfs pointer"),
)
_BRANDS = {b"avif": "avif", b"avis": "avif", b"heic": "heic", b"heix": "heic", b"mif1": "heic", b"qt  ": "mov"}
_RIFF = {b"WEBP": "webp", b"WAVE": "wav"}


def extension(name: str) -> str:
    """Return what comes after the last dot of a field or file, in lower case: `depth.PNG` is a png."""
    return name.rpartition(".")[2].lower()


def detect_kind(head: bytes) -> str:
    """Return the ending, such as `png`, of files that begin with `head` (256 bytes); empty if it is unknown."""
    if head[:4] == b"RIFF":
        return _RIFF.get(head[8:12], "")
    if head[4:8] == b"ftyp":
        compatible = [head[place : place + 4] for place in range(16, len(head), 4)]
        avif = any(brand in (b"avif", b"avis") for brand in compatible)
        return "avif" if avif else _BRANDS.get(head[8:12], "mp4")
    if head[:1] == b"P" and head[1:2] in b"123456" and head[2:3].isspace():
        return "ppm"
    if head[128:132] == b"DICM":
        return "dcm"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    kinds = [kind for start, kind in _SIGNATURES if head.startswith(start)]
    kinds += [kind for start, kind in _TEXT_SIGNATURES if text.startswith(start)]
    return kinds[0] if kinds else ""
