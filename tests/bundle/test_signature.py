"""What a signature claims, and the files that it covers, without the library that makes signatures."""

import base64
import hashlib
import json
import os

import pytest

from cnnx.bundle import signature
from cnnx.bundle.signature import (
    Deviation,
    claims_of,
    deviations,
    engine_in,
    files_of,
    is_signature,
    read_signature,
    signer_in,
)
from cnnx.bundle.writing import about_signature
from cnnx.errors import BundleError
from tests.bundle.test_bundle import make
from tests.inputs.bundles import engine_of

KIND = "application/vnd.dev.sigstore.bundle.v0.3+json"
PREDICATE = "https://model_signing/signature/v1.0"


def signed(
    name="model.onnx",
    digest="ab",
    *,
    predicate=PREDICATE,
    method="files",
    hashed="sha256",
    algorithm="sha256",
):
    resources = [{"name": name, "algorithm": algorithm, "digest": digest}]
    if algorithm != "sha256":
        resources.append({"name": "another", "algorithm": "sha256", "digest": digest})
    payload = {
        "predicateType": predicate,
        "predicate": {"serialization": {"method": method, "hash_type": hashed}, "resources": resources},
    }
    envelope = {"payload": base64.b64encode(json.dumps(payload).encode()).decode()}
    return json.dumps({"mediaType": KIND, "dsseEnvelope": envelope}).encode()


def test_claims_are_digests_by_path(tmp_path):
    assert claims_of(signed(), where=tmp_path) == {"model.onnx": "ab"}


@pytest.mark.parametrize(
    "other", [{"predicate": "other"}, {"method": "shards"}, {"hashed": "blake2"}, {"algorithm": "blake2"}]
)
def test_claims_in_another_way_are_refused(tmp_path, other):
    with pytest.raises(BundleError, match="in a way that cnnx does not read") as refusal:
        claims_of(signed(**other), where=tmp_path / "model.sig")
    assert "model_signing's default options" in refusal.value.hint


@pytest.mark.parametrize(
    "content",
    [b"{", b"[]", b"{}", b'{"dsseEnvelope": {"payload": "!"}}', b"[" * 100_000, b'{"dsseEnvelope": 1}'],
)
def test_damaged_claims_are_refused(tmp_path, content):
    with pytest.raises(BundleError, match=r"model\.sig is damaged") as refusal:
        claims_of(content, where=tmp_path / "model.sig")
    assert f"cnnx sign {tmp_path} --key KEY" in refusal.value.hint


@pytest.mark.parametrize(
    ("material", "found"),
    [
        ({"publicKey": {"hint": "aa bb"}}, ("key", "aa bb")),
        ({"publicKey": {}}, ("key", "")),
        ({"x509CertificateChain": {}}, ("certificate", "")),
        ({"certificate": {}}, ("sigstore", "")),
    ],
)
def test_a_signer_is_a_key_a_certificate_or_an_identity(material, found):
    assert signer_in(json.dumps({"verificationMaterial": material}).encode()) == found
    assert signer_in(b"{}") == ("sigstore", "")


def test_only_a_file_with_a_signatures_type_is_one(tmp_path, monkeypatch):
    file = tmp_path / "model.sig"
    with pytest.raises(BundleError, match="the bundle is not signed"):
        read_signature(tmp_path)
    for text in ("{", "[1]", "{}", '{"mediaType": "text/plain"}', "[" * 100_000):
        file.write_text(text)
        assert not is_signature(file)
        with pytest.raises(BundleError, match=r"model\.sig is not a signature"):
            read_signature(tmp_path)
    file.write_bytes(signed())
    assert is_signature(file) and read_signature(tmp_path) == signed()
    monkeypatch.setattr(signature, "_MOST_BYTES", len(signed()))
    assert is_signature(file)
    monkeypatch.setattr(signature, "_MOST_BYTES", len(signed()) - 1)
    assert not is_signature(file)
    monkeypatch.undo()
    file.rename(tmp_path / "elsewhere")
    assert not is_signature(file)
    file.symlink_to(tmp_path / "elsewhere")
    assert not is_signature(file)
    with pytest.raises(BundleError, match="is a symbolic link"):
        read_signature(tmp_path)


@pytest.fixture
def bundle(tmp_path):
    for name in (
        "manifest.json", "model.onnx", "model.sig", "engines/a/engine.json", "engines/runs/plan",
        "runs/deep/x.json", ".git/config", ".gitignore", "engines/.git/config",
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    draft = tmp_path / "engines" / ".cnnx-abcdefgh.draft"
    draft.mkdir()
    (draft / "owner.json").write_text('{"maker": "cnnx draft"}')
    return tmp_path


COVERED = {
    "manifest.json", "model.onnx", "engines/a/engine.json", "engines/runs/plan", "engines/.git/config"
}  # fmt: skip


def test_all_files_are_covered_but_records_the_signature_drafts_and_those_of_git(bundle):
    assert set(files_of(bundle)) == COVERED
    draft = "engines/.cnnx-abcdefgh.draft/owner.json"
    assert set(files_of(bundle, everywhere=True)) == {*COVERED, draft}


@pytest.mark.parametrize(
    ("make", "kind"), [("link", "a symbolic link"), ("pipe", "neither a file nor a fold")]
)
def test_what_a_signature_cannot_cover_is_refused_where_it_is_looked_for(bundle, make, kind):
    for place, everywhere in (("engines/x", False), ("engines/x", True), ("runs/x", True)):
        if make == "link":
            (bundle / place).symlink_to(bundle / "model.onnx")
        else:
            os.mkfifo(bundle / place)
        with pytest.raises(BundleError, match=f"{place} is {kind}"):
            list(files_of(bundle, everywhere=everywhere))
        (bundle / place).unlink()
    (bundle / "runs" / "x").symlink_to(bundle / "runs" / "deep")
    assert set(files_of(bundle)) == COVERED


def test_files_that_are_not_as_claimed_are_told_in_order(bundle):
    claims = {name: hashlib.sha256(name.encode()).hexdigest() for name in COVERED}
    assert deviations(bundle, claims) == ()
    (bundle / "new").touch()
    (bundle / "model.onnx").write_text("changed")
    (bundle / "manifest.json").unlink()
    found = [Deviation("manifest.json", "missing"), Deviation("model.onnx", "changed")]
    assert deviations(bundle, claims) == (*found, Deviation("new", "not signed"))
    assert deviations(bundle, claims, hashed=True) == (Deviation("new", "not signed"),)


def test_a_write_tells_what_became_of_the_signature(tmp_path):
    made = make(tmp_path / "b")
    (tmp_path / "plan").write_bytes(b"plan")
    made.add_engine(engine_of(made, tmp_path / "plan"), tmp_path / "plan")
    engines = made.engines()
    assert about_signature(made, engines) == ()
    [removed] = about_signature(made, engines, was_signed=True)
    assert "its signature was removed" in removed
    file, name = made.path / "model.sig", f"engines/{engines[0].identity}/{engines[0].file}"
    for content, covered in (
        (signed(name, engines[0].digest), True),
        (signed(name, "0" * 64), False),
        (signed(), False),
        (json.dumps({"mediaType": KIND}).encode(), False),
    ):
        file.write_bytes(content)
        said = about_signature(made, engines, was_signed=True)
        assert len(said) == (not covered), content
        assert covered or f"does not cover {engines[0].identity}. If you trust" in said[0]
    assert about_signature(made, ()) == ()


@pytest.mark.parametrize(
    ("file", "engine"),
    [
        ("engines/a/engine.json", "a"), ("engines/a/deep/plan", "a"), ("engines/a", ""), ("runs/a/b", ""),
        ("model.onnx", ""),
    ],
)  # fmt: skip
def test_a_file_below_engines_is_that_of_an_engine(file, engine):
    assert engine_in(file) == engine
