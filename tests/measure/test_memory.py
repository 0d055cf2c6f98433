from __future__ import annotations

from pathlib import Path

import pytest

from cnnx.measure import MemoryUse, peak_memory

MIB = 1 << 20
HERE = Path("/proc/self")


def status(folder: Path, *, peak_kib: int, now_kib: int) -> None:
    (folder / "status").write_text(f"Name:\tx\nVmHWM:\t{peak_kib:8d} kB\nVmRSS:\t{now_kib:8d} kB\n")


@pytest.mark.skipif(not (HERE / "clear_refs").exists(), reason="no procfs")
def test_a_peak_that_is_gone_again_is_seen_twice_over():
    """The second, smaller peak shows that the mark of the first was reset."""

    def touch(mebibytes: int) -> int:
        return len(bytearray(b"x") * (mebibytes * MIB))

    _, first = peak_memory(lambda: touch(192))
    result, second = peak_memory(lambda: touch(64))
    assert result == 64 * MIB
    assert 180 * MIB < first.added_bytes < 260 * MIB
    if second.peak_bytes is not None:  # None where the kernel does not let the mark be reset
        assert 56 * MIB < second.added_bytes < 128 * MIB


def test_a_mark_that_cannot_be_reset_counts_only_if_it_rose(tmp_path):
    (tmp_path / "clear_refs").mkdir()  # not writable, whoever runs the test
    status(tmp_path, peak_kib=500, now_kib=100)
    _, unknown = peak_memory(lambda: None, proc=tmp_path)
    assert unknown == MemoryUse(before_bytes=100 * 1024, peak_bytes=None, after_bytes=100 * 1024)
    assert unknown.added_bytes is None

    _, known = peak_memory(lambda: status(tmp_path, peak_kib=900, now_kib=100), proc=tmp_path)
    assert known.peak_bytes == 900 * 1024
    assert known.added_bytes == 800 * 1024


def test_a_reset_that_does_nothing_is_noticed(tmp_path):
    (tmp_path / "clear_refs").touch()
    status(tmp_path, peak_kib=900_000, now_kib=1000)
    assert peak_memory(lambda: None, proc=tmp_path)[1].peak_bytes is None
    assert (tmp_path / "clear_refs").read_text() == "5"


def test_a_mark_that_came_down_is_told_apart_from_one_that_did_not(tmp_path):
    """It stays a little above the present: 5 % and a MiB are allowed."""
    (tmp_path / "clear_refs").touch()
    for now_mib, peak_mib, known in (
        (100, 101, True), (100, 106, True), (100, 107, False), (1, 2, True), (1, 3, False)
    ):  # fmt: skip
        status(tmp_path, peak_kib=peak_mib * 1024, now_kib=now_mib * 1024)
        use = peak_memory(lambda: None, proc=tmp_path)[1]
        assert use.peak_bytes == (peak_mib * MIB if known else None)


def test_without_procfs_nothing_is_known(tmp_path):
    result, use = peak_memory(lambda: 7, proc=tmp_path / "absent")
    assert (result, use) == (7, MemoryUse(None, None, None))
