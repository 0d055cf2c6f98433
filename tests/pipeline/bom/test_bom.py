"""Bills of materials: valid CycloneDX, the same for the same bundle, and what a registry needs."""

import copy
import errno
import hashlib
import json
import shlex
import shutil
from pathlib import Path

import pytest

import cnnx
from cnnx.bundle import Bundle
from cnnx.errors import WriteFailed
from tests.bundle.test_bundle import make
from tests.inputs.bundles import engine_of, manifest

MODEL_CONFIG = {
    # https://github.com/modelpack/model-spec/blob/main/schema/config-schema.json: no other keys.
    "descriptor": {
        "createdAt", "authors", "family", "name", "docURL", "sourceURL", "datasetsURL", "version", "revision",
        "vendor", "licenses", "title", "description",
    },
    "config": {"architecture", "format", "paramSize", "precision", "quantization", "capabilities"},
    "modelfs": {"type", "diffIds"},
}  # fmt: skip
PRECISIONS = {"float32", "float16", "int8"}


@pytest.fixture
def bundle(tiny_bundle, tmp_path):
    """A bundle that was judged, with an engine and notes of the user."""
    path = Path(shutil.copytree(tiny_bundle, tmp_path / "b"))
    shutil.rmtree(path / "engines", ignore_errors=True)
    (tmp_path / "plan").write_bytes(bytes(1000))
    opened = Bundle.open(path)
    opened.add_engine(engine_of(opened, tmp_path / "plan"), tmp_path / "plan")
    (path / "notes.txt").write_text("kept")
    return path


def checked(document):
    """A document that the schema of CycloneDX 1.6 takes, and whose references all lead somewhere."""
    json_schema = pytest.importorskip("cyclonedx.validation.json", reason="dev: the schemas of CycloneDX")
    from cyclonedx.schema import SchemaVersion

    validator = json_schema.JsonStrictValidator(SchemaVersion.V1_6)
    assert validator.validate_str(json.dumps(document)) is None
    wrong = copy.deepcopy(document)
    wrong["metadata"]["component"]["modelCard"]["modelParameters"]["approach"] = {"type": "made up"}
    assert validator.validate_str(json.dumps(wrong)) is not None
    main = document["metadata"]["component"]
    known = [each["bom-ref"] for each in (main, *main["pedigree"]["ancestors"], *document["components"])]
    assert len(set(known)) == len(known)
    named = {name for each in document["dependencies"] for name in (each["ref"], *each["dependsOn"])}
    named |= {each["ref"] for each in main["modelCard"]["modelParameters"]["datasets"]}
    assert named <= set(known)
    return document


def properties(component):
    return {each["name"]: each["value"] for each in component["properties"]}


def test_a_bill_names_every_file_engine_image_set_and_what_was_measured(bundle, tmp_path, cnnx_command):
    out = tmp_path / "b.cdx.json"
    code, said, _ = cnnx_command("bom", bundle, "--out", out, "--json")
    assert code == 0
    document = checked(json.loads(out.read_text()))
    assert json.loads(said)["result"]["document"] == document
    manifest, main = Bundle.open(bundle).manifest, document["metadata"]["component"]
    assert main["type"] == "machine-learning-model"
    assert main["hashes"] == [{"alg": "SHA-256", "content": manifest.files["model.onnx"]}]
    [weights] = main["pedigree"]["ancestors"]
    assert weights["hashes"][0]["content"] == manifest.weights["digest"] and "licenses" not in main
    files = {each["name"]: each for each in document["components"] if each["type"] == "file"}
    plan = "engines/rtx-1-sm86/model.engine"
    assert set(files) == {"manifest.json", *manifest.files, plan, "engines/rtx-1-sm86/engine.json"}
    for name, each in files.items():
        assert each["hashes"][0]["content"] == hashlib.sha256((bundle / name).read_bytes()).hexdigest()
    assert properties(files[plan])["cnnx:native-code"] == "true"
    needs = {each["ref"]: each["dependsOn"] for each in document["dependencies"]}
    assert needs[f"file:{plan}"] == ["file:model.onnx", "runtime:rtx@1.7.1"]
    sets = {properties(each)["cnnx:role"]: each for each in document["components"] if each["type"] == "data"}
    for role, images in manifest.images.items():
        assert properties(sets[role])["cnnx:list-sha256"] == images.digest
    card = main["modelCard"]
    assert card["modelParameters"]["inputs"] == [{"format": "input: float32 1x1x32x32 NCHW"}]
    [record] = [json.loads(file.read_text()) for file in bundle.glob("runs/*validation*")]
    assert document["metadata"]["timestamp"] == record["date"]
    metrics = {each["type"]: each for each in card["quantitativeAnalysis"]["performanceMetrics"]}
    for gate in record["result"]["gates"]:
        if gate["value"] is None:
            continue
        name = f"{gate['name']} ({gate['unit']})" if gate["unit"] else gate["name"]
        assert float(metrics[name]["value"]) == pytest.approx(gate["value"], rel=1e-5)
        if gate["interval"]:
            low = metrics[name]["confidenceInterval"]["lowerBound"]
            assert float(low) == pytest.approx(gate["interval"]["low"], rel=1e-5)
    limits = card["considerations"]["technicalLimitations"]
    assert any("preprocessing; it is assumed" in limit for limit in limits)


def test_equal_bundles_have_equal_bills_and_others_another_serial_number(bundle, tmp_path):
    first = cnnx.bom(bundle, out=tmp_path / "1").document
    moved = shutil.copytree(bundle, tmp_path / "elsewhere")
    again = cnnx.bom(moved, out=tmp_path / "2")
    assert again.document == first and (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
    shutil.rmtree(moved / "engines")
    assert cnnx.bom(moved, out=tmp_path / "2").document["serialNumber"] != first["serialNumber"]
    shutil.rmtree(moved / "runs")
    unjudged = checked(cnnx.bom(moved, out=tmp_path / "2").document)
    card = unjudged["metadata"]["component"]["modelCard"]
    assert "architectureFamily" not in card["modelParameters"]  # of the user's own network
    assert "timestamp" not in unjudged["metadata"] and "quantitativeAnalysis" not in card
    assert "No verdict on validation images is recorded." in card["considerations"]["technicalLimitations"]


def test_a_licence_is_stated_only_for_the_weights_it_is_for(tmp_path):
    """Published weights have the recipe's licence; stand-ins and the user's own have none that we know."""
    recipe = {**manifest().recipe, "title": "Net"}
    source = {"url": "https://example.com/w.pth", "file": "w-0a1b2c3d.pth"}
    cases = (("pretrained", "Apache-2.0"), ("pretrained", "none stated"), ("standin", "MIT"), ("file", "MIT"))
    found = {}
    for kind, licence in cases:
        made = make(
            tmp_path / f"{kind}-{licence}",
            recipe={**recipe, "weights": {"licence": licence, **source}},
            weights={"kind": kind, "origin": "x", "digest": "1" * 64},
        )
        document = checked(cnnx.bom(made.path, out=tmp_path / "out", modelpack=tmp_path / "pack").document)
        main = document["metadata"]["component"]
        config = json.loads((tmp_path / "pack" / "config.json").read_text())
        assert main["modelCard"]["modelParameters"]["architectureFamily"] == "lenet"
        [ancestor] = main["pedigree"]["ancestors"]
        urls = [each["url"] for each in ancestor.get("externalReferences", [])]
        found[kind, licence] = (main.get("licenses"), config["descriptor"].get("licenses"), urls)
        limits = main["modelCard"]["considerations"]["technicalLimitations"]
        assert any("stand-ins" in limit for limit in limits) == (kind == "standin")
    url = ["https://example.com/w.pth"]
    assert found == {
        ("pretrained", "Apache-2.0"): ([{"license": {"id": "Apache-2.0"}}], ["Apache-2.0"], url),
        ("pretrained", "none stated"): ([{"license": {"name": "none stated"}}], None, url),
        ("standin", "MIT"): (None, None, []),
        ("file", "MIT"): (None, None, []),
    }


def test_a_registry_gets_every_file_that_the_signature_covers_and_the_signature(bundle, tmp_path):
    pytest.importorskip("model_signing", reason="the extra sign")
    from tests.inputs.keys import key_pair

    private, public = key_pair(tmp_path, "ours")
    cnnx.sign(bundle, key=private)
    result = cnnx.bom(bundle, out=tmp_path / "out", modelpack=tmp_path / "pack")
    config = json.loads((tmp_path / "pack" / "config.json").read_text())
    assert set(config) == set(MODEL_CONFIG)
    assert all(set(config[key]) <= known for key, known in MODEL_CONFIG.items())
    assert set(config["config"]["precision"].split(",")) <= PRECISIONS
    assert config["config"]["capabilities"] == {"inputTypes": ["image"], "outputTypes": ["other"]}
    # As `oras push` reads its command: files with media types, in the order of the configuration's layers.
    words = shlex.split(result.commands["oras"])
    given = [word.rsplit(":", 1) for word in words if ":application/" in word]
    (where, kind), *layers = given
    assert kind == "application/vnd.cncf.model.config.v1+json"
    assert json.loads(Path(where).read_text()) == config
    digests = [f"sha256:{hashlib.sha256((bundle / name).read_bytes()).hexdigest()}" for name, _ in layers]
    assert config["modelfs"] == {"type": "layers", "diffIds": digests}
    kinds = dict(layers)
    weight = "application/vnd.cncf.model.weight.v1.raw"
    assert kinds["model.onnx"] == kinds["engines/rtx-1-sm86/model.engine"] == weight
    assert kinds["manifest.json"] == "application/vnd.cncf.model.weight.config.v1.raw"
    annotations = json.loads((tmp_path / "pack" / "annotations.json").read_text())
    assert set(annotations) == {"$manifest", *kinds}
    for name in kinds:
        metadata = json.loads(annotations[name]["org.cncf.model.file.metadata+json"])
        assert annotations[name]["org.cncf.model.filepath"] == metadata["name"] == name
        assert metadata["size"] == (bundle / name).stat().st_size
    # What arrives elsewhere is as it was signed.
    pulled = tmp_path / "pulled"
    for name in kinds:
        (pulled / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bundle / name, pulled / name)
    assert cnnx.verify(pulled, key=public).exit_code == 0
    yaml = pytest.importorskip("yaml", reason="comes with mkdocs")
    kitfile = yaml.safe_load((tmp_path / "pack" / "Kitfile").read_text())
    assert set(kitfile) == {"manifestVersion", "package", "model", "datasets", "docs"}
    paths = [
        each["path"]
        for each in (kitfile["model"], *kitfile["model"]["parts"], *kitfile["datasets"], *kitfile["docs"])
    ]
    assert sorted(paths) == sorted(kinds) and kitfile["model"]["path"] == "model.onnx"


def test_text_of_a_recipe_cannot_break_a_kitfile(tmp_path):
    yaml = pytest.importorskip("yaml", reason="comes with mkdocs")
    summary = 'line\nmodel: {path: "/etc/passwd"}\t# "quoted" \\ Größe \x7f'
    recipe = {**manifest().recipe, "summary": summary}
    made = make(tmp_path / "b", recipe=recipe)
    cnnx.bom(made.path, out=tmp_path / "out", modelpack=tmp_path / "pack")
    kitfile = yaml.safe_load((tmp_path / "pack" / "Kitfile").read_text())
    assert kitfile["package"]["description"] == summary and kitfile["model"]["path"] == "model.onnx"


def test_files_of_a_pack_appear_together_or_not_at_all(bundle, tmp_path, monkeypatch):
    """One alone would be taken for the user's at the next time, and refused."""
    pack = tmp_path / "pack"

    def full(self, *arguments, real=Path.write_text, **more):
        if self.name == "annotations.json":
            raise OSError(errno.ENOSPC, "No space left on device", str(self))
        return real(self, *arguments, **more)

    with monkeypatch.context() as patched, pytest.raises(WriteFailed):
        patched.setattr(Path, "write_text", full)
        cnnx.bom(bundle, out=tmp_path / "out", modelpack=pack)
    assert not pack.exists()
    for _ in range(2):
        cnnx.bom(bundle, out=tmp_path / "out", modelpack=pack)
        assert {path.name for path in pack.iterdir()} == {"Kitfile", "config.json", "annotations.json"}


def test_a_damaged_engine_or_a_path_in_the_bundle_is_refused_before_anything_is_written(
    bundle, tmp_path, cnnx_command
):
    for options in (("--out", bundle / "bom.json"), ("--out", tmp_path / "o", "--modelpack", bundle / "x")):
        code, _, said = cnnx_command("bom", bundle, *options)
        assert code == 2 and "choose a path outside the bundle" in said
    (bundle / "engines" / "rtx-1-sm86" / "model.engine").write_bytes(b"changed")
    code, _, said = cnnx_command("bom", bundle, "--out", tmp_path / "o")
    assert code == 3 and "model.engine was modified" in said
    assert not (tmp_path / "o").exists() and not (bundle / "x").exists()
