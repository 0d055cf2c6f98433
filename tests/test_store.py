import multiprocessing
import os
import signal
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cnnx
from cnnx.errors import UsageError, WriteFailed
from cnnx.store import Store, atomic_file, atomic_folder, digest_of


def test_a_step_is_done_once_and_its_files_are_found_again(tmp_path):
    kept = Store(tmp_path)
    filled = []

    def fill(folder):
        filled.append(folder)
        (folder / "x").write_text("42")

    first = kept.make("step", {"a": 1}, fill)
    second = kept.make("step", {"a": 1}, fill)
    other = kept.make("step", {"a": 2}, fill)
    assert (first.reused, second.reused, other.reused) == (False, True, False)
    assert first.folder == second.folder != other.folder
    assert (second.folder / "x").read_text() == "42" and len(filled) == 2


def test_a_step_that_fails_leaves_nothing_behind(tmp_path):
    kept = Store(tmp_path)

    def fill(folder):
        (folder / "half").write_text("x")
        raise ValueError("stopped")

    with pytest.raises(ValueError, match="stopped"):
        kept.make("step", {}, fill)
    assert list((tmp_path / "step").iterdir()) == []


def _fill_slowly(root, started):
    def fill(folder):
        (folder / "half").write_text("x")
        started.set()
        time.sleep(60)

    Store(root).make("step", {}, fill)


def test_a_killed_maker_leaves_no_entry_and_no_lock(tmp_path, monkeypatch):
    monkeypatch.setenv("CNNX_CACHE", str(tmp_path / "cache"))
    context = multiprocessing.get_context("fork")
    started = context.Event()
    maker = context.Process(target=_fill_slowly, args=(tmp_path, started))
    maker.start()
    assert started.wait(30)
    os.kill(maker.pid, signal.SIGKILL)
    maker.join()
    assert not Store(tmp_path).place("step", {}).exists()
    entry = Store(tmp_path).make("step", {}, lambda folder: (folder / "whole").write_text("x"))
    assert [p.name for p in sorted(entry.folder.iterdir())] == ["inputs.json", "whole"]


def test_two_makers_at_once_make_it_once(tmp_path, monkeypatch):
    monkeypatch.setenv("CNNX_CACHE", str(tmp_path / "cache"))
    context = multiprocessing.get_context("fork")

    def make():
        Store(tmp_path / "s").make(
            "step", {}, lambda _: (time.sleep(0.2), (tmp_path / str(os.getpid())).touch())
        )

    makers = [context.Process(target=make) for _ in range(4)]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
        assert maker.exitcode == 0
    assert len([p for p in tmp_path.iterdir() if p.name.isdigit()]) == 1


def test_old_drafts_are_swept_and_young_ones_are_not(tmp_path):
    old, young = tmp_path / ".x.1.draft", tmp_path / ".x.2.draft"
    old.mkdir()
    young.mkdir()
    os.utime(old, (0, 0))
    with atomic_folder(tmp_path / "x"):
        pass
    assert not old.exists() and young.exists()


def test_an_existing_folder_is_replaced_whole(tmp_path):
    for content in "ab":
        with atomic_folder(tmp_path / "x") as draft:
            (draft / content).touch()
    assert [p.name for p in (tmp_path / "x").iterdir()] == ["b"]
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_a_file_keeps_its_old_content_when_writing_fails(tmp_path):
    place = tmp_path / "f"
    place.write_text("old")
    with pytest.raises(RuntimeError), atomic_file(place) as draft:
        draft.write_text("new")
        raise RuntimeError
    assert place.read_text() == "old" and list(tmp_path.iterdir()) == [place]


def test_a_place_that_cannot_be_written_is_refused_with_its_reason(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(WriteFailed, match="a file stands where a folder should be") as caught,
        atomic_folder(tmp_path / "file" / "x"),
    ):
        pass
    assert "another place" in caught.value.mend and caught.value.exit_code == 4


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), plain, max_size=4))
def test_the_order_of_keys_does_not_change_a_digest(data):
    assert digest_of(data) == digest_of(dict(reversed(data.items())))


def test_prune_removes_what_was_not_used_for_long(tmp_path):
    kept = Store(tmp_path)
    old = kept.make("step", {"n": 1}, lambda folder: (folder / "x").write_bytes(b"12345"))
    kept.make("step", {"n": 2}, lambda folder: None)
    os.utime(old.folder, (0, 0))
    assert kept.prune(older_than_seconds=3600) >= 5
    assert not old.folder.exists() and kept.place("step", {"n": 2}).is_dir()


def test_cache_tells_what_it_takes_and_gives_back_what_was_not_used(tmp_path, monkeypatch):
    monkeypatch.setenv("CNNX_CACHE", str(tmp_path))
    old = Store().make("step", {"n": 1}, lambda folder: (folder / "x").write_bytes(b"12345"))
    assert cnnx.cache().kinds["step"] == sum(file.stat().st_size for file in old.folder.iterdir())
    assert cnnx.cache(prune_days=1).freed_bytes == 0
    os.utime(old.folder, (0, 0))
    found = cnnx.cache(prune_days=1)
    assert found.freed_bytes > 5 and found.kinds["step"] == 0 and found.folder == tmp_path
    with pytest.raises(UsageError):
        cnnx.cache(prune_days=-1)
