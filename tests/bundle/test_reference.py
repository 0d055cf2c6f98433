"""reference.npz: plain enough for a C++ program, read strictly."""

import dataclasses
import functools
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
from cnnx.bundle.reference import REFERENCE_BYTES, Reference, self_test_places
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
def test_what_is_wrong_in_it_is_refused_and_never_an_internal_error(whole, tmp_path_factory, mutation):
    kind, data = mutation
    bundle = resealed(whole, tmp_path_factory.mktemp("mutated"), data)
    try:
        back = bundle.reference()
    except BundleError as error:
        assert error.exit_code == 3 and "reference.npz" in error.what and error.hint
    else:
        # Labels may be left out; pixels and digests may be any bytes; a date or version of ZIP's is not read.
        assert kind in ("drop", "value", "byte", "rename", "dtype", "shape")
        assert back.crops.shape == (N, 4, 4, 1) and np.isfinite(back.original).all()
