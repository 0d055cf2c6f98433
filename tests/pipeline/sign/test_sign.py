"""Signatures: what they cover, what is refused, and that Model Signing's own command agrees."""

import base64
import dataclasses
import hashlib
import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cnnx
from cnnx.bundle import Bundle
from cnnx.bundle.signature import SIGNATURE, claims_of
from cnnx.errors import BundleError, UsageError
from cnnx.pipeline.sign import openssf, trust
from cnnx.pipeline.sign.trust import open_bundle
from cnnx.runtimes.trt import runtime as trt
from cnnx.runtimes.trt.runtime import TrtRuntime
from tests.bundle.test_bundle import make
from tests.doubles.imitated_trt import ImitatedBindings
from tests.inputs.bundles import engine_of

pytest.importorskip("model_signing", reason="the extra sign")
from tests.inputs.keys import authority, key_pair

PHOTO = Path(__file__).parents[2] / "data" / "golden" / "portrait.png"

LOADERS = {
    "validate": (),
    "validate --from": ("--from", "runs"),
    "bench": ("--seconds", "0.01", "--percentile", "50"),
    "classify": (str(PHOTO),),
    "preflight": (),
    "inspect": (),
    "diagnose": (),
    "tune": ("--target", "ort"),
    "build": ("--target", "rtx", "--sm", "86"),
}
"""Every command that loads a graph or an engine of a bundle."""


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    return {name: key_pair(folder, name) for name in ("ours", "theirs")}


@pytest.fixture(scope="module")
def signed_once(tmp_path_factory, keys):
    """A bundle of invented files with an engine, signed; left as it is."""
    folder = tmp_path_factory.mktemp("bundle")
    made = make(folder / "b")
    (folder / "plan").write_bytes(bytes(1000))
    made.add_engine(engine_of(made, folder / "plan"), folder / "plan")
    (made.path / "notes.txt").write_text("kept")
    cnnx.sign(made.path, key=keys["ours"][0])
    return made.path


@pytest.fixture
def signed(signed_once, tmp_path):
    return Path(shutil.copytree(signed_once, tmp_path / "b"))


@pytest.fixture
def works(tiny_bundle, tmp_path, keys):
    """A bundle that runs, signed."""
    path = Path(shutil.copytree(tiny_bundle, tmp_path / "works"))
    cnnx.sign(path, key=keys["ours"][0])
    return path


def official(*arguments):
    command = [sys.executable, "-m", "model_signing", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def record_added(path):
    """What measuring adds."""
    (path / "runs").mkdir(exist_ok=True)
    (path / "runs" / "2026-selftest.json").write_text("{}")


def test_a_signature_covers_all_but_the_records_and_our_own_and_the_official_command_agree(
    signed, keys, cnnx_command
):
    claims = json.loads((signed / SIGNATURE).read_bytes())["dsseEnvelope"]["payload"]
    covered = {each["name"] for each in json.loads(base64.b64decode(claims))["predicate"]["resources"]}
    files = {str(file.relative_to(signed)) for file in signed.rglob("*") if file.is_file()}
    assert covered == files - {SIGNATURE} and "engines/rtx-1-sm86/model.engine" in covered
    record_added(signed)
    code, out, _ = cnnx_command("verify", signed, "--key", keys["ours"][1])
    assert code == 0 and "as it was signed" in out
    arguments = (
        "verify",
        "key",
        signed,
        "--signature",
        signed / SIGNATURE,
        "--ignore-paths",
        signed / "runs",
    )
    assert official(*arguments, "--public_key", keys["ours"][1]).returncode == 0
    assert official(*arguments, "--public_key", keys["theirs"][1]).returncode == 1
    moved = signed.rename(signed.with_name("elsewhere"))
    assert cnnx.verify(moved, key=str(keys["ours"][1])).exit_code == 0


def test_a_bundle_signed_by_the_official_command_is_accepted(signed, keys):
    (signed / SIGNATURE).unlink()
    record_added(signed)
    arguments = ("sign", "key", signed, "--signature", signed / SIGNATURE, "--ignore-paths", signed / "runs")
    assert official(*arguments, "--private_key", keys["theirs"][0]).returncode == 0
    assert cnnx.verify(signed, key=[keys["ours"][1], keys["theirs"][1]]).key == keys["theirs"][1]
    assert open_bundle(signed, keys["theirs"][1]).engines()
    with pytest.raises(BundleError, match="not by"):
        open_bundle(signed, keys["ours"][1])


def test_certificates_are_followed_to_the_root_that_is_trusted(signed, tmp_path, keys, cnnx_command):
    root, middle, key, certificate = authority(tmp_path, "ours")
    other, *_ = authority(tmp_path, "other")
    options = ("--key", key, "--certificate", certificate, "--chain", middle)
    code, out, said = cnnx_command("sign", signed, *options, "--json")
    assert code == 0, said
    assert json.loads(out)["result"]["replaced"] is True
    assert cnnx.verify(signed, key=root).kind == "certificate"
    arguments = ("verify", "certificate", signed, "--signature", signed / SIGNATURE)
    assert official(*arguments, "--certificate_chain", root).returncode == 0
    for wrong, says in ((other, "not by"), (keys["ours"][1], "with a certificate"), (certificate, "not by")):
        code, _, said = cnnx_command("verify", signed, "--key", wrong)
        assert code == 3 and says in said, said
    (signed / SIGNATURE).unlink()
    arguments = ("sign", "certificate", signed, "--signature", signed / SIGNATURE)
    arguments += ("--private_key", key, "--signing_certificate", certificate, "--certificate_chain", middle)
    assert official(*arguments).returncode == 0
    assert open_bundle(signed, [keys["ours"][1], root]).manifest


def test_a_passphrase_comes_from_the_environment_and_not_from_the_command_line(
    signed, tmp_path, cnnx_command, monkeypatch
):
    private, public = key_pair(tmp_path, "locked", passphrase="Größe")
    code, _, said = cnnx_command("sign", signed, "--key", private)
    assert code == 2 and "CNNX_KEY_PASSPHRASE" in said
    monkeypatch.setenv("CNNX_KEY_PASSPHRASE", "wrong")
    assert cnnx_command("sign", signed, "--key", private)[0] == 2
    monkeypatch.setenv("CNNX_KEY_PASSPHRASE", "Größe")
    assert cnnx_command("sign", signed, "--key", private)[0] == 0
    assert cnnx.verify(signed, key=public).exit_code == 0
    with pytest.raises(UsageError, match="together with a certificate"):
        cnnx.sign(signed, key=private, certificate=public)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_whatever_happens_to_a_signed_bundle_is_refused(signed_once, keys, tmp_path_factory, data):
    path = Path(shutil.copytree(signed_once, tmp_path_factory.mktemp("copy") / "b"))
    files = sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())
    file = path / data.draw(st.sampled_from(files))
    act = data.draw(st.sampled_from(("change", "remove", "link", "add", "cut")))
    if act == "change":
        content = bytearray(file.read_bytes())
        # Base64 and JSON have several spellings of one signature.
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
        file.write_bytes(content)
    elif act == "cut":
        file.write_bytes(file.read_bytes()[: data.draw(st.integers(0, file.stat().st_size - 1))])
    elif act == "add":
        file = file.with_name(data.draw(st.sampled_from(("extra.bin", ".hidden", "model.onnx.data"))))
        file.write_bytes(b"x")
    else:
        content = file.read_bytes()
        file.unlink()
        if act == "link":
            elsewhere = path.parent / "elsewhere"
            elsewhere.write_bytes(content)
            file.symlink_to(elsewhere)
    same = act == "change" and file.name == SIGNATURE
    try:
        result = cnnx.verify(path, key=keys["ours"][1])
    except BundleError:
        pass
    else:
        assert result.exit_code == 3 or same
    try:
        opened = open_bundle(path, keys["ours"][1])
        for engine in opened.engines():
            opened.engine_file(engine)
    except BundleError:
        return
    # A file beside an engine is never loaded; `verify` reports it.
    assert same or (act == "add" and file.parent.parent.name == "engines")


def test_a_resealed_bundle_passes_without_a_signature_and_not_with_one(signed, keys):
    """The seal guards against accidents: whoever can write can seal again."""
    old = Bundle.open(signed)
    for name in ("manifest.json", "model.onnx"):
        (signed / name).unlink()
    forged = make(signed.parent / "forged", fingerprint="0" * 64)
    for name in ("manifest.json", "model.onnx", "reference.npz", "labels.txt", "calibration.json"):
        shutil.copyfile(forged.path / name, signed / name)
    assert Bundle.open(signed).manifest != old.manifest
    with pytest.raises(BundleError, match=r"manifest\.json is changed"):
        open_bundle(signed, keys["ours"][1])


def test_what_is_exchanged_between_the_check_and_the_use_is_refused(signed, keys, monkeypatch):
    forged = make(signed.parent / "forged", fingerprint="0" * 64).path / "manifest.json"
    genuine, after_check = signed / "manifest.json", trust.refuse_changes
    content = genuine.read_bytes()

    def exchange(*arguments):
        after_check(*arguments)
        shutil.copyfile(forged, genuine)

    with monkeypatch.context() as patch:
        patch.setattr(trust, "refuse_changes", exchange)
        with pytest.raises(BundleError, match="changed after it was signed"):
            open_bundle(signed, keys["ours"][1])
    genuine.write_bytes(content)
    opened = open_bundle(signed, keys["ours"][1])
    (signed.parent / "plan").write_bytes(b"other code")
    other = engine_of(opened, signed.parent / "plan")
    Bundle.open(signed).add_engine(other, signed.parent / "plan")
    for engine in opened.engines():
        with pytest.raises(BundleError, match="does not cover engines/rtx-1-sm86"):
            opened.engine_file(engine)


def test_a_package_keeps_the_signature_only_if_it_covers_what_is_in_it(works, keys, tmp_path):
    """With an engine, and what its builder reported beside it."""
    (tmp_path / "built").mkdir()
    (plan := tmp_path / "built" / "plan").write_bytes(bytes(100))
    (tmp_path / "built" / "build.log").write_text("reported")
    opened = Bundle.open(works)
    opened.add_engine(engine_of(opened, plan), plan)
    cnnx.sign(works, key=keys["ours"][0])
    whole = cnnx.write_package(works, consumer="python", out=tmp_path / "whole")
    assert "bundle/engines/rtx-1-sm86/build.log" in whole.files
    assert cnnx.verify(whole.folder / "bundle", key=keys["ours"][1]).exit_code == 0
    (works / "notes.txt").write_text("mine")
    cnnx.sign(works, key=keys["ours"][0])
    part = cnnx.write_package(works, consumer="python", out=tmp_path / "part")
    assert "bundle/model.sig" not in part.files
    assert any("so it was left out" in note for note in part.notes)


@pytest.mark.parametrize("verb", LOADERS)
def test_every_command_that_loads_refuses_before_anything_is_read(works, keys, cnnx_command, verb, tmp_path):
    ours, theirs = keys["ours"][1], keys["theirs"][1]
    command = [verb.split()[0], works, *LOADERS[verb]]
    code, _, said = cnnx_command(*command, "--require-signature", theirs)
    assert code == 3 and "the signature is not by" in said
    (works / "model.onnx").write_bytes(b"not even a graph")
    code, _, said = cnnx_command(*command, "--require-signature", ours)
    assert code == 3 and "model.onnx is changed" in said and "cnnx sign" not in said
    (works / SIGNATURE).unlink()
    code, out, _ = cnnx_command(
        *command, "--require-signature", theirs, "--require-signature", ours, "--json"
    )
    error = json.loads(out)["error"]
    assert (
        code == 3 and error["kind"] == "BundleError" and "not signed: model.sig is missing" in error["what"]
    )


def test_a_signed_bundle_is_used_as_before_and_its_records_do_not_matter(works, keys, cnnx_command):
    required = ("--require-signature", keys["ours"][1])
    for verb in ("validate", "inspect", "bench"):
        assert cnnx_command(verb, works, *LOADERS[verb], *required)[0] == 0
    assert (
        list((works / "runs").glob("*selftest*")) and cnnx.verify(works, key=keys["ours"][1]).exit_code == 0
    )
    with cnnx.load(works, require_signature=str(keys["ours"][1])) as net:
        assert net.bundle.signed
    with pytest.raises(BundleError, match="the signature is not by"):
        cnnx.load(works, require_signature=[keys["theirs"][1]])
    for nothing in ([], ""):  # such as an unset variable: not the same as requiring no signature
        for loads in (cnnx.load, cnnx.inspect, partial(cnnx.classify, images=[PHOTO])):
            with pytest.raises(UsageError, match=r"key|read"):
                loads(works, require_signature=nothing)


def test_an_engine_that_was_built_later_is_refused_until_the_bundle_is_signed_again(
    works, keys, cnnx_command, monkeypatch
):
    monkeypatch.setattr(trt, "RUNTIME", TrtRuntime(ImitatedBindings("11.4.0.106")))
    required = ("--require-signature", keys["ours"][1])
    code, out, said = cnnx_command("build", works, "--target", "tensorrt", *required)
    assert code == 0 and "The signature does not cover tensorrt" in out, said
    [engine] = Bundle.open(works).engines()
    assert cnnx_command("build", works, "--target", "tensorrt", *required)[0] == 0  # it loads the graph only
    for verb in ("validate", "classify", "bench", "inspect"):
        code, _, said = cnnx_command(verb, works, *LOADERS[verb], *required)
        assert code == 3 and f"does not cover engines/{engine.identity}" in said and "cnnx sign" in said, verb
    assert cnnx_command("validate", works, "--target", "ort", *required)[0] == 0
    code, out, _ = cnnx_command("preflight", works, *required, "--rebuild", "--json")
    checks = {each["name"]: each for each in json.loads(out)["result"]["checks"] if each["engine"]}
    assert (
        code == 4
        and checks["signature"]["outcome"] == "differs"
        and "cnnx sign" in checks["signature"]["fix"]
    )
    code, out, _ = cnnx_command("verify", works, "--key", keys["ours"][1])
    assert code == 3 and f"engines/{engine.identity}/engine.json" in out and "not signed" in out
    cnnx.sign(works, key=keys["ours"][0])
    assert cnnx.validate(works, require_signature=keys["ours"][1]).self_test.subject.engine == engine.identity
    # A different engine under the same name: its description and its seal are right.
    plan = works.parent / "plan"
    plan.write_bytes(b"other code")
    other = dataclasses.replace(engine, digest=engine_of(Bundle.open(works), plan).digest)
    Bundle.open(works).add_engine(other, plan)
    assert cnnx_command("validate", works, *required)[0] == 3


def test_a_replaced_bundle_loses_its_signature_and_says_so(signed, keys, cnnx_command, tiny, tmp_path):
    from tests.inputs.tiny import FEW

    out = tmp_path / "again"
    export = ["export", tiny, *FEW, "--target", "ort", "--out", out]
    assert cnnx_command(*export, "--fp16")[0] in (0, 6)
    cnnx.sign(out, key=keys["ours"][0])
    _, said, _ = cnnx_command(*export, "--fp16")
    assert "signature" not in said and cnnx.verify(out, key=keys["ours"][1]).exit_code == 0
    _, said, _ = cnnx_command(*export, "--int8")
    assert "its signature was removed" in said and not (out / SIGNATURE).exists()
    assert "not part of the bundle" not in said
    # What is not a signature is the user's, under any name.
    (out / SIGNATURE).write_text("my own notes")
    _, said, _ = cnnx_command(*export, "--fp16")
    assert (out / SIGNATURE).read_text() == "my own notes" and "not part of the bundle: model.sig" in said
    cnnx.sign(out, key=keys["ours"][0])
    assert (out / f"{SIGNATURE}.kept-1").read_text() == "my own notes"


def test_nothing_outside_is_written_or_vouched_for_by_links(signed, keys, tmp_path, cnnx_command):
    outside = tmp_path / "outside"
    outside.write_text("untouched")
    (signed / SIGNATURE).unlink()
    (signed / SIGNATURE).symlink_to(outside)
    for command in (("sign", "--key", keys["ours"][0]), ("verify", "--key", keys["ours"][1])):
        code, _, said = cnnx_command(command[0], signed, *command[1:])
        assert code == 3 and "symbolic link" in said
    assert outside.read_text() == "untouched"
    (signed / SIGNATURE).unlink()
    (signed / "runs").mkdir()
    (signed / "runs" / "r.json").symlink_to(outside)
    assert cnnx_command("sign", signed, "--key", keys["ours"][0])[0] == 3
    (signed / "runs" / "r.json").unlink()
    (tmp_path / "link").symlink_to(signed)  # the folder itself may be one
    assert cnnx_command("sign", tmp_path / "link", "--key", keys["ours"][0])[0] == 0
    assert cnnx_command("verify", tmp_path / "link", "--key", keys["ours"][1])[0] == 0


def test_a_damaged_bundle_is_not_signed(signed, keys):
    before = (signed / SIGNATURE).read_bytes()
    engine = signed / "engines" / "rtx-1-sm86" / "model.engine"
    engine.write_bytes(b"changed")
    with pytest.raises(BundleError, match="was modified"):
        cnnx.sign(signed, key=keys["ours"][0])
    (signed / "model.onnx").write_bytes(b"changed")
    with pytest.raises(BundleError, match="was modified"):
        cnnx.sign(signed, key=keys["ours"][0])
    assert (signed / SIGNATURE).read_bytes() == before


def test_keys_that_cannot_be_used_are_refused_with_what_helps(signed, keys, tmp_path, cnnx_command):
    private, public = keys["ours"]
    (tmp_path / "text").write_text("no key")
    (tmp_path / "cut").write_text(public.read_text()[:60])
    for file, says in (
        (private, "openssl pkey"), (tmp_path / "text", "neither a public key"),
        (tmp_path / "cut", "cannot be used"), (tmp_path / "missing", "No such file"),
    ):  # fmt: skip
        for command in (("verify", "--key"), ("inspect", "--require-signature")):
            code, _, said = cnnx_command(command[0], signed, command[1], file)
            assert code == 2 and says in said, said
    for file in (public, tmp_path / "text", tmp_path / "missing"):
        assert cnnx_command("sign", signed, "--key", file)[0] == 2
    assert cnnx_command("verify", signed)[0] == 2
    assert cnnx_command("sign", signed, "--key", private, "--chain", public)[0] == 2


def test_signatures_that_cnnx_cannot_read_are_refused(signed, keys):
    whole = json.loads((signed / SIGNATURE).read_bytes())
    payload = json.loads(base64.b64decode(whole["dsseEnvelope"]["payload"]))
    payload["predicate"]["serialization"]["method"] = "shards"
    sharded = dict(whole, dsseEnvelope={"payload": base64.b64encode(json.dumps(payload).encode()).decode()})
    keyless = dict(whole, verificationMaterial={"certificate": {"rawBytes": ""}, "tlogEntries": []})
    for content, says in (
        (sharded, "in a way that cnnx does not read"), (keyless, "with Sigstore"),
        ({"mediaType": whole["mediaType"]}, "is damaged"), ([1], "is not a signature"),
    ):  # fmt: skip
        (signed / SIGNATURE).write_text(json.dumps(content))
        with pytest.raises(BundleError, match=says):
            open_bundle(signed, keys["ours"][1])


def test_what_is_covered_is_what_was_authenticated(signed, keys, monkeypatch):
    """Not what a second reader of the file makes of it, such as one that prefers another of two envelopes."""
    plan = signed.parent / "plan"
    plan.write_bytes(b"malice")
    opened = Bundle.open(signed)
    added = engine_of(opened, plan, identity="added")
    opened.add_engine(added, plan)
    claims = claims_of((signed / SIGNATURE).read_bytes(), where=signed)
    for file in (signed / "engines" / "added").iterdir():
        claims[f"engines/added/{file.name}"] = hashlib.sha256(file.read_bytes()).hexdigest()
    monkeypatch.setattr(openssf, "claims_of", lambda *_, **__: claims)
    with pytest.raises(BundleError, match="does not cover engines/added"):
        open_bundle(signed, keys["ours"][1]).engine_file(added)


def test_without_model_signing_the_extra_is_named(signed, keys, cnnx_command, monkeypatch):
    monkeypatch.setitem(sys.modules, "model_signing", None)
    for command in (
        ("sign", signed, "--key", keys["ours"][0]),
        ("verify", signed, "--key", keys["ours"][1]),
        ("inspect", signed, "--require-signature", keys["ours"][1]),
    ):
        code, _, said = cnnx_command(*command)
        assert code == 4 and ".[sign]" in said and "model-signing" in said
