"""Mutations of archives: ZIP (also .npz and PyTorch's checkpoints), and safetensors."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable, Mapping
from random import Random

from tools.check.fuzz.mutators import octets, plain

Members = dict[str, bytes]
Edit = Callable[[Random, str, bytes], tuple[bytes, str]]

_NAMES = ("../x", "/x", "", "x" * 300, "é", "a\0b", "data.pkl", "version", ".data/serialization_id")
_SHAPES = (
    "(0,)",
    "()",
    "(-1, 5)",
    "(99999999999999999999, 5)",
    "(1048576, 1048576)",
    "(5, 7, 1, 1)",
    "(1e3,)",
)
_TYPES = ("'|u1'", "'<f4'", "'>f4'", "'<f8'", "'<i8'", "'|O'", "'<M8[s]'", "'|V8'", "[('a', '<f4')]")


def unpacked(content: bytes) -> Members:
    """Name and content of each member."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(members: Mapping[str, bytes], *, method: int = zipfile.ZIP_STORED) -> bytes:
    """An archive whose checksums fit."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, compress_type=method)
    return out.getvalue()


def zip_edit(dice: Random, content: bytes, inside: Edit) -> tuple[bytes, str]:
    """One mutation of a ZIP, and its name.

    Args:
        inside: changes the content of a member, of which it knows the format.
    """
    kind = dice.random()
    if kind < 0.3:
        return octets.damage(dice, content)
    if kind < 0.4:
        return _header(dice, content), "ZIP header"
    members = unpacked(content)
    name = dice.choice(list(members))
    if kind < 0.8:
        changed, how = inside(dice, name, members[name])
        return packed({**members, name: changed}), f"member: {how}"
    match dice.randrange(4):
        case 0:
            del members[name]
            return packed(members), "missing member"
        case 1:
            members[dice.choice((*_NAMES, name + "x"))] = members.pop(name)
            return packed(members), "member renamed"
        case 2:
            return packed(members, method=zipfile.ZIP_DEFLATED), "compressed"
        case _:
            other = dice.choice(list(members))
            members[name], members[other] = members[other], members[name]
            return packed(members), "members swapped"


def npy(dice: Random, _name: str, content: bytes) -> tuple[bytes, str]:
    """One mutation of a .npy file: values, or a header that states another type or shape."""
    kind = dice.randrange(4)
    if kind == 0 or b"'shape': (" not in content:
        return octets.damage(dice, content)
    start = 10 + int.from_bytes(content[8:10], "little")
    if kind == 1:
        return content[:start] + octets.damage(dice, content[start:])[0], "values"
    header = content[10:start].decode("latin-1")
    before, _, after = header.partition("'shape': ")
    if kind == 2:
        header = f"{before}'shape': {dice.choice(_SHAPES)}, }}"
    else:
        order = dice.choice((True, False))
        header = f"{{'descr': {dice.choice(_TYPES)}, 'fortran_order': {order}, 'shape': {after}"
    made = header.rstrip().ljust(start - 11).encode("latin-1") + b"\n"
    return content[:8] + len(made).to_bytes(2, "little") + made + content[start:], "array header"


def safetensors(dice: Random, content: bytes) -> tuple[bytes, str]:
    """One mutation of a safetensors file: its table of tensors in JSON, their values, or any byte."""
    kind = dice.random()
    (length,) = struct.unpack("<Q", content[:8])
    if kind < 0.3:
        return octets.damage(dice, content)
    if kind < 0.4:
        return content[: 8 + length] + octets.damage(dice, content[8 + length :])[0], "values"
    if kind < 0.5:
        other = dice.choice((*octets.LENGTHS, length - 1, length + 1, len(content), 2**63, 2**64 - 1))
        return struct.pack("<Q", other) + content[8:], "length of header"
    header, how = plain.json_text(dice, json.loads(content[8 : 8 + length]))
    return struct.pack("<Q", len(header)) + header + content[8 + length :], f"header: {how}"


def _header(dice: Random, content: bytes) -> bytes:
    """A number in a local or central header is another."""
    starts = [at for mark in (b"PK\3\4", b"PK\1\2", b"PK\5\6") for at in _all(content, mark)]
    at = dice.choice(starts) + dice.randrange(4, 30)
    width = dice.choice((1, 2, 4))
    value = dice.choice(octets.LENGTHS) % (1 << 8 * width)
    return content[:at] + value.to_bytes(width, "little") + content[at + width :]


def _all(content: bytes, mark: bytes) -> list[int]:
    found, at = [], content.find(mark)
    while at >= 0:
        found.append(at)
        at = content.find(mark, at + 1)
    return found
