"""Mutations of image files: chunks of PNG, segments of JPEG, and the headers of the others."""

from __future__ import annotations

import struct
import zlib
from random import Random

from tools.check.fuzz.mutators import octets

_PNG = b"\x89PNG\r\n\x1a\n"
_SIDES = (0, 1, 2, 9, 4096, 7071, 7072, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1)
_HEADER = 64


def edit(dice: Random, content: bytes) -> tuple[bytes, str]:
    """One mutation of an image file, and its name."""
    kind = dice.random()
    if kind < 0.4:
        return octets.damage(dice, content)
    if content.startswith(_PNG) and kind < 0.9:
        return _png(dice, content)
    if content.startswith(b"\xff\xd8") and kind < 0.9:
        return _jpeg(dice, content)
    if kind < 0.5:
        return _foreign_start(dice, content), "start of another format"
    return octets.number(dice, content, within=_HEADER), "number in header"


def _png(dice: Random, content: bytes) -> tuple[bytes, str]:
    """A chunk is changed, missing, twice there or elsewhere; most have a checksum that fits."""
    chunks, at = [], len(_PNG)
    while at + 8 <= len(content):
        (length,) = struct.unpack(">I", content[at : at + 4])
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += 12 + length
    index, other = dice.randrange(len(chunks)), dice.randrange(len(chunks))
    name, data = chunks[index]
    match dice.randrange(6):
        case 0:
            chunks[0] = (b"IHDR", _other_header(dice, chunks[0][1]))
            how = "header"
        case 1 if data:
            chunks[index] = (name, octets.damage(dice, data)[0])
            how = f"chunk {name.decode()}"
        case 2:
            del chunks[index]
            how = "missing chunk"
        case 3:
            chunks.insert(other, chunks[index])
            how = "chunk twice"
        case 4:
            bomb = zlib.compress(bytes(20 << 20))
            made = (
                (b"zTXt", b"a\0\0" + bomb),
                (b"iCCP", b"a\0\0" + bomb),
                (b"IDAT", bomb),
                (b"tRNS", b"\0" * 700),
            )
            chunks.insert(max(1, other), dice.choice(made))
            how = "chunk added"
        case _:
            chunks[index], chunks[other] = chunks[other], chunks[index]
            how = "chunks swapped"
    fit = dice.random() < 0.9
    return _PNG + b"".join(_chunk(*each, fit=fit) for each in chunks), how if fit else f"{how}, no checksum"


def _other_header(dice: Random, header: bytes) -> bytes:
    fields = list(struct.unpack(">IIBBBBB", header))
    place = dice.randrange(7)
    fields[place] = dice.choice(_SIDES) if place < 2 else dice.choice((0, 1, 2, 3, 4, 6, 8, 16, 255))
    return struct.pack(">IIBBBBB", *fields)


def _chunk(name: bytes, data: bytes, *, fit: bool) -> bytes:
    checksum = zlib.crc32(name + data) if fit else 0
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", checksum)


def _jpeg(dice: Random, content: bytes) -> tuple[bytes, str]:
    """A segment before the scan is changed, missing or twice there, or has another length."""
    segments, at = [], 2
    while content[at : at + 1] == b"\xff" and content[at + 1] != 0xDA:
        (length,) = struct.unpack(">H", content[at + 2 : at + 4])
        segments.append(content[at : at + 2 + length])
        at += 2 + length
    scan, index = content[at:], dice.randrange(len(segments))
    segment = segments[index]
    match dice.randrange(5):
        case 0:
            segments[index] = segment[:4] + (octets.damage(dice, segment[4:])[0] if segment[4:] else b"")
            how = "segment"
        case 1:
            del segments[index]
            how = "missing segment"
        case 2:
            segments.insert(index, segment)
            how = "segment twice"
        case 3:
            segments[index] = (
                segment[:2] + struct.pack(">H", dice.choice(octets.LENGTHS) % 2**16) + segment[4:]
            )
            how = "length of segment"
        case _:
            frames = [place for place, each in enumerate(segments) if 0xC0 <= each[1] <= 0xC2]
            if frames:
                side = struct.pack(">H", dice.choice(_SIDES) % 2**16)
                start = dice.choice((5, 7))
                frame = segments[frames[0]]
                segments[frames[0]] = frame[:start] + side + frame[start + 2 :]
            how = "size"
    return content[:2] + b"".join(segments) + scan, how


def _foreign_start(dice: Random, content: bytes) -> bytes:
    starts = (
        _PNG, b"\xff\xd8\xff", b"GIF89a", b"BM", b"II*\0", b"MM\0*", b"RIFF\0\0\0\0WEBPVP8L", b"P6\n",
        b"P5\n9 9\n255\n", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n", b"icns\0\0\0\x10",
        b"\0\0\1\0\1\0", b"8BPS",
    )  # fmt: skip
    start = dice.choice(starts)
    return start + content[len(start) :]
