"""Files that users give: regular, of a limited size, with digests that are those of any other program."""

import errno
import hashlib
import os
from pathlib import Path

import pytest

from cnnx.limits import KEY_PARTS
from cnnx.store.digests import digest_of, digest_of_file
from cnnx.store.reading import open_regular, read_bytes, read_text
from cnnx.store.toml import parse_toml


def test_at_most_so_many_bytes_are_read(tmp_path):
    (tmp_path / "f").write_bytes(b"12345")
    assert read_bytes(tmp_path / "f", most=5) == b"12345"
    with pytest.raises(OSError, match="more than 4 bytes") as refusal:
        read_bytes(tmp_path / "f", most=4)
    assert (refusal.value.errno, refusal.value.filename) == (errno.EFBIG, str(tmp_path / "f"))


def test_text_has_plain_newlines_and_its_encoding(tmp_path):
    (tmp_path / "f").write_bytes("ü\r\nb\rc\n\r\n".encode())
    assert read_text(tmp_path / "f", most=99) == "ü\nb\nc\n\n"
    (tmp_path / "f").write_bytes("ü".encode("latin-1"))
    assert read_text(tmp_path / "f", most=99, encoding="latin-1") == "ü"
    with pytest.raises(UnicodeDecodeError):
        read_text(tmp_path / "f", most=99)


def test_only_regular_files_are_opened_and_none_is_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    handles = len([*Path("/proc/self/fd").iterdir()])
    for place, code, words in (
        (tmp_path / "pipe", errno.EINVAL, "not a regular file"),
        (tmp_path, errno.EISDIR, os.strerror(errno.EISDIR)),
        (tmp_path / "absent", errno.ENOENT, os.strerror(errno.ENOENT)),
    ):
        with pytest.raises(OSError, match=words) as refusal:
            open_regular(place)
        assert (refusal.value.errno, refusal.value.filename) == (code, str(place))
    assert len([*Path("/proc/self/fd").iterdir()]) == handles
    (tmp_path / "f").touch()
    with open_regular(tmp_path / "f") as file:
        assert not os.get_inheritable(file.fileno())


def test_a_digest_is_that_of_canonical_json():
    text = b'{"a":["\\u00fc",null,1.5],"b":{"c":true}}'
    assert digest_of({"b": {"c": True}, "a": ["ü", None, 1.5]}) == hashlib.sha256(text).hexdigest()


@pytest.mark.parametrize("size", [0, 1, 1 << 22, (1 << 22) + 1])
def test_a_files_digest_is_that_of_its_content(tmp_path, size):
    (tmp_path / "f").write_bytes(b"x" * size)
    assert digest_of_file(tmp_path / "f") == hashlib.sha256(b"x" * size).hexdigest()


@pytest.mark.parametrize("divider", [".", " . "])
def test_a_key_has_a_limited_number_of_parts(divider):
    found = parse_toml(f"{divider.join(['a'] * (KEY_PARTS + 1))} = 1")
    for _ in range(KEY_PARTS):
        found = found["a"]
    assert found == {"a": 1}
    with pytest.raises(ValueError, match=f"a key has more than {KEY_PARTS} parts"):
        parse_toml(f"x = 1\n{divider.join(['a', chr(34) + 'b' + chr(34)] * KEY_PARTS)} = 1")


def test_dots_in_text_are_no_parts_and_depth_is_limited():
    dots = "." * 10 * KEY_PARTS
    assert parse_toml(f"x = '{dots}'\n# {dots}\n" + "y.z = 1\n") == {"x": dots, "y": {"z": 1}}
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_toml(f"x = {'[' * 100_000}")
    with pytest.raises(ValueError, match="Invalid value"):
        parse_toml("x = ")
