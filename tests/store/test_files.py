"""Files appear whole or not at all, and nothing else is touched: by failures, kills, links and leftovers."""

import errno
import fcntl
import hashlib
import json
import multiprocessing
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cnnx.errors import WriteFailed
from cnnx.store.drafts import is_draft, settle
from cnnx.store.files import (
    atomic_file,
    atomic_files,
    atomic_folder,
    check_folder,
    check_place,
    scratch_folder,
)

TOUCHING = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "fcntl.flock"}


def content(folder):
    """Relative path -> text of every file, drafts left out."""
    kept = {}
    for path in sorted(folder.rglob("*")):
        parts = [folder.joinpath(*path.relative_to(folder).parts[: n + 1]) for n in range(9)]
        if path.is_file() and not any(map(is_draft, parts)):
            kept[path.relative_to(folder).as_posix()] = path.read_text()
    return kept


def killed_before(call, work):
    """Do the work in a child that dies before its `call`-th system call on files; whether it got there."""

    def child():
        left = call

        def count(event, _):
            nonlocal left
            if event in TOUCHING:
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        work()
        os._exit(0)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def write(place, new, own):
    with atomic_files(place, own=lambda: own) as draft:
        for name, text in new.items():
            (draft / name).write_text(text)


OLD = {"a": "old a", "b": "old b", "user.txt": "mine", "c": "mine, too"}
NEW = {"a": "new a", "c": "new c", "d": "new d"}
CHANGED = {**NEW, "user.txt": "mine", "c.kept-1": "mine, too"}


@pytest.mark.parametrize("standing", [OLD, {}])
def test_a_kill_before_any_system_call_leaves_all_old_or_all_new_files(tmp_path, standing):
    """And whoever comes next finds it so, and leaves nothing of what was killed."""
    seen = set()
    for call in range(1000):
        place = tmp_path / str(call) / "place"
        place.mkdir(parents=True)
        for name, text in standing.items():
            (place / name).write_text(text)
        died = killed_before(call, lambda place=place: write(place, NEW, {"a", "b"}))
        settle(place)
        new = CHANGED if standing else NEW
        assert content(place) in (standing, new), call
        seen.add(content(place) == new)
        write(place, NEW, {"a", "b", "d"} if content(place) == standing else {"a", "c", "d"})
        assert content(place) == new
        assert {path.name for path in place.iterdir()} == set(new), call
        if not died:
            break
    assert seen == {False, True} and call > 15


@pytest.mark.parametrize("make", [atomic_file, atomic_folder])
def test_a_kill_before_any_system_call_leaves_it_whole_or_absent(tmp_path, make):
    def work(place):
        with make(place) as draft:
            (draft if make is atomic_file else draft / "x").write_text("whole")

    for call in range(1000):
        place = tmp_path / str(call) / "place"
        place.parent.mkdir()
        died = killed_before(call, lambda place=place: work(place))
        whole = "place" if make is atomic_file else "place/x"
        assert content(place.parent) in ({}, {whole: "whole"})
        with atomic_file(place.parent / "next"):
            pass
        assert {path.name for path in place.parent.iterdir()} <= {"place", "next"}, call
        if not died:
            break
    assert call > 8


def test_a_change_that_cannot_be_finished_is_finished_later(tmp_path, monkeypatch):
    place = tmp_path / "place"
    write(place, {"a": "old", "b": "old"}, ())
    done = []

    def replace(self, target, real=Path.replace):
        if done:
            raise PermissionError(1, "not now", str(target))
        done.append(target)
        return real(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", replace)
        with pytest.raises(WriteFailed, match="permission"):
            write(place, {"a": "new", "b": "new"}, {"a", "b"})
    assert content(place) == {"a": "new", "b": "old"}
    settle(place)
    assert content(place) == {"a": "new", "b": "new"} and len(list(place.iterdir())) == 2


def flushed_and_renamed(monkeypatch):
    """Whatever is flushed to disk from now on, and each renaming with what was flushed before it."""
    flushed, renamed = [], []

    def fsync(handle, real=os.fsync):
        real(handle)
        flushed.append(Path(f"/proc/self/fd/{handle}").readlink())

    def rename(source, target, real=os.rename):
        real(source, target)
        renamed.append((Path(source), Path(target), set(flushed)))
        flushed.clear()

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    monkeypatch.setattr(os, "replace", rename)
    return flushed, renamed


@pytest.mark.parametrize("make", [atomic_file, atomic_folder])
def test_a_file_is_on_disk_before_its_name_is_and_its_name_in_the_end(tmp_path, monkeypatch, make):
    """Otherwise a power cut may leave an empty file in the place of a whole one."""
    flushed, renamed = flushed_and_renamed(monkeypatch)
    with make(tmp_path / "place") as draft:
        if make is atomic_folder:
            (draft / "deep").mkdir()
            (draft / "deep" / "x").write_text("whole")
        written = {draft, *draft.rglob("*")}
    [(source, target, before)] = renamed
    assert (source, target) == (draft, tmp_path / "place") and written <= before
    assert flushed == [tmp_path]


def test_all_of_a_change_is_on_disk_before_it_is_decided_and_its_names_before_that_is_forgotten(
    tmp_path, monkeypatch
):
    write(tmp_path, {"a": "old"}, ())
    flushed, renamed = flushed_and_renamed(monkeypatch)
    write(tmp_path, {"a": "new", "b": "new"}, {"a"})
    (source, journal, before), (_, _, decided), *_ = renamed
    draft = journal.parent
    names = ("new", "new/a", "new/b", "owner.json", source.name)
    assert {draft / name for name in names} <= before and draft in decided
    assert [target for _, target, _ in renamed[1:]] == [tmp_path / "a", tmp_path / "b"]
    assert flushed == [tmp_path]


def _hold(folder, ready):
    with atomic_file(folder / "x") as draft:
        draft.write_text("in the making")
        ready.set()
        time.sleep(60)


def test_the_draft_of_a_live_process_is_left_however_old_it_is(tmp_path):
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    maker = context.Process(target=_hold, args=(tmp_path, ready))
    maker.start()
    assert ready.wait(30)
    [draft] = tmp_path.iterdir()
    os.utime(draft, (0, 0))
    with atomic_file(tmp_path / "other"):
        pass
    assert draft.is_dir() and (draft / "new" / "x").read_text() == "in the making"
    maker.kill()
    maker.join()
    settle(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def draft_of(host, folder, name=".cnnx-abcdefgh.draft"):
    draft = folder / name
    (draft / "new").mkdir(parents=True)
    (draft / "owner.json").write_text(json.dumps({"maker": "cnnx draft", "host": host}))
    return draft


def test_a_draft_from_another_host_is_left_for_a_day(tmp_path):
    """Its lock may not be seen from here."""
    draft, now = draft_of("elsewhere", tmp_path), time.time()
    for minutes, left in ((0, True), (24 * 60 - 1, True), (24 * 60 + 1, False)):
        os.utime(draft, (now - 60 * minutes,) * 2)
        settle(tmp_path)
        assert draft.exists() == left


@pytest.mark.parametrize(
    "name", [".x.draft", ".x.1234.draft", ".cnnx-abcdefgh.draft", ".cnnx-x.draft", "cnnx-abcdefgh.draft"]
)
@pytest.mark.parametrize("owner", [None, "", "{}", "null", '{"maker": "another"}', "\0" * 40])
def test_what_is_not_proven_to_be_a_draft_is_never_touched(tmp_path, name, owner):
    (tmp_path / name).mkdir()
    (tmp_path / name / "thesis.tex").write_text("years of work")
    if owner is not None:
        (tmp_path / name / "owner.json").write_text(owner)
    os.utime(tmp_path / name, (0, 0))
    (tmp_path / ".y.draft").write_text("a file of that name")
    for _ in range(2):
        with atomic_folder(tmp_path / f"x{_}"):
            pass
    assert (tmp_path / name / "thesis.tex").read_text() == "years of work"
    assert (tmp_path / ".y.draft").exists()


outside = st.sampled_from(["../victim", "/tmp/victim", "a/../../victim", "..", ".", ""])


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["own", "put"]), outside)
def test_a_journal_reaches_nothing_outside_its_folder(tmp_path_factory, key, name):
    """A bundle that was downloaded may hold one."""
    root = tmp_path_factory.mktemp("root")
    (root / "victim").write_text("mine")
    (root / "bundle").mkdir()
    draft = draft_of("here", root / "bundle")
    mine = hashlib.sha256(b"mine").hexdigest()
    journal = {"own": {}, "put": [], key: {name: mine} if key == "own" else [name]}
    (draft / "journal.json").write_text(json.dumps(journal))
    settle(root / "bundle")
    assert (root / "victim").read_text() == "mine" and list(root.iterdir()) != []


def test_a_journal_takes_nothing_from_outside_its_folder(tmp_path):
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "key").write_text("mine")
    draft = draft_of("here", tmp_path / "bundle")
    (draft / "new").rmdir()
    (draft / "new").symlink_to(tmp_path / "secrets")
    (draft / "journal.json").write_text(json.dumps({"own": {}, "put": ["key"]}))
    settle(tmp_path / "bundle")
    assert content(tmp_path / "secrets") == {"key": "mine"} and not (tmp_path / "bundle" / "key").exists()


def test_a_journal_takes_no_file_whose_content_it_does_not_know(tmp_path):
    """One that came with a downloaded folder, and names files that its user put there since."""
    draft = draft_of("here", tmp_path)
    for name in ("thesis.tex", "notes.txt"):
        (tmp_path / name).write_text("years of work")
    (draft / "new" / "notes.txt").write_text("theirs")
    journal = {"own": {"thesis.tex": "0" * 64, "notes.txt": "0" * 64}, "put": ["notes.txt"]}
    (draft / "journal.json").write_text(json.dumps(journal))
    settle(tmp_path)
    kept = {"thesis.tex": "years of work", "notes.txt.kept-1": "years of work", "notes.txt": "theirs"}
    assert content(tmp_path) == kept


def test_a_failure_leaves_what_was_there(tmp_path):
    (tmp_path / "f").write_text("old")
    for attempt in (atomic_file, lambda place: atomic_files(place.parent, own=lambda: {"f"})):
        with pytest.raises(RuntimeError), attempt(tmp_path / "f") as draft:
            (draft / "f" if draft.is_dir() else draft).write_text("new")
            raise RuntimeError
        assert content(tmp_path) == {"f": "old"} and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(RuntimeError), atomic_files(tmp_path / "absent", own=set):
        raise RuntimeError
    assert not (tmp_path / "absent").exists()


def test_only_plain_files_are_taken_for_our_own(tmp_path):
    """A link or a folder under the name of a file that cnnx wrote was put there by somebody else."""
    (tmp_path / "elsewhere").write_text("big")
    place = tmp_path / "place"
    (place / "b").mkdir(parents=True)
    (place / "b" / "thesis.tex").write_text("years of work")
    (place / "a").symlink_to(tmp_path / "elsewhere")
    (place / "gone").symlink_to(tmp_path / "elsewhere")
    write(place, {"a": "new", "b": "new"}, {"a", "b", "gone"})
    assert (place / "a.kept-1").is_symlink() and (place / "gone").is_symlink()
    assert (place / "a").read_text() == (place / "b").read_text() == "new"
    assert (place / "b.kept-1" / "thesis.tex").exists() and (tmp_path / "elsewhere").read_text() == "big"


def test_a_link_stays_and_what_it_names_is_written(tmp_path):
    for name, target in {"file": "real/file", "absent": "real/absent", "folder": "real/folder"}.items():
        (tmp_path / name).symlink_to(tmp_path / target)
    (tmp_path / "real" / "folder").mkdir(parents=True)
    (tmp_path / "real" / "file").write_text("old")
    for name in ("file", "absent"):
        with atomic_file(tmp_path / name) as draft:
            draft.write_text("new")
    write(tmp_path / "folder", {"x": "new"}, ())
    assert all((tmp_path / name).is_symlink() for name in ("file", "absent", "folder"))
    assert content(tmp_path / "real") == {"file": "new", "absent": "new", "folder/x": "new"}


def test_a_link_to_itself_is_refused(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for attempt in (atomic_file, check_place, lambda place: atomic_files(place, own=set)):
        with pytest.raises(WriteFailed, match="points to itself"), attempt(tmp_path / "loop"):
            pass
    assert (tmp_path / "loop").is_symlink()


def test_a_place_that_cannot_be_written_is_refused_with_its_reason(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(WriteFailed, match="a file exists where a folder is needed") as caught,
        atomic_folder(tmp_path / "file" / "x"),
    ):
        pass
    assert "another path" in caught.value.hint and caught.value.exit_code == 4


def test_a_file_that_could_not_be_read_is_no_failure_to_write(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_file(tmp_path / "out" / "x"):
        (tmp_path / "somewhere" / "absent").read_text()


def test_looking_whether_a_place_can_be_written_leaves_nothing(tmp_path):
    check_place(tmp_path / "a" / "b" / "c")
    check_folder(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(WriteFailed, match="a folder exists where a file is needed"):
        check_place(tmp_path)
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "x"):
        with pytest.raises(WriteFailed, match="a file exists where a folder is needed") as caught:
            check_folder(folder)
        assert caught.value.where == str(folder), "what was asked for, and no file in it"


def test_without_locks_files_are_written_and_drafts_are_left(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    draft = draft_of(platform.node(), tmp_path)
    with atomic_file(tmp_path / "x") as new:
        new.write_text("new")
    assert (tmp_path / "x").read_text() == "new" and draft.is_dir()


def test_only_an_empty_folder_or_one_of_cnnx_is_a_draft(tmp_path):
    def named(name, owner=None):
        place = tmp_path / f".cnnx-{name}.draft"
        place.mkdir()
        if owner is not None:
            (place / "owner.json").write_text(owner)
        return place

    ours = named("12345678", '{"maker": "cnnx draft"}')
    assert is_draft(ours) and is_draft(named("abcdefgh")) and is_draft(named("empty_00", ""))
    assert not is_draft(named("other_00", '{"maker": "another"}')) and not is_draft(named("short"))
    (tmp_path / ".cnnx-thefile0.draft").write_text("")
    (tmp_path / ".cnnx-the_link.draft").symlink_to(ours)
    assert not is_draft(tmp_path / ".cnnx-thefile0.draft") and not is_draft(tmp_path / ".cnnx-the_link.draft")


def test_folders_above_a_new_file_are_created(tmp_path):
    for place in (tmp_path / "a" / "b" / "c.txt", tmp_path / "a" / "b" / "d.txt"):
        with atomic_file(place) as draft:
            draft.write_text("content")
    assert content(tmp_path) == {"a/b/c.txt": "content", "a/b/d.txt": "content"}


def test_an_error_that_names_no_file_is_of_writing_and_one_of_another_file_is_not(tmp_path):
    with pytest.raises(WriteFailed, match="the disk is full"), atomic_file(tmp_path / "a.txt"):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(FileNotFoundError), atomic_file(tmp_path / "a.txt"):
        raise FileNotFoundError(errno.ENOENT, "No such file", "/elsewhere/b.txt")
    assert not any(tmp_path.iterdir())


OWNER = b'{"maker": "cnnx draft", "host": "h", "process": 1}'


@pytest.mark.parametrize("length", range(len(OWNER)))
def test_a_draft_whose_process_died_while_it_wrote_its_owner_is_removed(tmp_path, length):
    draft = tmp_path / ".cnnx-abcdefgh.draft"
    draft.mkdir()
    (draft / "owner.json").write_bytes(OWNER[:length])
    assert is_draft(draft)
    settle(tmp_path)
    assert not draft.exists()


@pytest.mark.parametrize("owner, call", [(Path, "chmod"), (os, "fdopen")])
def test_a_draft_that_cannot_be_made_leaves_nothing(tmp_path, monkeypatch, owner, call):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched, pytest.raises(WriteFailed, match="the disk is full"):
        patched.setattr(owner, call, full)
        with atomic_file(tmp_path / "x"):
            pass
    assert not any(tmp_path.iterdir())


def test_a_folder_that_appears_in_the_meantime_is_kept(tmp_path):
    with pytest.raises(WriteFailed, match="another process has written it"), atomic_folder(tmp_path / "x"):
        (tmp_path / "x").mkdir()
        (tmp_path / "x" / "theirs").touch()
    assert content(tmp_path) == {"x/theirs": ""} and len(list(tmp_path.iterdir())) == 1


def test_a_copy_that_finds_no_room_is_a_failure_to_write(tmp_path):
    """Its error names the file that was read first."""
    (tmp_path / "source").write_text("content")
    with pytest.raises(WriteFailed, match="the disk is full"), atomic_folder(tmp_path / "out" / "x") as draft:
        (draft / "copy").symlink_to("/dev/full")
        shutil.copyfile(tmp_path / "source", draft / "copy")
    assert not any((tmp_path / "out").iterdir())


def test_temporary_files_that_find_no_room_say_where(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(WriteFailed, match="the disk is full") as caught, scratch_folder() as folder:
        (folder / "x").symlink_to("/dev/full")
        (folder / "x").write_text("content")
    assert str(tmp_path) in caught.value.where and "TMPDIR" in caught.value.hint
    assert not any(tmp_path.iterdir())
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    with pytest.raises(WriteFailed) as caught, scratch_folder():
        pass
    assert "TMPDIR" in caught.value.hint
