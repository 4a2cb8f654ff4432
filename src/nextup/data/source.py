"""Files as blocks of whole lines: opened, checksummed, unzipped and decoded in one pass."""

from __future__ import annotations

import codecs
import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nextup.errors import InputError

GZIP = b"\x1f\x8b"
BLOCK_BYTES = 16 << 20
LONGEST_LINE = 64 << 20
OTHER_FORMATS = {
    b"PK\x03\x04": "a ZIP archive (unzip it first)",
    b"BZh": "a bzip2 file (unpack it first)",
    b"\xfd7zXZ": "an xz file (unpack it first)",
    b"\x28\xb5\x2f\xfd": "a zstd file (unpack it first)",
    b"PAR1": "a Parquet file (pass --format parquet)",
    b"\x93NUMPY": "a numpy array",
    b"%PDF": "a PDF document",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"GIF87a": "a GIF picture",
    b"GIF89a": "a GIF picture",
    b"SQLite format 3\0": "an SQLite database (export the table first)",
    b"\x89HDF": "an HDF5 file (export the table first)",
    b"\xd0\xcf\x11\xe0": "an old Office document (export the table as CSV)",
    b"Obj\x01": "an Avro file (convert it to Parquet)",
    b"\x7fELF": "a program",
}


def check_file(path: Path) -> None:
    """Raise `InputError` unless `path` is a file that can be read and is not empty."""
    try:
        if path.is_dir():
            if (path / "card.json").is_file():
                raise InputError(
                    f"{path}: is a prepared dataset already; use it as it is "
                    "(nextup.Dataset.load in Python)"
                )
            raise InputError(f"{path}: is a directory; give the file in it that holds the log")
        if not path.exists():
            near = sorted(p.name for p in path.parent.glob(f"{path.name}*") if p.is_file())
            also = f"; did you mean `{path.parent / near[0]}`?" if near else "; check the path"
            raise InputError(f"{path}: there is no such file{also}")
        with path.open("rb") as file:
            if not file.read(1):
                raise InputError(f"{path}: is empty; give a file with at least one interaction")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path}: cannot be read ({reason}); check the path") from error


def plain_suffix(path: Path) -> str:
    """Return the extension in lower case, less a final ``.gz``: ``"csv"`` of ``a.CSV.gz``."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    return suffixes[-1][1:] if suffixes else ""


@dataclass
class Fingerprint:
    """What is known of a file's bytes once they have been read through."""

    name: str
    bytes: int = 0
    sha256: str = ""


def raw_bytes(path: Path, fingerprint: Fingerprint | None = None) -> Iterator[bytes]:
    """Yield the file's bytes, unzipped where it is a gzip file, in pieces of a few MB.

    Raises
    ------
    InputError
        If the file cannot be read, or its gzip data is truncated or damaged.
    """
    checksum = hashlib.sha256()
    size = 0
    inflate = None
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == GZIP
            file.seek(0)
            while piece := file.read(4 << 20):
                checksum.update(piece)
                size += len(piece)
                if not zipped:
                    yield piece
                    continue
                while piece:
                    inflate = inflate or zlib.decompressobj(wbits=31)
                    out = inflate.decompress(piece, BLOCK_BYTES)
                    if out:
                        yield out
                    piece = inflate.unconsumed_tail
                    if inflate.eof:
                        # Members may follow one another, and zeros may pad the end.
                        piece = inflate.unused_data.lstrip(b"\0")
                        inflate = None
            if inflate is not None:
                raise InputError(
                    f"{path}: the gzip data is truncated; fetch or make the file again"
                )
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except zlib.error as error:
        raise InputError(
            f"{path}: the gzip data is damaged ({error}); fetch or make the file again"
        ) from error
    if fingerprint is not None:
        fingerprint.bytes, fingerprint.sha256 = size, checksum.hexdigest()


def all_bytes(path: Path, fingerprint: Fingerprint | None = None) -> bytes:
    """Return the whole content, unzipped."""
    return b"".join(raw_bytes(path, fingerprint))


@dataclass(frozen=True)
class Block:
    """Whole lines of UTF-8 text, each ending in one line feed.

    Parameters
    ----------
    text
        The bytes.
    line
        The number of the first line, counted from 1.
    """

    text: bytes
    line: int


def blocks(
    path: Path,
    encoding: str = "utf-8",
    fingerprint: Fingerprint | None = None,
    size: int = BLOCK_BYTES,
    remedy: str = "--encoding ISO-8859-1",
    quoted: bool = False,
) -> Iterator[Block]:
    """Yield the text of a file in blocks of whole lines.

    Parameters
    ----------
    path
        A text file, gzipped or not.
    encoding
        What its bytes mean; the blocks are UTF-8 whatever it is.
    fingerprint
        Filled in when the file has been read to its end.
    size
        Bytes a block has at least (but for the last).
    remedy
        The setting to name when the bytes are not of that encoding.
    quoted
        Whether a line feed inside double quotes does not end a row (CSV).

    Raises
    ------
    InputError
        If the file is empty, binary, not of that encoding, or a line is absurdly long.
    """
    decoder = _decoder(encoding, remedy)
    line = 1
    rest = b""
    empty = True
    for piece in raw_bytes(path, fingerprint):
        if line == 1 and not rest:
            _refuse_binary(path, piece, encoding)
        rest += _to_utf8(path, piece, decoder, rest, line, encoding, remedy, False)
        if len(rest) >= size:
            cut = _end_of_rows(rest, quoted)
            if cut:
                block = _tidy(path, rest[:cut], line)
                empty = empty and not block.text.strip()
                yield block
                line += block.text.count(b"\n")
                rest = rest[cut:]
            elif len(rest) > LONGEST_LINE:
                hint = "an opening quote is never closed" if quoted and b'"' in rest else "no table"
                raise InputError(
                    f"{path}: line {line}: a row is longer than {LONGEST_LINE >> 20} MB; "
                    f"the file is no text table, or {hint}"
                )
    rest += _to_utf8(path, b"", decoder, rest, line, encoding, remedy, True)
    if rest:
        block = _tidy(path, rest if rest.endswith(b"\n") else rest + b"\n", line)
        empty = empty and not block.text.strip()
        yield block
    if empty:
        raise InputError(f"{path}: is empty; give a file with at least one interaction")


def _decoder(encoding: str, remedy: str) -> codecs.IncrementalDecoder:
    try:
        b"text".decode(encoding, "ignore")  # refuses codecs that do not make text
        return codecs.getincrementaldecoder(encoding)()
    except (LookupError, ValueError) as error:
        raise InputError(
            f"encoding `{encoding}` is unknown; use utf-8, or one such as {remedy}"
        ) from error


def _to_utf8(
    path: Path,
    piece: bytes,
    decoder: codecs.IncrementalDecoder,
    rest: bytes,
    line: int,
    encoding: str,
    remedy: str,
    final: bool,
) -> bytes:
    try:
        utf8 = decoder.decode(piece, final).encode()
    except UnicodeError as error:
        start = getattr(error, "start", 0)
        at = line + rest.count(b"\n") + piece[: max(0, start)].count(b"\n")
        raise InputError(
            f"{path}: line {at}: the bytes are not {encoding} text; name the right encoding, "
            f"such as {remedy}"
        ) from error
    return utf8.removeprefix(codecs.BOM_UTF8) if line == 1 and not rest else utf8


def _end_of_rows(text: bytes, quoted: bool) -> int:
    """Return the length of the longest start of `text` that holds whole rows."""
    last = text.rfind(b"\n") + 1
    if not quoted:
        return last
    quotes = text.count(b'"', 0, last)
    end = last
    for _ in range(1000):
        if end == 0 or quotes % 2 == 0:
            return end
        before = text.rfind(b"\n", 0, end - 1) + 1
        quotes -= text.count(b'"', before, end)
        end = before
    return last  # a stray quote inside a field, such as 12" of a record, opens nothing


def _tidy(path: Path, text: bytes, line: int) -> Block:
    if b"\0" in text:
        at = line + text[: text.index(b"\0")].count(b"\n")
        raise InputError(
            f"{path}: line {at}: holds a zero byte, so the file is binary or damaged; give a "
            "text table, or name its format with --format"
        )
    if b"\r" in text:
        text = text.replace(b"\r\n", b"\n")
        if text.count(b"\r") > text.count(b"\n"):  # lines that end in a carriage return alone
            text = text.replace(b"\r", b"\n")
    return Block(text, line)


def _refuse_binary(path: Path, piece: bytes, encoding: str) -> None:
    for magic, what in OTHER_FORMATS.items():
        if piece.startswith(magic):
            raise InputError(f"{path}: is {what}, not a text table")
    if encoding.lower().replace("_", "-").startswith(("utf-16", "utf-32")):
        return
    if piece.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise InputError(f"{path}: is UTF-16 text; pass --encoding utf-16")
    start = piece[:4096]
    odd = sum(byte < 9 or 13 < byte < 27 for byte in start)
    if odd > max(1, len(start) // 33):  # of random bytes it is one in twelve
        raise InputError(
            f"{path}: is binary, not a text table; give a CSV, TSV, JSON lines, Parquet or "
            "S3-Rec text file"
        )
