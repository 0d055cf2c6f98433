"""Malformed bundles: each is refused with a status, and nothing crashes under the sanitizers."""

from __future__ import annotations

import json
import random
import shutil
import struct
import zlib
from collections import Counter

import pytest

from cnnx.bundle.sealed import write_sealed
from cnnx.store.digests import digest_of
from tests.inputs.damage import mutations
from tests.package.cpp.linear import add_engine, linear_bundle, plan

pytestmark = pytest.mark.slow

COUNT = 1100
LOCAL = struct.Struct("<4s5H3I2H")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A small bundle with an engine; five images keep its self-test quick."""
    bundle = linear_bundle(tmp_path_factory.mktemp("whole") / "b", images=5)
    add_engine(bundle, plan())
    return bundle


def json_mutants(bundle, name, dice):
    """Contents of a sealed file with a wrong value, key or seal: sealed again, or not."""
    file = bundle / name
    data = json.loads(file.read_text("utf-8"))
    seal = data.pop("seal")
    for _, _, changed in mutations(data):
        try:
            sealed = {**changed, "seal": digest_of(json.loads(json.dumps(changed)))}
            text = json.dumps(sealed, indent=1, ensure_ascii=False) + "\n"
            yield text.encode("utf-8", "surrogatepass"), None
        except ValueError:
            continue
        if dice.random() < 0.05:
            kept = json.dumps({**changed, "seal": seal}, indent=1, ensure_ascii=False) + "\n"
            yield kept.encode("utf-8", "surrogatepass"), "3"
    text = file.read_bytes()
    for _ in range(60):
        yield damaged(text, dice), "3"
    yield b"[" * 100_000, "3"
    yield json.dumps({"a": [[]] * 3, "seal": digest_of({"a": [[]] * 3})}, indent=1).encode() + b"\n", "3"
    yield text[:-2] + b', "seal": "x"}\n', "3"


def damaged(content, dice):
    """Content with a byte changed, a part repeated, or its end cut off."""
    at = dice.randrange(len(content))
    kind = dice.randrange(3)
    if kind == 0:
        return content[:at] + bytes([content[at] ^ (1 << dice.randrange(8))]) + content[at + 1 :]
    return content[:at] if kind == 1 else content[:at] + content[at // 2 :]


def npz_mutants(content, dice):
    """Self-tests with damaged members: wrong headers, checksums that fit again, members repeated or gone."""
    parts, at = [], 0
    while content[at : at + 4] == b"PK\3\4":
        fields = list(LOCAL.unpack_from(content, at))
        start = at + LOCAL.size
        name = content[start : start + fields[9]]
        data = content[start + fields[9] : start + fields[9] + fields[8]]
        parts.append((fields, name, data))
        at = start + fields[9] + fields[8]

    def packed(members):
        out = b"".join(LOCAL.pack(*fields) + name + data for fields, name, data in members)
        return out + b"PK\1\2"

    def refreshed(fields, data):
        return [*fields[:6], zlib.crc32(data), len(data), len(data), *fields[9:]]

    for index, (fields, name, data) in enumerate(parts):

        def instead(*member, index=index):
            return packed([*parts[:index], tuple(member), *parts[index + 1 :]])

        for place in range(1, 11):
            for value in (0, 1, 7, 0xFFFF, 0xFFFFFFFF):
                size = 0xFFFFFFFF if 6 <= place <= 8 else 0xFFFF
                changed = [*fields[:place], value & size, *fields[place + 1 :]]
                yield instead(changed, name, data)
        for _ in range(25):  # with a checksum that fits: the array itself is read
            broken = damaged(data, dice)
            yield instead(refreshed(fields, broken), name, broken)
            header = damaged(data[:128], dice) + data[128:]
            yield instead(refreshed(fields, header), name, header)
        for shape in (
            b"(99999999999999999999, 5)",
            b"(0,)",
            b"()",
            b"(-1, 5)",
            b"(5, 7, 1, 1)",
            b"(1048576, 1048576)",
        ):
            at = data.index(b"'shape': (") + 9
            text = data[:at] + shape + b", }"
            text = text.ljust(127) + b"\n" + data[128:]
            yield instead(refreshed(fields, text), name, text)
        yield packed(parts[:index] + parts[index + 1 :])
        yield packed([*parts, parts[index]])
        yield instead(fields, b"x" * len(name), data)
    for _ in range(40):
        yield damaged(content, dice)


def with_file(bundle, name, content, *, reseal):
    """Replace a portable file; with `reseal` the manifest states its new hash."""
    import hashlib

    (bundle / name).write_bytes(content)
    if reseal:
        data = json.loads((bundle / "manifest.json").read_text("utf-8"))
        del data["seal"]
        data["files"][name] = hashlib.sha256(content).hexdigest()
        write_sealed(bundle / "manifest.json", data)


def test_a_thousand_malformed_bundles_are_refused_without_a_crash(program, whole, tmp_path):
    dice = random.Random(0)
    engine = "engines/tensorrt-10.3.0-sm87/engine.json"
    reference, labels = (whole / "reference.npz").read_bytes(), (whole / "labels.txt").read_bytes()
    made = [("manifest.json", *each, False) for each in json_mutants(whole, "manifest.json", dice)]
    made = dice.sample(made, 450)
    made += dice.sample([(engine, *each, False) for each in json_mutants(whole, engine, dice)], 250)
    made += dice.sample([("reference.npz", each, None, True) for each in npz_mutants(reference, dice)], 330)
    made += [("labels.txt", damaged(labels, dice), None, True) for _ in range(40)]
    made += [(name, damaged((whole / name).read_bytes(), dice), "3", False)
             for name in ("calibration.json", "labels.txt", "reference.npz") for _ in range(10)]  # fmt: skip
    assert len(made) >= COUNT

    folders = []
    for index, (name, content, _, reseal) in enumerate(made):
        folder = tmp_path / str(index)
        shutil.copytree(whole, folder)
        with_file(folder, name, content, reseal=reseal)
        folders.append(folder)
    done = program("bundles", data="\n".join([*map(str, folders), str(whole)]) + "\n")
    *found, last = done.stdout.splitlines()
    assert len(found) == len(made), done.stderr[-2000:]
    assert last == "0 used"
    for (name, content, expected, _), line in zip(made, found, strict=True):
        status, what = line[0], line[2:]
        assert status in "0234" and what, (name, line)
        if expected is not None and content != (whole / name).read_bytes():
            assert status == expected, (name, content[:200], line)
    # Most mutations hit what the program reads; the others it must ignore.
    statuses = Counter(line[0] for line in found)
    assert statuses["3"] > 600, statuses
