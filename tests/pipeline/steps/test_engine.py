"""When an engine is built again, and when it is reused."""

import json
import re
import shutil
import tarfile
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from cnnx.bundle import Bundle
from cnnx.errors import BuildFailed
from cnnx.options.bundles import EngineOptions
from cnnx.pipeline.build import build_into
from cnnx.pipeline.progress import Steps
from cnnx.pipeline.steps import engine
from cnnx.pipeline.survey import proof
from cnnx.runtimes import BuildRequest, BuiltEngine
from cnnx.store.cache import Store, cache_folder


@dataclass
class Builder:
    """A runtime for some GPU; its build returns no engines."""

    gpu: str | None = "Orin"
    release: str = "10.3"
    name = "tensorrt"

    def version(self):
        return self.release

    def device(self):
        return self.gpu

    def cannot_run(self):
        return None if self.gpu else RuntimeError("no GPU")

    def build(self, model, request):
        return []


def test_an_engine_serves_the_device_it_was_built_on_or_the_gpus_it_was_built_for(tmp_path, monkeypatch):
    model = tmp_path / "model.onnx"
    model.write_bytes(b"a graph")

    def built(runtime, board="AGX Orin", **asked):
        monkeypatch.setattr(engine, "detect", lambda: SimpleNamespace(board=board))
        request = BuildRequest("int8", {}, **asked)
        steps = Steps(store=Store(tmp_path / "cache"))
        return engine.engine_step(steps, model, runtime=runtime, request=request).entry.reused

    assert not built(Builder()) and built(Builder())
    assert not built(Builder("Thor"))
    assert not built(Builder(), board="Orin NX")  # GPUs of one name differ in size between boards
    assert not built(Builder(release="10.16"))
    assert not built(Builder(), batch=(1, 1, 8))
    cross = {"compute_capabilities": (86,)}
    assert not built(Builder(), **cross)
    assert built(Builder("Thor"), board="another", **cross) and built(Builder(None), **cross)


EVIDENCE = {"inspector.json": '{"Layers": []}', "build.log": "INFO: a line\n"}


class Reporting(Builder):
    """Builds one engine, or refuses it, and reports its layers."""

    refuses = False

    def build(self, model, request):
        if self.refuses:
            raise BuildFailed("1 of 3 layers", hint="check them", evidence=EVIDENCE)
        return [BuiltEngine("trt-sm87", "model.engine", b"plan", "tensorrt", "10.3", evidence=EVIDENCE)]


def test_what_a_builder_reported_is_kept_beside_the_engine_and_travels_in_a_proof(
    tiny_bundle, tmp_path, monkeypatch
):
    """Also for an engine that is refused, which is not in the bundle."""
    monkeypatch.setenv("CNNX_CACHE", str(tmp_path / "cache"))  # pruned below, and other tests use theirs
    bundle, runtime = Bundle.open(shutil.copytree(tiny_bundle, tmp_path / "bundle")), Reporting()
    (made,) = build_into(bundle, runtime, EngineOptions(), Steps(store=Store(tmp_path / "one")))
    folder = bundle.path / "engines" / made.identity
    assert {name: (folder / name).read_text() for name in EVIDENCE} == EVIDENCE
    runtime.refuses = True
    with pytest.raises(BuildFailed, match="1 of 3 layers") as caught:
        build_into(bundle, runtime, EngineOptions(), Steps(store=Store(tmp_path / "two")))
    assert "what the builder reported is in refused-builds/" in caught.value.hint
    assert str(tmp_path) not in caught.value.hint
    kept = re.search("refused-builds/([0-9a-f]{32})", caught.value.hint)[1]
    with pytest.raises(BuildFailed):  # reported again, kept once
        build_into(bundle, runtime, EngineOptions(), Steps(store=Store(tmp_path / "two")))
    proof._write(tmp_path / "proof.tar.gz", {}, "", [bundle.path])
    with tarfile.open(tmp_path / "proof.tar.gz") as tar:
        refused = f"refused/bundle/tensorrt-{kept[:8]}"
        for name in ("engines/bundle/trt-sm87/inspector.json", f"{refused}/inspector.json"):
            assert json.load(tar.extractfile(name)) == {"Layers": []}
        assert f"{refused}/build.log" in tar.getnames()
    assert (cache_folder() / "refused-builds" / kept).is_dir()
    Store().prune(older_than_seconds=-1)
    assert not (cache_folder() / "refused-builds" / kept).exists()
