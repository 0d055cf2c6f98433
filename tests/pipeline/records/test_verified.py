"""A record counts if its digests are those of the bundle; files outside a bundle are never opened."""

import dataclasses
import json
import shutil

import pytest

import cnnx
from cnnx.bundle import Bundle
from cnnx.bundle.sealed import write_sealed
from cnnx.device import Device
from cnnx.errors import BundleError
from cnnx.pipeline.records.verified import records_of
from cnnx.record import Record, Subject
from tests.inputs.bundles import engine_of

ORIN = "Jetson AGX Orin"


@pytest.fixture
def bundle(tiny_bundle, tmp_path):
    shutil.copytree(tiny_bundle, tmp_path / "b")
    opened = Bundle.open(tmp_path / "b")
    (tmp_path / "plan").write_bytes(b"an engine")
    made = {"identity": "trt-orin", "file": "model.plan", "runtime": "tensorrt", "target": "sm87"}
    engine = engine_of(opened, tmp_path / "plan", runtime_version="10.3.0", layer_types={}, **made)
    opened.add_engine(engine, tmp_path / "plan")
    return opened


def add(bundle, *, date=None, **changes):
    """Add the bundle's own verdict for a different subject."""
    [standing] = [one for one in records_of(bundle).verified if one.kind == "validation"][:1]
    subject = dataclasses.replace(standing.subject, device=ORIN, **changes)
    result = {**standing.result, "subject": dataclasses.asdict(subject)}
    record = Record("validation", subject, standing.environment, result)
    return bundle.add_record(dataclasses.replace(record, date=date) if date else record)


def of_an_engine(bundle, **changes):
    graph, [engine] = bundle.manifest.files["model.onnx"], bundle.engines()
    fields = {"artefact": "engine", "digest": engine.digest, "engine": "trt-orin", "graph_digest": graph}
    return {**fields, **changes}


def test_a_record_names_the_graph_and_what_ran(bundle):
    graph = bundle.manifest.files["model.onnx"]
    assert {record.subject.graph_digest for record in records_of(bundle).verified} == {graph}
    add(bundle, **of_an_engine(bundle))
    assert ORIN in cnnx.inspect(bundle.path).verdict


def test_an_old_record_of_an_engine_counts_by_the_graph_of_its_description(bundle):
    add(bundle, **of_an_engine(bundle, graph_digest=""))
    assert ORIN in cnnx.inspect(bundle.path).verdict
    file = next(bundle.path.glob("engines/*/engine.json"))
    description = dataclasses.asdict(dataclasses.replace(bundle.engines()[0], graph_digest="a" * 64))
    write_sealed(file, description)
    assert ORIN not in cnnx.inspect(bundle.path).verdict


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"digest": "e" * 64}, "a different graph, with the SHA-256 eeeeeeeeeeee"),
        ({"network": "vgg16"}, "for the network vgg16"),
        ({"precision": "fp32"}, "for fp32"),
        ({"graph_digest": "e" * 64}, "a different graph, with the SHA-256 eeeeeeeeeeee"),
        ({"artefact": "engine", "digest": "e" * 64, "engine": "orin"}, "no intact engine"),
        ({"artefact": "original", "digest": "e" * 64}, "different weights"),
        ({"date": "2999-01-01T00:00:00.000000+00:00"}, "in the future: 2999"),
    ],
)
def test_a_forged_record_is_shown_as_unverified(cnnx_command, bundle, tmp_path, changes, said):
    """In inspect's output, its JSON and every report, and never with its verdict."""
    file = add(bundle, **changes)
    before = cnnx.inspect(bundle.path)
    [unverified] = before.unverified
    assert said in unverified.reason and unverified.file == f"runs/{file.name}"
    assert ORIN not in before.verdict and "on ort" in before.verdict
    code, out, _ = cnnx_command("inspect", bundle.path)
    assert code == 0 and ORIN not in out and "1 unverified record" in out
    _, out, _ = cnnx_command("inspect", bundle.path, "--json")
    result = json.loads(out)["result"]
    assert [one["file"] for one in result["unverified"]] == [f"runs/{file.name}"]
    assert ORIN not in [record["subject"]["device"] for record in result["records"]]
    for suffix in (".md", ".xml", ".csv", ".json"):
        cnnx.write_report(bundle.path, tmp_path / f"r{suffix}")
        text = (tmp_path / f"r{suffix}").read_text()
        assert file.name in text and said in text, suffix
    row = next(row for row in json.loads((tmp_path / "r.json").read_text())["rows"] if row["unverified"])
    assert row["verdict"] is row["top1_agreement"] is None and row["device"] == ORIN


def test_a_record_whose_engine_does_not_match_its_digest_is_unverified(bundle):
    add(bundle, **of_an_engine(bundle, engine="trt-thor"))
    assert any("engine trt-thor" in one.reason for one in records_of(bundle).unverified)


def test_a_verdict_that_its_own_gates_contradict_is_unverified(bundle):
    [standing] = [one for one in records_of(bundle).verified if one.kind == "validation"][:1]
    other = "failed" if standing.result["verdict"] != "failed" else "passed"
    result = {**standing.result, "verdict": other}
    bundle.add_record(Record("validation", standing.subject, standing.environment, result))
    assert any("but the gates give" in one.reason for one in records_of(bundle).unverified)
    assert not cnnx.inspect(bundle.path).verdict.startswith(other)


def test_a_record_of_an_engine_that_was_changed_is_unverified(bundle, tmp_path):
    add(bundle, **of_an_engine(bundle))
    [plan] = bundle.path.glob("engines/*/model.plan")
    plan.write_bytes(b"another engine")
    [unverified] = records_of(bundle).unverified
    assert "no intact engine" in unverified.reason
    cnnx.write_report(bundle.path, tmp_path / "r.md")


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff", b"[" * 100_000, b'{"kind": 1, "kind": 2}', b"3"])
def test_a_damaged_record_hides_no_other(cnnx_command, bundle, damage):
    whole = len(records_of(bundle).verified)
    (bundle.path / "runs" / "20250101-torn.json").write_bytes(damage)
    code, out, _ = cnnx_command("inspect", bundle.path)
    assert code == 0 and "runs/20250101-torn.json" in out and "damaged" in out
    found = cnnx.inspect(bundle.path)
    assert len(found.records) == whole and found.unverified[0].record is None


def resealed(bundle, **changes):
    file = bundle.path / "manifest.json"
    data = json.loads(file.read_text())
    data.pop("seal")
    write_sealed(file, {**data, **changes})


@pytest.mark.parametrize("name", ["model.onnx", "reference.npz", "calibration.json"])
def test_a_file_missing_from_the_manifest_is_not_read_unchecked(bundle, name):
    """The manifest is sealed again; np.load alone would still read the file."""
    files = {key: digest for key, digest in bundle.manifest.files.items() if key != name}
    resealed(bundle, files=files)
    with pytest.raises(BundleError, match="is missing, so the file cannot be verified") as caught:
        cnnx.validate(bundle.path, target="ort")
    assert name in caught.value.what and caught.value.exit_code == 3


@pytest.mark.parametrize("name", ["/etc/passwd", "../secret", "runs/x.json", "a\x00b", "..", "notes.txt"])
def test_a_manifest_lists_only_portable_files(bundle, name):
    resealed(bundle, files={**bundle.manifest.files, name: "0" * 64})
    with pytest.raises(BundleError, match="should be a portable file of a bundle"):
        Bundle.open(bundle.path)


@pytest.mark.parametrize("key", ["file", "identity"])
@pytest.mark.parametrize("name", ["/etc/passwd", "../../manifest.json", "..", "a/b", "a\x00b", ""])
def test_an_engine_names_a_file_in_its_folder(bundle, key, name):
    [file] = bundle.path.glob("engines/*/engine.json")
    write_sealed(file, {**dataclasses.asdict(bundle.engines()[0]), key: name})
    with pytest.raises(BundleError, match=f"{key} should be the name of a file") as caught:
        bundle.engines()
    assert str(file) in caught.value.where


@pytest.mark.parametrize(
    "name", ["model.onnx", "reference.npz", "manifest.json", "engines/trt-orin/model.plan"]
)
def test_a_link_that_leads_out_of_the_bundle_is_refused(bundle, tmp_path, name):
    """Even with the right content; a link within the bundle is followed."""
    file = bundle.path / name
    shutil.move(file, tmp_path / "outside")
    file.symlink_to(tmp_path / "outside")
    with pytest.raises(BundleError, match="is a link to a file outside the bundle"):
        cnnx.inspect(bundle.path)
    file.unlink()
    shutil.move(tmp_path / "outside", file.with_name("inside"))
    file.symlink_to(file.with_name("inside"))
    cnnx.inspect(bundle.path)


def test_a_record_that_is_a_link_out_of_the_bundle_is_not_read(bundle, tmp_path):
    file = sorted(bundle.path.glob("runs/*.json"))[0]
    shutil.move(file, tmp_path / "outside.json")
    file.symlink_to(tmp_path / "outside.json")
    assert "is a link to a file outside the bundle" in records_of(bundle).unverified[0].reason
    file.unlink()
    file.symlink_to(file.name)
    assert "cannot be read" in records_of(bundle).unverified[0].reason


def test_a_subject_without_a_graph_digest_can_be_printed():
    subject = Subject("net", "graph", "a" * 64, "int8", "ort 1", "CPU")
    assert subject.graph_digest == "" and "aaaaaaaaaaaa" in str(subject)


@pytest.mark.parametrize(
    ("shown", "kind", "name"),
    [("CPU: AMD EPYC", "cpu", "AMD EPYC"), ("NVIDIA RTX A2000", "gpu", "NVIDIA RTX A2000")],
)
def test_a_missing_device_kind_is_read_from_the_device_name(bundle, shown, kind, name):
    file = bundle.record_files()[0]
    record = json.loads(file.read_text())
    assert record["subject"]["device_kind"] == "cpu"  # ONNX Runtime's, as it is written now
    for subject in (record["subject"], record["result"]["subject"]):
        del subject["device_kind"]
        subject["device"] = shown
    file.write_text(json.dumps(record))
    subject = next(one.subject for one in records_of(bundle).verified if one.subject.device == shown)
    assert subject.device_kind == kind and subject.on == Device(kind, name) and str(subject.on) == shown


def test_a_stated_device_kind_is_used(bundle):
    subject = Subject("net", "graph", "a" * 64, "int8", "toy 1", "CPU: in name only", device_kind="gpu")
    assert subject.on == Device("gpu", "CPU: in name only") and str(subject.on) == subject.device
    file = bundle.record_files()[0]
    record = json.loads(file.read_text())
    record["subject"]["device_kind"] = "tpu"
    file.write_text(json.dumps(record))
    assert "subject.device_kind" in records_of(bundle).unverified[0].reason
