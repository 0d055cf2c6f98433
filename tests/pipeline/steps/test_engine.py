"""When an engine is built again, and when it is reused."""

from dataclasses import dataclass
from types import SimpleNamespace

from cnnx.pipeline.progress import Steps
from cnnx.pipeline.steps import engine
from cnnx.runtimes import BuildRequest
from cnnx.store.cache import Store


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
