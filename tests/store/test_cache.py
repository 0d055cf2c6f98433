import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cnnx
from cnnx.errors import UsageError
from cnnx.store import entries
from cnnx.store.cache import Store, cache_folder
from cnnx.store.digests import digest_of


def test_a_step_is_done_once_and_its_files_are_found_again(tmp_path):
    kept = Store(tmp_path)
    filled = []

    def fill(folder):
        filled.append(folder)
        (folder / "x").write_text("42")

    first = kept.make("step", {"a": 1}, fill)
    second = kept.make("step", {"a": 1}, fill)
    other = kept.make("step", {"b": 1, "a": 2}, fill)
    assert (first.reused, second.reused, other.reused) == (False, True, False)
    assert first.folder == second.folder != other.folder
    assert (second.folder / "x").read_text() == "42" and len(filled) == 2
    assert (other.folder / "inputs.json").read_text() == '{\n "a": 2,\n "b": 1\n}\n'


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
    assert [p.name for p in sorted(entry.folder.iterdir())] == ["entry.json", "inputs.json", "whole"]


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


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), plain, max_size=4))
def test_the_order_of_keys_does_not_change_a_digest(data):
    assert digest_of(data) == digest_of(dict(reversed(data.items())))


def damage_missing(file):
    file.unlink()


def damage_emptied(file):
    file.write_bytes(b"")


def damage_truncated(file):
    os.truncate(file, file.stat().st_size // 2)


def damage_flipped(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def damage_folder(file):
    file.unlink()
    file.mkdir()


def damage_link(file):
    file.rename(file.with_name("moved"))
    file.symlink_to("moved")


def damage_extra(file):
    file.with_name("extra").write_text("mine")


DAMAGES = [damage_missing, damage_emptied, damage_truncated, damage_flipped, damage_folder, damage_link]


def fill(folder):
    (folder / "x").write_bytes(bytes(range(100)))
    (folder / "deep").mkdir()
    (folder / "deep" / "y").write_bytes(b"12345")


@pytest.mark.parametrize("damage", [*DAMAGES, damage_extra])
@pytest.mark.parametrize("file", ["x", "deep/y", "entry.json", "inputs.json"])
def test_a_damaged_entry_is_made_again_with_one_warning(tmp_path, damage, file):
    kept, said = Store(tmp_path), []
    whole = kept.make("step", {}, fill, warn=said.append)
    before = {path.name: path.read_bytes() for path in whole.folder.rglob("*") if path.is_file()}
    damage(whole.folder / file)
    again = kept.make("step", {}, fill, warn=said.append)
    assert not again.reused and again.folder == whole.folder and len(said) == 1
    assert "damaged" in said[0] and "recreated" in said[0]
    after = {path.name: path.read_bytes() for path in again.folder.rglob("*") if path.is_file()}
    assert after == before
    assert kept.make("step", {}, fill, warn=said.append).reused and len(said) == 1
    # What nothing proves to be cnnx's is still there.
    aside = list((tmp_path / "step").glob("*.kept-1"))
    if damage is not damage_flipped:  # in the list, it may or may not leave that readable
        assert bool(aside) == (file == "entry.json" or damage in (damage_link, damage_extra))
    assert all(str(each) in said[0] for each in aside)
    if damage is damage_extra:
        assert (aside[0] / file).with_name("extra").read_text() == "mine"


def test_what_a_link_in_an_entry_leads_to_stays(tmp_path):
    entry = Store(tmp_path / "cache").make("graph", {"n": 1}, fill)
    (entry.folder / "deep").rename(tmp_path / "moved")
    (entry.folder / "deep").symlink_to(tmp_path / "moved")
    before = everything(tmp_path / "moved")
    assert not Store(tmp_path / "cache").make("graph", {"n": 1}, fill).reused
    assert everything(tmp_path / "moved") == before


@pytest.mark.parametrize("name", ["../victim", "deep/../../victim", "/victim"])
def test_a_list_that_names_files_outside_its_entry_is_none(tmp_path, name):
    kept, said = Store(tmp_path), []
    entry = kept.make("step", {}, fill)
    (entry.folder.parent / "victim").write_text("mine")
    listed = json.loads((entry.folder / "entry.json").read_text())
    listed["files"][name] = [4, hashlib.sha256(b"mine").hexdigest()]
    (entry.folder / "entry.json").write_text(json.dumps(listed))
    assert not kept.make("step", {}, fill, warn=said.append).reused
    assert "(entry.json is missing or damaged)" in said[0]
    assert (entry.folder.parent / "victim").read_text() == "mine"


@pytest.mark.parametrize("linked", [".", "entry.json"])
def test_an_entry_that_leads_elsewhere_is_not_used_and_what_it_leads_to_stays(tmp_path, linked):
    entry = Store(tmp_path / "cache").make("graph", {"n": 1}, fill)
    (entry.folder / linked).rename(tmp_path / "moved")
    (entry.folder / linked).symlink_to(tmp_path / "moved")
    before = everything(tmp_path / "moved")
    assert not Store(tmp_path / "cache").make("graph", {"n": 1}, fill).reused
    assert everything(tmp_path / "moved") == before and (tmp_path / "moved").exists()


@pytest.mark.parametrize("put", [Path.touch, Path.mkdir, lambda place: place.symlink_to(place.parent)])
def test_what_stands_in_the_place_of_an_entry_is_moved_aside(tmp_path, put):
    kept, said = Store(tmp_path), []
    place = kept.place("step", {})
    place.parent.mkdir()
    put(place)
    assert kept.make("step", {}, fill, warn=said.append).folder == place and (place / "x").is_file()
    shutil.rmtree(place)
    put(place)
    kept.make("step", {}, fill, warn=said.append)
    for number in (1, 2):
        aside = place.with_name(f"{place.name}.kept-{number}")
        assert os.path.lexists(aside) and str(aside) in said[number - 1]


def test_an_entry_is_hashed_once_in_a_process(tmp_path, monkeypatch):
    kept, hashed = Store(tmp_path), []
    kept.make("step", {}, fill)
    real = entries.digest_of_file
    monkeypatch.setattr(entries, "digest_of_file", lambda path: (hashed.append(path), real(path))[1])
    for _ in range(3):
        assert kept.make("step", {}, fill).reused
    assert len(hashed) == 3 == len(set(hashed))


@given(st.binary(max_size=200), st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_what_a_stopped_step_left_is_whole_or_nothing(tmp_path_factory, content, data):
    partial = Store(tmp_path_factory.mktemp("s")).partial("step", {})
    assert partial.load() is None
    partial.save(lambda file: file.write_bytes(b"before"))
    partial.save(lambda file: file.write_bytes(content))
    assert partial.load() == content
    kept = bytearray(partial.path.read_bytes())
    if data.draw(st.booleans()):
        kept[data.draw(st.integers(0, len(kept) - 1))] ^= data.draw(st.integers(1, 255))
    else:
        del kept[data.draw(st.integers(0, len(kept) - 1)) :]
    partial.path.write_bytes(kept)
    assert partial.load() is None


def test_an_empty_state_whose_last_byte_is_lost_is_damaged(tmp_path):
    partial = Store(tmp_path).partial("step", {})
    partial.save(lambda file: file.write_bytes(b""))
    partial.path.write_bytes(partial.path.read_bytes()[:-1])
    assert partial.load() is None


def test_what_a_finished_step_had_left_is_removed_unless_it_is_not_its_own(tmp_path):
    partial = Store(tmp_path).partial("step", {})
    partial.remove()
    partial.save(lambda file: file.write_bytes(b"half"))
    partial.remove()
    assert partial.load() is None and not partial.path.exists()
    partial.path.write_bytes(b"a user's")
    partial.remove()
    assert partial.path.read_bytes() == b"a user's"


def everything(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def test_prune_removes_what_was_not_used_for_long(tmp_path):
    kept = Store(tmp_path)
    old = kept.make("step", {"n": 1}, lambda folder: (folder / "x").write_bytes(b"12345"))
    kept.make("step", {"n": 2}, lambda folder: None)
    used = kept.make("step", {"n": 3}, lambda folder: None)
    stopped, going = (kept.partial("step", {"n": n}) for n in (4, 5))
    for partial in (stopped, going):
        partial.save(lambda file: file.write_bytes(b"12345"))
    for path in (old.folder, used.folder, stopped.path):
        os.utime(path, (0, 0))
    assert kept.make("step", {"n": 3}, lambda folder: None).reused  # as good as new again
    assert kept.prune(older_than_seconds=3600) >= 10
    assert not old.folder.exists() and used.folder.is_dir()
    assert going.path.exists() and not stopped.path.exists()
    assert kept.place("step", {"n": 2}).is_dir()


def test_what_another_process_uses_is_not_pruned(tmp_path, monkeypatch):
    monkeypatch.setenv("CNNX_CACHE", str(tmp_path))
    context = multiprocessing.get_context("fork")
    made, done = context.Event(), context.Event()

    def use():
        Store().make("step", {"n": 1}, fill)
        made.set()
        done.wait(30)

    user = context.Process(target=use)
    user.start()
    assert made.wait(30)
    found = cnnx.cache(prune_days=0)
    assert found.freed_bytes == 0 and "used within a day was kept" in found.notes[0]
    os.utime(Store().place("step", {"n": 1}), (0, 0))
    assert cnnx.cache(prune_days=0).freed_bytes > 0, "nobody has used it for years"
    Store().make("step", {"n": 2}, fill)
    done.set()
    user.join()
    found = cnnx.cache(prune_days=0)
    assert found.freed_bytes > 0 and found.notes == () and not Store().place("step", {"n": 2}).exists()


def test_an_entry_of_the_future_ages_from_now_on(tmp_path):
    """It was used while the clock was ahead."""
    entry = Store(tmp_path).make("step", {"n": 1}, fill)
    ahead = time.time() + 10 * 365 * 24 * 3600
    os.utime(entry.folder, (ahead, ahead))
    assert Store(tmp_path).prune(older_than_seconds=60) == 0
    assert abs(entry.folder.stat().st_mtime - time.time()) < 30


def test_an_entry_of_before_entries_listed_their_files_is_pruned(tmp_path):
    old = tmp_path / "crops" / digest_of({"n": 1})[:32]
    old.mkdir(parents=True)
    (old / "inputs.json").write_text('{\n "n": 1\n}\n')
    (old / "crops.npy").write_bytes(bytes(100))
    os.utime(old, (0, 0))
    assert Store(tmp_path).sizes()["crops"] > 100 and Store(tmp_path).prune(older_than_seconds=1) > 100
    assert not old.exists()


def test_a_cache_in_a_users_folder_neither_counts_nor_removes_what_is_his(tmp_path, monkeypatch):
    """Whatever its age, and though it may look like the cache's own."""
    monkeypatch.setenv("CNNX_CACHE", str(tmp_path))
    key = "0" * 32
    for name in (
        "photos/2019/a.jpg",
        "weights/net.pth",
        "weights/run-1/net.pth",
        f"graph/{key}/model.onnx",
        f"graph/{key}/inputs.json",
        f"crops/{key}/entry.json",
        f"crops/.{key}.partial",
        "crops/thesis.partial/thesis.tex",
        "crops/.x.draft/thesis.tex",
        "locks/keys.txt",
        "notes.txt",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    (tmp_path / "photos/2019/inputs.json").write_text("[" * 100_000)
    foreign = everything(tmp_path)
    entry = Store().make("graph", {"n": 1}, fill)
    (entry.folder / "mine.txt").write_text("mine")
    for path in tmp_path.rglob("*"):
        os.utime(path, (0, 0))
    own = sum(file.stat().st_size for file in entry.folder.rglob("*") if file.is_file()) - len("mine")
    assert cnnx.cache().kinds == {"graph": own}
    assert cnnx.cache(prune_days=0).freed_bytes == own
    left = everything(tmp_path)
    assert foreign.items() <= left.items() and (entry.folder / "mine.txt").read_text() == "mine"
    assert not (tmp_path / "CACHEDIR.TAG").exists(), "backups must not leave out a user's folder"
    assert cnnx.cache().kinds == {}


def test_a_cache_is_marked_when_it_is_created(tmp_path, monkeypatch):
    monkeypatch.setenv("CNNX_CACHE", str(tmp_path / "new"))
    Store().make("step", {}, fill)
    tag = (tmp_path / "new" / "CACHEDIR.TAG").read_text()
    assert tag.startswith("Signature: 8a477f597d28d172789f06886806bc55\n") and "cnnx" in tag


def test_cache_tells_what_it_takes_and_gives_back_what_was_not_used(tmp_path, monkeypatch):
    monkeypatch.setenv("CNNX_CACHE", str(tmp_path))
    old = Store().make("step", {"n": 1}, lambda folder: (folder / "x").write_bytes(b"12345"))
    assert cnnx.cache().kinds["step"] == sum(file.stat().st_size for file in old.folder.iterdir())
    assert cnnx.cache(prune_days=1).freed_bytes == 0
    os.utime(old.folder, (0, 0))
    found = cnnx.cache(prune_days=1)
    assert found.freed_bytes > 5 and "step" not in found.kinds and found.folder == tmp_path
    with pytest.raises(UsageError):
        cnnx.cache(prune_days=-1)


def test_where_the_cache_is(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.delenv("CNNX_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == Path("/home/someone/.cache/cnnx")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache/someone")
    assert cache_folder() == Path("/var/cache/someone/cnnx")
    monkeypatch.setenv("CNNX_CACHE", "/elsewhere")
    assert cache_folder() == Store().root == Path("/elsewhere")


@pytest.mark.parametrize("how", ["folder", "link", "nothing"])
def test_what_stands_in_a_files_place_is_no_file_of_the_entry(tmp_path, how):
    kept, told = Store(tmp_path / "cache"), []

    def fill(folder):
        (folder / "x").write_text("42")

    file = kept.make("step", {}, fill).folder / "x"
    file.rename(tmp_path / "x")
    if how == "folder":
        file.mkdir()
    elif how == "link":
        file.symlink_to(tmp_path / "x")
    made = kept.make("step", {}, fill, warn=told.append)
    assert not made.reused and (made.folder / "x").read_text() == "42"
    assert "(x is missing)" in told[0]
