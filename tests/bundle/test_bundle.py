import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cnnx.bundle import Bundle
from cnnx.bundle.manifest import manifest_from_dict
from cnnx.bundle.reference import Reference
from cnnx.bundle.sealed import write_sealed
from cnnx.bundle.writing import left_beside, new_bundle, refuse_place, seal
from cnnx.errors import BundleError, WriteFailed
from cnnx.record import Record, Subject
from cnnx.store import files
from cnnx.store.digests import digest_of_file
from tests.inputs.bundles import engine_of, manifest

SOURCE = ("source.onnx", "source-statistics.npz", "source-scales.json")
PORTABLE = ("manifest.json", "model.onnx", "calibration.json", "labels.txt", "reference.npz", *SOURCE)
ENGINE = ("engines/rtx-1-sm86/engine.json", "engines/rtx-1-sm86/model.engine")


def reference(n=5):
    random = np.random.default_rng(0)
    crops = random.integers(0, 255, (n, 4, 4, 1), dtype=np.uint8)
    original, graph = random.normal(size=(2, n, 10)).astype(np.float32)
    return Reference(crops, original, graph, None, tuple(map(str, range(n))))


def make(place, *, force=False, source=(), **changes):
    """Of FP16, without ranges, where `precision` says so; `source`: the names of its source's files."""
    with new_bundle(place, force=force) as draft:
        (draft / "model.onnx").write_bytes(bytes(range(256)) * 4)
        if changes.get("precision") != "fp16":
            (draft / "calibration.json").write_text("{}")
        (draft / "labels.txt").write_text("".join(f"class {i}\n" for i in range(10)))
        reference().save(draft / "reference.npz")
        for name in source:
            (draft / name).write_bytes(name.encode() * 40)
        seal(draft, dataclasses.replace(manifest(), **changes))
    return Bundle.open(place)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle")
    made = make(folder / "b", source=SOURCE)
    (folder / "plan").write_bytes(bytes(1000))
    made.add_engine(engine_of(made, folder / "plan"), folder / "plan")
    return folder / "b"


def read_all(path):
    """What inspect reads: the portable part and every engine."""
    opened = Bundle.open(path)
    for engine in opened.engines():
        opened.engine_file(engine)


@pytest.mark.parametrize(
    ("changes", "reached"),
    [({}, [86]), ({"target": ""}, [75, 80, 86, 120]), ({"reach": "ampere_plus"}, [80, 86, 120])],
)
def test_which_gpus_an_engine_runs_on(whole, changes, reached):
    [engine] = Bundle.open(whole).engines()
    changed = dataclasses.replace(engine, **changes)
    assert [each for each in (75, 80, 86, 120) if changed.reaches(each)] == reached


def test_which_releases_an_engine_runs_on(whole):
    """Engines of 1.7.1: its own release, and later ones if it is version compatible."""
    [engine] = Bundle.open(whole).engines()
    compatible = dataclasses.replace(engine, version_compatible=True)
    for version, own, later in (
        ("1.7.1", True, True), ("1.10.0", False, True), ("1.6.9", False, False), (None, False, False),
        ("nonsense", False, False),
    ):  # fmt: skip
        assert (engine.runs_on(version), compatible.runs_on(version)) == (own, later)


def test_an_engine_in_the_folder_of_another_is_refused(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "b")
    (tmp_path / "b" / "engines" / "rtx-1-sm86").rename(tmp_path / "b" / "engines" / "other")
    with pytest.raises(BundleError, match="identity is 'rtx-1-sm86', but the folder is named 'other'"):
        Bundle.open(tmp_path / "b").engines()


def test_what_was_written_is_read_again(whole):
    opened = Bundle.open(whole)
    assert dataclasses.replace(opened.manifest, files={}) == manifest()
    assert set(opened.manifest.files) == {*PORTABLE[1:]} and opened.manifest.has_source
    assert opened.source_sizes() == {name: 40 * len(name) for name in SOURCE}
    assert opened.labels[9] == "class 9"
    back = opened.reference()
    np.testing.assert_array_equal(back.crops, reference().crops)
    assert back.ids == reference().ids and back.labels is None
    assert [engine.identity for engine in opened.engines()] == ["rtx-1-sm86"]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from((*PORTABLE, *ENGINE)), st.data())
def test_any_byte_changed_anywhere_is_refused(whole, tmp_path_factory, file, data):
    copy = tmp_path_factory.mktemp("copy") / "b"
    shutil.copytree(whole, copy)
    content = bytearray((copy / file).read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= data.draw(st.integers(1, 255))
    (copy / file).write_bytes(content)
    with pytest.raises(BundleError) as caught:
        read_all(copy)
    assert file.rsplit("/", maxsplit=1)[-1] in caught.value.what and caught.value.hint
    shutil.rmtree(copy.parent)


@pytest.mark.parametrize("file", [*PORTABLE, ENGINE[1]])
def test_a_missing_file_is_named(whole, tmp_path, file):
    shutil.copytree(whole, tmp_path / "b")
    (tmp_path / "b" / file).unlink()
    with pytest.raises(BundleError, match=file.rsplit("/", maxsplit=1)[-1]):
        read_all(tmp_path / "b")


@pytest.mark.parametrize(
    ("kind", "synthetic", "why"),
    [("file", False, ()), ("file", True, ("synthetic",)), ("standin", False, ("stand-ins",))],
)
def test_a_bundle_says_why_its_agreement_proves_nothing(kind, synthetic, why):
    images = dict(manifest().images)
    images["validation"] = dataclasses.replace(images["validation"], synthetic=synthetic)
    weights = {**manifest().weights, "kind": kind}
    found = dataclasses.replace(manifest(), images=images, weights=weights).cannot_judge
    assert len(found) == len(why) and all(word in reason for word, reason in zip(why, found, strict=True))


@pytest.mark.parametrize("schema", [0, 99])
def test_an_unknown_schema_says_both(tmp_path, schema):
    with new_bundle(tmp_path / "b") as draft:
        seal(draft, dataclasses.replace(manifest(), schema=schema))
    with pytest.raises(BundleError, match=f"schema {schema}, but this cnnx reads schema 1"):
        Bundle.open(tmp_path / "b")


def test_a_bundle_of_version_0_1_keeps_its_hints(tmp_path):
    """The key of a hint was different then."""
    warning = {"rule": "depthwise", "severity": "warning", "node": "conv", "message": "it is slow"}
    with new_bundle(tmp_path / "b") as draft:
        (draft / "model.onnx").write_bytes(b"graph")
        (draft / "calibration.json").write_text("{}")
        reference().save(draft / "reference.npz")
        seal(draft, dataclasses.replace(manifest(), warnings=({**warning, "mend": "leave it"},)))
    assert Bundle.open(tmp_path / "b").manifest.warnings == ({**warning, "hint": "leave it"},)


def with_engine(place, **changes):
    made = make(place, **changes)
    (place.parent / "plan").write_bytes(b"x")
    made.add_engine(engine_of(made, place.parent / "plan"), place.parent / "plan")
    return made


def test_records_engines_and_the_users_files_outlive_a_new_export(tmp_path):
    first = with_engine(tmp_path / "b", precision="fp16")
    subject = Subject("net", "graph", first.manifest.files["model.onnx"], "int8", "ort 1", "CPU")
    first.add_record(Record("validation", subject, {}, {}))
    (tmp_path / "b" / "calibration.json").write_text("a user's, as this manifest does not list it")
    (tmp_path / "b" / "photos").mkdir()
    (tmp_path / "b" / "photos" / "a.jpg").write_text("an image")
    (tmp_path / "b" / ".notes").write_text("a note")
    folder = (tmp_path / "b").stat().st_ino
    with new_bundle(tmp_path / "b") as draft:
        (draft / "model.onnx").write_bytes(bytes(range(256)) * 4)
        (draft / "calibration.json").write_text("cnnx's")
        reference().save(draft / "reference.npz")
        seal(draft, manifest())
    second = Bundle.open(tmp_path / "b")
    assert len(second.records()) == 1 and second.records()[0].subject == subject
    assert [engine.identity for engine in second.engines()] == ["rtx-1-sm86"]
    assert (tmp_path / "b").stat().st_ino == folder, "the folder itself stays, and whoever works in it"
    assert (tmp_path / "b" / "photos" / "a.jpg").read_text() == "an image"
    assert (tmp_path / "b" / "calibration.json").read_text() == "cnnx's"
    assert (tmp_path / "b" / "calibration.json.kept-1").read_text().startswith("a user's")
    assert not (tmp_path / "b" / "labels.txt").exists(), "the first bundle's, as its manifest says"
    [said] = left_beside(second)
    assert ".notes, calibration.json.kept-1, photos" in said


def test_an_export_without_a_source_removes_that_of_the_bundle_before(tmp_path):
    make(tmp_path / "b", source=SOURCE[:2])
    (tmp_path / "b" / SOURCE[2]).write_text("a user's, as this manifest does not list it")
    second = make(tmp_path / "b", fingerprint="e" * 64)
    assert not second.manifest.has_source and second.source_sizes() == {}
    assert [(second.path / name).exists() for name in SOURCE] == [False, False, True]


def test_a_source_without_statistics_is_refused(tmp_path):
    with pytest.raises(BundleError, match=r"files\['source-statistics.npz'\]' is missing"):
        make(tmp_path / "b", source=SOURCE[:1])
    with pytest.raises(BundleError, match=r"files\['calibration.json'\]' is missing"):
        make(tmp_path / "c", source=SOURCE[:2], precision="fp16")
    assert make(tmp_path / "d", source=SOURCE[:1], precision="fp32").manifest.has_source


def test_an_engine_of_another_graph_stays_and_is_not_taken_for_the_bundles(tmp_path):
    with_engine(tmp_path / "b")
    with new_bundle(tmp_path / "b") as draft:
        (draft / "model.onnx").write_bytes(b"different graph")
        (draft / "calibration.json").write_text("{}")
        reference().save(draft / "reference.npz")
        seal(draft, manifest())
    second = Bundle.open(tmp_path / "b")
    assert second.engines() == () and [each.identity for each in second.stale_engines()] == ["rtx-1-sm86"]
    assert (tmp_path / "b" / ENGINE[1]).read_bytes() == b"x"
    assert "engines/rtx-1-sm86" in left_beside(second)[0] and "different graph" in left_beside(second)[0]
    second.add_engine(engine_of(second, tmp_path / "plan"), tmp_path / "plan")
    assert len(second.engines()) == 1 and left_beside(second) == second.stale_engines() == ()


def test_a_damaged_engine_does_not_have_a_new_bundle_refused(tmp_path):
    with_engine(tmp_path / "b")
    (tmp_path / "b" / ENGINE[0]).write_text("{}")
    second = make(tmp_path / "b", fingerprint="e" * 64)
    assert second.engines() == second.stale_engines() == () and (tmp_path / "b" / ENGINE[1]).exists()
    assert "engines/rtx-1-sm86" in left_beside(second)[0]


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


FOREIGN = {
    "a web app's": '{"name": "app", "icons": []}',
    "no JSON": "once upon a time",
    "a list": "[]",
    "empty": "",
    "another schema": None,
    "damaged": None,
}


@pytest.mark.parametrize("kind", [*FOREIGN, "no manifest"])
def test_a_folder_that_is_no_bundles_is_refused_and_with_force_loses_nothing(tmp_path, kind):
    place = tmp_path / "b"
    if kind == "another schema":
        with new_bundle(place) as draft:
            seal(draft, dataclasses.replace(manifest(), schema=99))
    elif kind == "damaged":
        make(place)
        (place / "manifest.json").write_text((place / "manifest.json").read_text()[:-9])
    else:
        place.mkdir()
        if kind != "no manifest":
            (place / "manifest.json").write_text(FOREIGN[kind])
    for name in ("model.onnx", "index.html", "src/app.js"):
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_text(f"the user's {name}")
    before = contents(place)
    with pytest.raises(BundleError, match="not") as caught:
        make(place)
    assert "--force" in caught.value.hint and "--out" in caught.value.hint and caught.value.exit_code == 3
    assert before == {
        path.relative_to(place): path.read_bytes() for path in place.rglob("*") if path.is_file()
    }
    read_all(make(place, force=True).path)
    after = contents(place)
    for path, content in before.items():
        assert after[path] == content or after[Path(f"{path}.kept-1")] == content


def test_a_link_to_a_folder_stays_and_the_bundle_goes_where_it_leads(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    for fingerprint in ("a", "b"):
        assert make(tmp_path / "link", fingerprint=fingerprint * 64).manifest.fingerprint[0] == fingerprint
        assert (tmp_path / "link").is_symlink()
        read_all(tmp_path / "real")
    assert {path.name for path in tmp_path.iterdir()} == {"real", "link"}


def test_a_link_that_leads_nowhere_is_refused(tmp_path):
    (tmp_path / "nowhere").symlink_to("absent")
    (tmp_path / "loop").symlink_to("loop")
    for name in ("nowhere", "loop"):
        with pytest.raises(BundleError, match="link is broken") as caught:
            refuse_place(tmp_path / name, force=True)
        assert "--out" in caught.value.hint and (tmp_path / name).is_symlink()


def test_a_place_below_a_file_is_refused_before_work(tmp_path):
    (tmp_path / "file").touch()
    refuse_place(tmp_path / "new" / "b")
    for force in (False, True):
        with pytest.raises(WriteFailed, match="a file exists where a folder is needed"):
            refuse_place(tmp_path / "file" / "b", force=force)


def test_what_a_write_in_progress_has_in_a_bundle_is_no_file_beside_it(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "b")
    with files.atomic_file(tmp_path / "b" / "notes.txt"):
        assert left_beside(Bundle.open(tmp_path / "b")) == ()
    assert "notes.txt" in left_beside(Bundle.open(tmp_path / "b"))[0]


def test_a_signature_is_part_of_a_bundle_and_another_file_of_that_name_is_not(tmp_path):
    made = make(tmp_path / "b")
    kind = {"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json"}
    for text, left in ((json.dumps(kind), False), ("my notes", True), ('{"mediaType": "text"}', True)):
        (made.path / "model.sig").write_text(text)
        assert ["model.sig" in message for message in left_beside(made)] == [True] * left
        make(made.path)
        assert (made.path / "model.sig").exists() == left, "a new export makes a signature void"


def test_an_interrupted_replacement_is_finished_by_whoever_opens_the_bundle(tmp_path, monkeypatch):
    make(tmp_path / "b")

    def killed(_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(files, "carry_out", killed)
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path / "b", fingerprint="e" * 64)
    assert json.loads((tmp_path / "b" / "manifest.json").read_text())["fingerprint"] == "f" * 64
    assert Bundle.open(tmp_path / "b").manifest.fingerprint == "e" * 64
    assert {path.name for path in (tmp_path / "b").iterdir()} == set(PORTABLE) - set(SOURCE)


def test_an_engine_written_before_reach_was_known_is_read(tmp_path):
    made = make(tmp_path / "b")
    (tmp_path / "plan").write_bytes(b"plan")
    made.add_engine(engine_of(made, tmp_path / "plan"), tmp_path / "plan")
    [file] = made.path.glob("engines/*/engine.json")
    data = json.loads(file.read_text())
    data.pop("seal")
    later = {"reach", "version_compatible", "dla_core", "on_gpu", "timing_cache", "remarks", "batch"}
    write_sealed(file, {key: value for key, value in data.items() if key not in later})
    [engine] = made.engines()
    assert (engine.reach, engine.version_compatible, engine.timing_cache) == ("compute_capability", False, "")
    for other, said in (({"strange": 1}, "strange"), ({"environment": {"python": 3}}, "environment.python")):
        write_sealed(file, data | other)
        with pytest.raises(BundleError, match=said):
            made.engines()


def test_a_record_of_another_schema_is_refused(tmp_path):
    made = make(tmp_path / "b")
    subject = Subject("net", "graph", "0" * 64, "int8", "ort 1", "CPU")
    path = made.add_record(Record("validation", subject, {}, {}))
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 7}))
    with pytest.raises(BundleError, match="schema 7"):
        made.record(path)


@pytest.mark.parametrize("file", [*PORTABLE, *ENGINE])
@pytest.mark.parametrize("share", [0, 0.5, 1])
def test_a_copy_that_broke_off_is_refused(whole, tmp_path, file, share):
    """Nothing of a file, half of it, all but its last byte."""
    shutil.copytree(whole, tmp_path / "b")
    content = (tmp_path / "b" / file).read_bytes()
    (tmp_path / "b" / file).write_bytes(content[: min(int(len(content) * share), len(content) - 1)])
    with pytest.raises(BundleError, match=file.rsplit("/", maxsplit=1)[-1]):
        read_all(tmp_path / "b")


def test_a_manifest_and_files_of_two_bundles_do_not_mix(tmp_path):
    """Each is intact in itself; together they are not what was sealed."""
    make(tmp_path / "a")
    make(tmp_path / "b")
    with new_bundle(tmp_path / "b") as draft:
        (draft / "labels.txt").write_text("another\n")
        seal(draft, manifest())
    shutil.copyfile(tmp_path / "b" / "labels.txt", tmp_path / "a" / "labels.txt")
    with pytest.raises(BundleError, match=r"labels\.txt was modified"):
        Bundle.open(tmp_path / "a")


def test_a_new_export_that_fails_half_way_leaves_the_old_bundle_whole(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "b")
    with pytest.raises(RuntimeError, match="half-way"), new_bundle(tmp_path / "b") as draft:
        (draft / "model.onnx").write_bytes(b"half")
        raise RuntimeError("half-way")
    read_all(tmp_path / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_damaged_file_is_replaced_and_a_file_in_the_folders_place_is_not(tmp_path):
    make(tmp_path / "b")
    (tmp_path / "b" / "model.onnx").write_text("damaged")
    read_all(make(tmp_path / "b").path)
    assert left_beside(Bundle.open(tmp_path / "b")) == ()
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(BundleError, match="not a folder") as caught:
        make(tmp_path / "thesis.tex", force=True)
    assert "--out" in caught.value.hint and (tmp_path / "thesis.tex").read_text() == "years of work"


def test_an_engine_is_replaced_by_one_of_its_identity_and_held_to_its_hash(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "b")
    opened = Bundle.open(tmp_path / "b")
    (tmp_path / "plan").write_bytes(b"another plan")
    opened.add_engine(engine_of(opened, tmp_path / "plan"), tmp_path / "plan")
    [engine] = opened.engines()
    assert opened.engine_file(engine).read_bytes() == b"another plan"
    for reports in (["inspector.json", "build.log"], ["layers.log"], []):
        (tmp_path / "made").mkdir()
        for name in ("plan", *reports, "other.txt"):
            (tmp_path / "made" / name).write_bytes(b"another plan")
        opened.add_engine(engine_of(opened, tmp_path / "plan"), tmp_path / "made" / "plan")
        kept = {path.name for path in (tmp_path / "b" / "engines" / engine.identity).iterdir()}
        assert kept == {"engine.json", engine.file, *reports}
        shutil.rmtree(tmp_path / "made")
    opened.add_engine(dataclasses.replace(engine, digest="0" * 64), tmp_path / "plan")
    with pytest.raises(BundleError, match=r"model\.engine was modified"):
        opened.engine_file(opened.engines()[0])


def test_what_a_builder_reported_is_read_if_it_is_text_of_this_bundle(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "b")
    folder = tmp_path / "b" / "engines" / "rtx-1-sm86"
    (folder / "layers.log").write_text("Layers:\n", encoding="utf-8")
    (folder / "build.log").write_bytes(b"\xff\xfe")
    (tmp_path / "elsewhere.json").write_text("{}", encoding="utf-8")
    (folder / "inspector.json").symlink_to(tmp_path / "elsewhere.json")
    bundle = Bundle.open(tmp_path / "b")
    assert bundle.evidence("rtx-1-sm86") == {"layers.log": "Layers:\n"}
    assert bundle.evidence("none") == {}


@pytest.mark.parametrize("lacks", [None, *ENGINE])
@pytest.mark.parametrize("other", [None, "0" * 64])
def test_where_a_signature_is_required_an_engine_is_used_only_as_it_was_signed(whole, lacks, other):
    names = {"manifest.json", *ENGINE, *PORTABLE}
    signed = {name: digest_of_file(whole / name) for name in names if name != lacks}
    if lacks and other:
        signed[lacks] = other
    opened = Bundle.open(whole, signed=signed)
    [engine] = opened.engines()
    if lacks is None:
        assert opened.engine_file(engine) == whole / ENGINE[1]
    else:
        with pytest.raises(BundleError, match=r"after (signing|it was signed)"):
            opened.engine_file(engine)


@pytest.mark.parametrize(
    "spoil", [lambda t: t[: len(t) // 2], lambda t: "null", lambda t: t.replace('"kind"', '"x"')]
)
def test_a_damaged_record_is_named(tmp_path, spoil):
    made = make(tmp_path / "b")
    path = made.add_record(
        Record("validation", Subject("net", "graph", "0" * 64, "int8", "ort 1", "CPU"), {}, {})
    )
    path.write_text(spoil(path.read_text()))
    with pytest.raises(BundleError) as caught:
        made.record(path)
    assert caught.value.where == str(path) and caught.value.hint
    assert made.records() == ()


def test_a_record_of_before_engines_were_named_is_read(tmp_path):
    made = make(tmp_path / "b")
    path = made.add_record(
        Record("validation", Subject("net", "engine", "0" * 64, "int8", "trt 1", "GPU"), {}, {})
    )
    path.write_text(path.read_text().replace(',\n  "engine": "",\n  "graph_digest": ""', ""))
    assert "engine" not in json.loads(path.read_text())["subject"]
    [record] = made.records()
    assert record.subject.engine == "" and str(record.subject) == f"net int8 engine {'0' * 12} on trt 1, GPU"


@pytest.mark.parametrize(
    ("content", "said"), [(b"one\ntwo\n", "2 lines, but the network has 10"), (b"\xff\n" * 10, "not UTF-8")]
)
def test_class_names_that_do_not_fit_are_refused(tmp_path, content, said):
    with new_bundle(tmp_path / "b") as draft:
        (draft / "model.onnx").write_bytes(b"graph")
        (draft / "calibration.json").write_text("{}")
        (draft / "labels.txt").write_bytes(content)
        reference().save(draft / "reference.npz")
        seal(draft, manifest())
    opened = Bundle.open(tmp_path / "b")
    with pytest.raises(BundleError, match=said) as caught:
        _ = opened.labels
    assert caught.value.where == str(tmp_path / "b" / "labels.txt") and caught.value.hint


def test_a_result_is_kept_as_a_record_of_this_machine(tmp_path):
    made = make(tmp_path / "b")
    subject = Subject("net", "graph", made.manifest.files["model.onnx"], "int8", "ort 1", "CPU")
    kept = made.keep("validation", subject, {"rate": 1.0})
    [read] = made.records()
    assert read.as_dict() == json.loads(json.dumps(kept.as_dict()))
    assert read.result == {"rate": 1.0} and read.environment["python"]


def test_a_record_is_for_people_too_with_each_list_of_numbers_on_one_line(tmp_path):
    made = make(tmp_path / "b")
    subject = Subject("net", "graph", made.manifest.files["model.onnx"], "int8", "ort 1", "CPU")
    result = {"samples_ns": [1, -2, 3e-30], "names": ["[1,", "2]"], "empty": [], "pairs": [[1, 2], [3, 4]]}
    file = made.add_record(Record("benchmark", subject, {}, result))
    assert made.record(file).result == result
    lines = [line.strip() for line in file.read_text().splitlines()]
    assert '"samples_ns": [ 1, -2, 3e-30 ],' in lines and "[ 3, 4 ]" in lines and '"[1,",' in lines


@pytest.mark.parametrize(
    ("batch", "fits"),
    [((), 1), ((1, 2, 4), 1), ((2, 2, 2), 1), ((1, 4), 0), ((1, 2, 3, 4), 0), ((4, 2, 8), 0)],
)
def test_an_engine_has_no_batch_sizes_or_three_in_order(whole, tmp_path, batch, fits):
    shutil.copytree(whole, tmp_path / "b")
    opened = Bundle.open(tmp_path / "b")
    [engine] = opened.engines()
    write_sealed(tmp_path / "b" / ENGINE[0], dataclasses.asdict(dataclasses.replace(engine, batch=batch)))
    if fits:
        assert list(opened.engines()[0].batch) == [*batch]
    else:
        with pytest.raises(BundleError, match=r"not \[smallest, optimal, largest\]"):
            opened.engines()


@pytest.mark.parametrize("file", ["manifest.json", "model.onnx"])
def test_a_file_that_is_a_link_out_of_the_bundle_is_refused(whole, tmp_path, file):
    shutil.copytree(whole, tmp_path / "b")
    (tmp_path / "b" / file).rename(tmp_path / "elsewhere")
    (tmp_path / "b" / file).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match=f"{file} is a link to a file outside the bundle"):
        Bundle.open(tmp_path / "b")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000, "nested too deeply"),
        ("{}", "the key 'seal' is missing"),
        ("once upon", "Expecting value"),
    ],
)
def test_what_is_damaged_in_a_manifest_is_said(whole, tmp_path, text, said):
    shutil.copytree(whole, tmp_path / "b")
    (tmp_path / "b" / "manifest.json").write_text(text)
    with pytest.raises(BundleError, match=f"manifest.json is damaged: {said}"):
        Bundle.open(tmp_path / "b")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        (
            "files",
            {"reference.npz": "0" * 64, "calibration.json": "0" * 64},
            r"'files\['model.onnx'\]' is missing",
        ),
        ("files", {"model.onnx": "0" * 64, "calibration.json": "0" * 64}, r"'files\['reference.npz'\]'"),
        ("files", {"model.onnx": "0" * 64, "reference.npz": "0" * 64}, r"'files\['calibration.json'\]'"),
        ("images", {}, r"'images.validation' is missing"),
        ("images", {"validation": dataclasses.asdict(manifest().images["validation"])}, "images.calibration"),
        ("batch", [8, 1], r"batch is \[8, 1\], not \[smallest, largest\]"),
        ("recipe", {**manifest().recipe, "colour": "red"}, "unknown key 'recipe.colour'"),
        ("classes", 11, r"classes is 11, but recipe.model.classes is 10"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(whole, tmp_path, key, value, said):
    data = Bundle.open(whole).manifest.as_dict()
    assert manifest_from_dict(data, where=tmp_path).as_dict() == data
    assert manifest_from_dict({**data, "batch": [4, 4]}, where=tmp_path).batch == (4, 4)
    with pytest.raises(BundleError, match=said):
        manifest_from_dict({**data, key: value}, where=tmp_path)


@pytest.mark.parametrize(("key", "value"), [("type", "uint8"), ("layout", "NHWC")])
def test_an_input_that_does_not_take_what_the_recipe_states_is_refused(whole, tmp_path, key, value):
    data = Bundle.open(whole).manifest.as_dict()
    data["inputs"][0][key] = value
    with pytest.raises(BundleError, match=rf"inputs\[0\].{key} is '{value}', but the recipe states"):
        manifest_from_dict(data, where=tmp_path)


@pytest.mark.parametrize("shape", [[None, 1, 4], [None, 1, None, 4], [None, 1, 4, 4, 1]])
def test_an_input_that_is_no_batch_of_images_of_one_size_is_refused(whole, tmp_path, shape):
    data = Bundle.open(whole).manifest.as_dict()
    data["inputs"][0]["shape"] = shape
    with pytest.raises(BundleError, match=r"inputs\[0\].shape is .* the recipe states \['batch', 1, 4, 4\]"):
        manifest_from_dict(data, where=tmp_path)


@pytest.mark.parametrize("folder", ["engines", "runs"])
def test_a_place_where_nothing_can_be_written_is_refused_before_work(whole, tmp_path, folder):
    shutil.copytree(whole, tmp_path / "b", ignore=shutil.ignore_patterns("engines"))
    Bundle.open(tmp_path / "b").check_place(folder)
    (tmp_path / "b" / folder).write_text("a file in the folder's place")
    with pytest.raises(WriteFailed):
        Bundle.open(tmp_path / "b").check_place(folder)
