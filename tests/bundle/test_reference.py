"""reference.npz: plain enough for a C++ program, read strictly."""

import dataclasses
import functools
import os
import shutil
import struct
import tempfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnx.bundle import Bundle
from cnnx.bundle.reference import REFERENCE_BYTES, Reference, read_reference, self_test_places
from cnnx.bundle.writing import new_bundle, seal
from cnnx.errors import BundleError
from tests.inputs.bundles import manifest

LOCAL = struct.Struct("<4s5H3I2H")
N, CLASSES = 5, 10


def reference():
    random = np.random.default_rng(0)
    return Reference(
        crops=random.integers(0, 255, (N, 4, 4, 1), dtype=np.uint8),
        original=random.normal(size=(N, CLASSES)).astype(np.float32),
        graph=random.normal(size=(N, CLASSES)).astype(np.float32),
        labels=np.arange(N),
        ids=("a.png", "ü/b.png", "", "c", "long name.png"),
        used=("ab" * 32, "cd" * 32),
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    place = tmp_path_factory.mktemp("reference") / "b"
    recipe = {
        "name": "net",
        "model": {"definition": "lenet5", "classes": CLASSES},
        "input": {"shape": [1, 4, 4]},
        "preprocessing": {"color": "gray", "resize": 4, "mean": [0.5], "std": [0.5]},
    }
    with new_bundle(place) as draft:
        (draft / "model.onnx").write_bytes(b"graph")
        (draft / "calibration.json").write_bytes(b"{}")
        reference().save(draft / "reference.npz")
        seal(draft, dataclasses.replace(manifest(), recipe=recipe))
    return place


def members(data):
    """What a C++ program does: walk the local headers, whose sizes are in place."""
    found, at = [], 0
    while data[at : at + 4] == b"PK\x03\x04":
        _, _, flags, method, _, _, crc, packed, size, length, extra = LOCAL.unpack_from(data, at)
        assert (flags, method, packed, extra) == (0, 0, size, 0)
        at += LOCAL.size
        found.append((data[at : at + length].decode(), data[at + length : at + length + size]))
        assert zlib.crc32(found[-1][1]) == crc
        at += length + size
    return found


def archive(parts):
    """Members as a writer without zipfile would put them, and the start of a central directory."""
    out = b""
    for name, content in parts:
        packed = name.encode("latin-1")
        head = (b"PK\x03\x04", 20, 0, 0, 0, 33, zlib.crc32(content), len(content), len(content))
        out += LOCAL.pack(*head, len(packed), 0) + packed + content
    return out + b"PK\x01\x02"


def npy(descr, shape, payload, *, fortran="False", version=b"\x01\x00"):
    header = f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}"
    text = header.encode() + b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text + payload


def resealed(whole, folder, content):
    """The bundle with this file as its self-test, its manifest sealed again."""
    manifest = Bundle.open(whole).manifest
    with new_bundle(folder / "b") as draft:
        for name in manifest.files:
            shutil.copyfile(whole / name, draft / name)
        (draft / "reference.npz").write_bytes(content)
        seal(draft, manifest)
    return Bundle.open(folder / "b")


def test_it_is_read_as_it_was_written_by_us_by_numpy_and_by_hand(tmp_path, whole):
    path = tmp_path / "r.npz"
    reference().save(path)
    back = resealed(whole, tmp_path, path.read_bytes()).reference()
    for field in dataclasses.fields(Reference):
        np.testing.assert_array_equal(getattr(back, field.name), getattr(reference(), field.name))
    with np.load(path) as arrays:
        np.testing.assert_array_equal(arrays["crops"], reference().crops)
    parts = dict(members(path.read_bytes()))
    assert list(parts) == [f"{n}.npy" for n in ("crops", "original", "graph", "ids", "used", "labels")]
    assert parts["crops.npy"].endswith(reference().crops.tobytes())
    reference().save(tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == path.read_bytes()


@given(st.integers(1, 5000), st.integers(1, 300_000))
def test_the_self_test_is_spread_over_the_images_and_fits(images, bytes_each):
    places = self_test_places(images, bytes_each)
    assert 1 <= len(places) <= min(images, 200) and len(set(places.tolist())) == len(places)
    assert len(places) * bytes_each <= REFERENCE_BYTES
    assert places[0] == 0 and places[-1] >= images - -(-images // len(places))
    assert len(self_test_places(1000, 224 * 224 * 3 + 8000)) == 200


def test_an_old_self_test_is_refused_by_name(whole, tmp_path):
    old = {"crops": reference().crops, "logits": reference().original, "ids": np.array(["a"] * N)}
    np.savez_compressed(tmp_path / "old.npz", **old)
    with pytest.raises(BundleError, match=r"cnnx 0\.1") as caught:
        resealed(whole, tmp_path, (tmp_path / "old.npz").read_bytes()).reference()
    assert "export the bundle again" in caught.value.hint


DTYPES = ("'|u1'", "'<f4'", "'>f4'", "'<f8'", "'<i8'", "'|O'", "'<U4'", "[('a', '<f4')]", "'|b1'", "'|V0'")
SHAPES = (
    "()",
    "(0,)",
    "(5,)",
    "(5, 10)",
    "(5, 4, 4, 1)",
    "(-1, 10)",
    "(5, 10, 1)",
    f"({2**62}, {2**62})",
    f"(0, {2**62}, 9)",
    f"(0, {10**26})",
    "x",
)
NAMES = ("crops.npy", "original.npy", "graph.npy", "ids.npy", "used.npy", "labels.npy")


@st.composite
def mutations(draw):
    """A self-test with one thing wrong that its structure has a field for."""
    parts = members(_content())
    which = draw(st.integers(0, len(parts) - 1))
    name, content = parts[which]
    kind = draw(
        st.sampled_from(
            (
                "dtype",
                "shape",
                "order",
                "version",
                "drop",
                "twice",
                "rename",
                "payload",
                "cut",
                "byte",
                "header",
                "value",
            )
        )
    )
    payload = content[128:]
    if kind == "dtype":
        parts[which] = name, npy(draw(st.sampled_from(DTYPES)), f"({N},)", payload)
    elif kind == "shape":
        parts[which] = name, npy("'|u1'", draw(st.sampled_from(SHAPES)), payload)
    elif kind == "order":
        parts[which] = name, content.replace(b"False", b"True ")
    elif kind == "version":
        parts[which] = name, content[:6] + draw(st.binary(min_size=2, max_size=2)) + content[8:]
    elif kind == "drop":
        del parts[which]
    elif kind == "twice":
        parts.insert(which, parts[which])
    elif kind == "rename":
        parts[which] = draw(st.sampled_from(("", "x.npy", "../x.npy", "Crops.npy", *NAMES))), content
    elif kind == "payload":
        parts[which] = name, content + draw(st.binary(min_size=1, max_size=9))
    elif kind == "header":
        parts[which] = name, content[:10] + draw(st.binary(max_size=150)) + payload
    elif kind == "value":
        filler = draw(st.sampled_from((b"\xff", b"\x7f", b"\xc0")))
        parts[which] = name, content[:128] + filler * len(payload)
    data = archive(parts)
    if kind == "cut":
        data = data[: draw(st.integers(0, len(data) - 5))]
    if kind == "byte":
        at = draw(st.integers(0, len(data) - 5))
        data = data[:at] + bytes([data[at] ^ draw(st.integers(1, 255))]) + data[at + 1 :]
    return kind, data


@functools.cache
def _content():
    with tempfile.TemporaryDirectory() as folder:
        reference().save(Path(folder) / "r.npz")
        return (Path(folder) / "r.npz").read_bytes()


@settings(max_examples=300, deadline=None)
@given(mutations())
def test_what_is_wrong_in_it_is_refused_and_never_an_internal_error(tmp_path_factory, mutation):
    kind, data = mutation
    path = tmp_path_factory.mktemp("mutated") / "reference.npz"
    path.write_bytes(data)
    try:
        back = read_reference(path, shape=(1, 4, 4), classes=CLASSES)
    except BundleError as error:
        assert error.exit_code == 3 and "reference.npz" in error.what and error.hint
    else:
        # Labels may be left out; pixels and digests may be any bytes; a date or version of ZIP's is not read.
        assert kind in ("drop", "value", "byte", "rename", "dtype", "shape")
        assert back.crops.shape == (N, 4, 4, 1) and np.isfinite(back.original).all()


def changed(which, make):
    """The self-test with other content for one member; None leaves it out."""
    parts = [(name, make(content) if name == which else content) for name, content in members(_content())]
    return archive([(name, content) for name, content in parts if content is not None])


def with_field(data, place, value, size=2):
    """The first local header with another value at an offset."""
    return data[:place] + value.to_bytes(size, "little") + data[place + size :]


def labels(*values):
    return changed("labels.npy", lambda _: npy("'<i8'", "(5,)", np.array(values, "<i8").tobytes()))


FLAWS = {
    "no zip": (lambda: b"something else", "it is not a ZIP file, or it is truncated"),
    "empty": (lambda: b"", "it is not a ZIP file, or it is truncated"),
    "no directory": (lambda: _content()[: _content().index(b"PK\1\2")], "it is not a ZIP file"),
    "end in a header": (lambda: _content()[: LOCAL.size - 1], "it ends inside a header"),
    "end in a name": (lambda: _content()[: LOCAL.size + 8], "it ends inside a header"),
    "end after a name": (lambda: _content()[: LOCAL.size + 9], "crops.npy is truncated"),
    "end in a member": (lambda: _content()[:200], "crops.npy is truncated"),
    "flags": (lambda: with_field(_content(), 6, 8), "crops.npy is compressed or streamed"),
    "method": (lambda: with_field(_content(), 8, 8), "crops.npy is compressed or streamed"),
    "sizes": (lambda: with_field(_content(), 18, 1, 4), "crops.npy is compressed or streamed"),
    "checksum": (lambda: with_field(_content(), 14, 1, 4), "crops.npy has a wrong checksum"),
    "twice": (lambda: archive(members(_content())[:1] * 2), "crops.npy is duplicated"),
    "unknown": (lambda: archive([("x.npy", b"")]), "'x.npy' is not a known member"),
    "no header": (lambda: archive([("crops.npy", b"\x93NUMPY\1\0\1")]), "crops.npy is not a .npy file"),
    "other version": (
        lambda: changed("used.npy", lambda c: c[:6] + b"\2\0" + c[8:]), "used.npy is not a .npy file"
    ),
    "type": (
        lambda: changed("ids.npy", lambda c: c.replace(b"|u1", b"|i1")),
        r"ids.npy should be a plain array of uint8 \(\|u1\)",
    ),
    "too few values": (lambda: changed("graph.npy", lambda c: c[:-4]), "graph.npy does not have the"),
    "too many values": (
        lambda: changed("graph.npy", lambda c: c + bytes(4)), "graph.npy does not have the number of values"
    ),
    "huge and empty": (
        lambda: changed("used.npy", lambda _: npy("'|u1'", f"({2**62}, 0)", b"")),
        "used.npy does not have the number of values of its shape",
    ),
    **{
        f"without {name}": (lambda name=name: changed(name, lambda _: None), f"{name} is missing")
        for name in NAMES if name != "labels.npy"
    },
    "fewer logits": (
        lambda: changed("graph.npy", lambda _: npy("'<f4'", "(5, 9)", bytes(180))),
        r"graph.npy has the shape \(5, 9\), not \(5, 10\)",
    ),
    "fewer images": (
        lambda: changed("original.npy", lambda _: npy("'<f4'", "(4, 10)", bytes(160))),
        r"original.npy has the shape \(4, 10\), not \(5, 10\)",
    ),
    "more axes": (
        lambda: changed("ids.npy", lambda _: npy("'|u1'", "(5, 1, 1)", bytes(5))),
        r"ids.npy has the shape \(5, 1, 1\), not \(5, any\)",
    ),
    "short digests": (
        lambda: changed("used.npy", lambda _: npy("'|u1'", "(2, 31)", bytes(62))),
        r"used.npy has the shape \(2, 31\), not \(any, 32\)",
    ),
    "no images": (
        lambda: archive(
            [
                (name, npy(f"'{kind}'", f"({', '.join(map(str, shape))},)", b""))
                for name, kind, shape in [
                    ("crops.npy", "|u1", (0, 4, 4, 1)), ("original.npy", "<f4", (0, 10)),
                    ("graph.npy", "<f4", (0, 10)), ("ids.npy", "|u1", (0, 9)), ("used.npy", "|u1", (0, 32)),
                ]
            ]
        ),
        "it contains no images",
    ),
    "not finite": (
        lambda: changed("original.npy", lambda c: c[:-4] + np.float32(np.inf).tobytes()),
        "original.npy has non-finite values",
    ),
    "below the classes": (lambda: labels(0, 1, -1, 2, 3), "labels.npy has a class outside 0..9"),
    "beyond the classes": (lambda: labels(0, 1, 10, 2, 3), "labels.npy has a class outside 0..9"),
    "no text": (
        lambda: changed("ids.npy", lambda c: c[:-1] + b"\xff"), "ids.npy has a name that is not UTF-8"
    ),
}  # fmt: skip


@pytest.mark.parametrize("flaw", FLAWS)
def test_each_flaw_is_named(tmp_path, flaw):
    make, said = FLAWS[flaw]
    path = tmp_path / "reference.npz"
    path.write_bytes(make())
    with pytest.raises(BundleError, match=f"^reference.npz is damaged: {said}") as refusal:
        read_reference(path, shape=(1, 4, 4), classes=CLASSES)
    assert refusal.value.where == str(path) and "export it again" in refusal.value.hint


def test_what_is_at_a_limit_is_read(tmp_path):
    path = tmp_path / "reference.npz"
    for data in (
        labels(0, 9, 9, 0, 1),
        changed("labels.npy", lambda _: None),
        changed("graph.npy", lambda c: c[:-4] + np.float32(np.nan).tobytes()),
        changed("used.npy", lambda _: npy("'|u1'", "(0, 32)", b"")),
        _content(),
    ):
        path.write_bytes(data)
        assert read_reference(path, shape=(1, 4, 4), classes=CLASSES).ids == reference().ids
    os.truncate(path, 2 * REFERENCE_BYTES)
    assert read_reference(path, shape=(1, 4, 4), classes=CLASSES).ids == reference().ids
    os.truncate(path, 2 * REFERENCE_BYTES + 1)
    with pytest.raises(BundleError, match="it has 67,108,865 bytes; the maximum is 67,108,864"):
        read_reference(path, shape=(1, 4, 4), classes=CLASSES)
    path.write_bytes(with_field(_content(), 4, 45) + b"logits.npy" + bytes(2000))
    assert read_reference(path, shape=(1, 4, 4), classes=CLASSES).used == reference().used


def test_names_and_digests_may_be_none(tmp_path):
    bare = dataclasses.replace(reference(), ids=("",) * N, used=(), labels=None)
    bare.save(tmp_path / "reference.npz")
    back = read_reference(tmp_path / "reference.npz", shape=(1, 4, 4), classes=CLASSES)
    assert (back.ids, back.used, back.labels) == (bare.ids, (), None)
