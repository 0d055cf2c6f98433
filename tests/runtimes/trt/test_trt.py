"""TensorRT with imitated bindings of 10.3 and 11.4 (imitated_trt.py); tests/gpu has the real ones."""

from __future__ import annotations

import hashlib
import importlib.util
import json

import numpy as np
import onnx
import pytest

from cnnx.errors import BuildFailed, BundleError, EnvironmentLacks, GraphError, MissingExtra, UsageError
from cnnx.machine.environment import detect
from cnnx.runtimes import USUAL, BuildOptions, BuildRequest, RunOptions
from cnnx.runtimes.trt import runtime as trt
from cnnx.runtimes.trt.dla import why_no_dla
from cnnx.runtimes.trt.runtime import TrtRuntime
from tests.doubles.imitated_trt import ORIN, ImitatedBindings, machine

LAYERS = ("conv1", "conv2", "fc")
RELEASES = ("10.3.0", "11.4.0.106")
JETSON = {"board": ORIN, "jetpack": "6.2", "l4t": "36.4.3", "machine": "aarch64"}


def request(kind, *, batch=(1, 1, 1), **options):
    return BuildRequest(kind, dict.fromkeys(LAYERS, kind), batch=batch, options=BuildOptions(**options))


def build(bindings, file, asked):
    (engine,) = TrtRuntime(bindings).build(file, asked)
    return engine


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("batch", [1, "N"])
def test_every_layer_is_of_the_type_the_graph_gives_it(net, release, precision, batch):
    bindings = ImitatedBindings(release)
    built = build(
        bindings,
        net(precision, batch=batch),
        request(precision, batch=(1, 1, 1) if batch == 1 else (1, 4, 4)),
    )
    assert built.layer_types == dict.fromkeys(LAYERS, precision)
    short = ".".join(release.split(".")[:3])
    assert (built.identity, built.target) == (f"tensorrt-{short}-sm87-host", "sm87")
    assert (built.runtime_version, built.reach, built.remarks) == (release, "gpu", ())
    config = bindings.config
    assert bindings.loaded.trt.BuilderFlag.TF32 not in config.flags
    assert (config.limits, config.cache) == ({}, None)
    assert len(config.profiles) == (batch == "N")


def test_a_new_log_has_nothing_to_tell():
    log = ImitatedBindings().loaded.log
    assert (log.layers, log.said(), log.skipped_tactics()) == ("", "no reason was given", "")
    log.log(log.ERROR, "out of luck")
    log.log(log.WARNING, "one thing")
    assert log.said() == "out of luck"
    log.clear()
    assert log.said() == "no reason was given"


def test_engines_tuned_for_different_batches_have_different_names(net):
    file = net("fp16", batch="N")
    found = [build(ImitatedBindings(), file, request("fp16", batch=(1, best, 8))).identity for best in (1, 8)]
    assert found == ["tensorrt-10.3.0-sm87-host-opt1", "tensorrt-10.3.0-sm87-host"]


@pytest.mark.parametrize(
    ("here", "device"),
    [
        ({"board": ORIN, "l4t": "36.4.3"}, "nvidia-jetson-agx-orin-developer-kit"),
        ({"board": "Raspberry Pi 5"}, "host"),  # with a GPU on its PCIe
        ({"l4t": "36.4.3"}, "host"),
    ],
)
def test_an_engine_is_tied_to_a_jetson_by_its_board_and_elsewhere_to_the_gpu(net, here, device):
    bindings = ImitatedBindings(here=machine(**here))
    assert build(bindings, net("fp16"), request("fp16")).identity == f"tensorrt-10.3.0-sm87-{device}"


@pytest.mark.parametrize("release", RELEASES)
def test_a_type_not_reached_fails_and_names_each_layer(net, release):
    bindings = ImitatedBindings(release, gives={"conv2": "fp32"}, hides=("fc",), says=[("INFO", "a line")])
    with pytest.raises(BuildFailed) as caught:
        build(bindings, net("fp16"), request("fp16"))
    assert caught.value.exit_code == 5
    assert "1 of 3 layers" in caught.value.what
    assert "conv2: fp32 instead of fp16" in caught.value.what and "fc" not in caught.value.what
    evidence = caught.value.evidence
    assert json.loads(evidence["inspector.json"])["Layers"] and "a line" in evidence["build.log"]
    narrows = ImitatedBindings(release, gives={"conv2": "fp16", "fc": "int8"})
    with pytest.raises(BuildFailed, match="2 of 3 layers") as caught:
        build(narrows, net("fp32"), request("fp32"))
    assert "include its activation in the FP32 part" in caught.value.hint


def dotted(net, tmp_path):
    """An FP16 net with names as of PyTorch's modules, whose input is cast by a node that cnnx names."""
    model = onnx.load(net("fp16"))
    names = {"conv1": "layers.0.conv", "cast_in": "input.fp16"}
    for node in model.graph.node:
        node.name = names.get(node.name, node.name)
    onnx.save(model, tmp_path / "dotted.onnx")
    return tmp_path / "dotted.onnx"


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize(
    ("behaviour", "unseen"),
    [
        # A cast fused into a Myelin convolution: it reads FP32, and what it multiplies by is not reported.
        ({"fuses": ("layers.0.conv",)}, ("layers.0.conv",)),
        ({"foreign": True}, ("layers.0.conv", "conv2", "fc")),
    ],
)
def test_what_the_inspector_does_not_tell_refuses_nothing(net, tmp_path, release, behaviour, unseen):
    """It is a remark, and what it told is kept."""
    asked = BuildRequest("fp16", dict.fromkeys(("layers.0.conv", "conv2", "fc"), "fp16"))
    built = build(ImitatedBindings(release, **behaviour), dotted(net, tmp_path), asked)
    assert set(built.layer_types) == {"layers.0.conv", "conv2", "fc"} - set(unseen)
    (remark,) = built.remarks
    assert remark.startswith(f"{len(unseen)} of 3 layers have no type") and ", ".join(unseen[:1]) in remark
    assert json.loads(built.evidence["inspector.json"])["Layers"]


def test_every_option_reaches_the_configuration(net, tmp_path):
    bindings = ImitatedBindings("11.4.0.106")
    options = {
        "workspace_bytes": 1 << 28,
        "optimization_level": 5,
        "hardware_compatibility": "same_compute_capability",
        "version_compatible": True,
        "timing_cache_folder": str(tmp_path),
    }
    built = build(bindings, net("fp16"), request("fp16", **options))
    made, config = bindings.loaded.trt, bindings.config
    assert config.limits == {made.MemoryPoolType.WORKSPACE: 1 << 28}
    assert config.builder_optimization_level == 5
    assert config.hardware_compatibility_level == made.HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY
    assert made.BuilderFlag.VERSION_COMPATIBLE in config.flags
    assert built.identity.endswith("-same-compute-capability-version-compatible")
    assert (built.reach, built.version_compatible) == ("compute_capability", True)


def test_options_that_a_release_or_device_does_not_support_are_rejected(net):
    file = net("fp16")
    with pytest.raises(
        UsageError, match=r"10\.3\.0 does not support hardware compatibility 'same_compute_capability'"
    ):
        build(ImitatedBindings(), file, request("fp16", hardware_compatibility="same_compute_capability"))
    ampere = request("fp16", hardware_compatibility="ampere_plus")
    assert build(ImitatedBindings(), file, ampere).reach == "ampere_plus"
    with pytest.raises(UsageError, match="does not support hardware compatibility on Jetson"):
        build(ImitatedBindings(here=machine(**JETSON)), file, ampere)
    oldest = ImitatedBindings()
    oldest.device.compute_capability = lambda: 80
    assert build(oldest, file, ampere).target == "sm80"
    turing = ImitatedBindings()
    turing.device.compute_capability = lambda: 75
    with pytest.raises(UsageError, match="SM 75"):
        build(turing, file, ampere)


@pytest.mark.parametrize("wrong", [{"workspace_bytes": 0}, {"optimization_level": 6}, {"dla_core": -1}])
def test_options_out_of_range(wrong):
    with pytest.raises(UsageError):
        BuildOptions(**wrong)


def test_the_timing_cache_is_kept_between_builds(net, tmp_path):
    """There is one file for each GPU and release; the hash is that of the saved file."""
    bindings, asked = ImitatedBindings(), request("fp16", timing_cache_folder=str(tmp_path / "caches"))
    for built_so_far in (b"+", b"++"):
        built = build(bindings, net("fp16"), asked)
        (file,) = (tmp_path / "caches").iterdir()
        assert (file.name, file.read_bytes()) == ("host-10.3.0.timing", built_so_far)
        assert built.timing_cache == hashlib.sha256(built_so_far).hexdigest()
        assert built.remarks == ()
    build(ImitatedBindings("11.4.0.106"), net("fp16"), asked)
    assert len(list((tmp_path / "caches").iterdir())) == 2


@pytest.mark.parametrize("how", ["none", "raise", "mismatch"])
def test_a_timing_cache_that_cannot_be_used_is_replaced_with_a_remark(net, tmp_path, how):
    (tmp_path / "host-10.3.0.timing").write_bytes(b"junk")
    bindings = ImitatedBindings(caches={b"junk": how})
    built = build(bindings, net("fp16"), request("fp16", timing_cache_folder=str(tmp_path)))
    assert len(built.remarks) == 1 and "replaced the timing cache" in built.remarks[0]
    assert (tmp_path / "host-10.3.0.timing").read_bytes() == b"+"


SKIPPED = [
    (
        "WARNING",
        "Tactic Device request: 448MB Available: 425MB. Device memory is insufficient to use tactic.",
    ),
    (
        "WARNING",
        "Skipping tactic 3 due to insufficient memory on requested size of 448 detected for tactic 4.",
    ),
    (
        "WARNING",
        "Tactic Device request: 538MB Available: 166MB. Device memory is insufficient to use tactic.",
    ),
    (
        "WARNING",
        "Skipping tactic 8 due to insuficient memory on requested size of 538 detected for tactic 60.",
    ),
]


def test_skipped_tactics_become_one_readable_remark(net):
    """Messages as in TensorRT issue #1661 and ultralytics #14751."""
    built = build(ImitatedBindings(says=SKIPPED), net("fp16"), request("fp16"))
    (remark,) = built.remarks
    assert remark.startswith(
        "2 tactics were skipped for lack of memory (the largest needed 538 MB, 166 MB were free)"
    )


@pytest.mark.parametrize(
    "says",
    [SKIPPED, [("ERROR", "[defaultAllocator.cpp] Error Code 1: Cuda Runtime (out of memory)")]],
    ids=["tactics", "allocator"],
)
def test_a_build_without_enough_memory_has_a_message_and_a_hint(net, says):
    with pytest.raises(BuildFailed, match="memory") as caught:
        build(ImitatedBindings(says=says, fails=True), net("fp16"), request("fp16"))
    assert "workspace" in caught.value.hint and caught.value.exit_code == 5


def test_older_log_messages_are_not_reported_for_a_build(net):
    bindings = ImitatedBindings(fails=True)
    bindings.loaded.log.log(bindings.loaded.trt.ILogger.ERROR, "stale words")
    with pytest.raises(BuildFailed) as caught:
        build(bindings, net("fp16"), request("fp16"))
    assert "stale words" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "gives_nothing", "says"),
    [
        ("Runtime", "deserialize_cuda_engine", "does not load the engine that it built"),
        ("ICudaEngine", "create_execution_context", "cannot load it to run"),
    ],
)
def test_an_engine_that_does_not_run_where_it_was_built_is_rejected(
    net, monkeypatch, kind, gives_nothing, says
):
    bindings = ImitatedBindings()
    monkeypatch.setattr(getattr(bindings.loaded.trt, kind), gives_nothing, lambda *_: None)
    with pytest.raises(BuildFailed, match=says):
        build(bindings, net("fp16", batch="N"), request("fp16"))


def test_an_operator_that_needs_a_plugin_is_named(net):
    file = net("fp16")
    model = onnx.load(file)
    next(node for node in model.graph.node if node.name == "relu2").op_type = "Nope"
    onnx.save(model, file)
    with pytest.raises(
        BuildFailed, match=r"'relu2' \(Nope\): TensorRT does not support this operator"
    ) as caught:
        build(ImitatedBindings(), file, request("fp16"))
    assert "plugin" in caught.value.hint


def test_it_builds_only_for_the_gpu_of_this_machine(net):
    runtime = TrtRuntime(ImitatedBindings())
    with pytest.raises(UsageError, match="not for a given compute capability"):
        runtime.build(net("fp16"), BuildRequest("fp16", {}, compute_capabilities=(86,)))
    with pytest.raises(GraphError, match="no such file"):
        runtime.build(net("fp16").with_name("none.onnx"), request("fp16"))


def test_a_missing_driver_is_reported_with_cudas_message(net):
    bindings = ImitatedBindings()
    bindings.device.why_not = lambda: "CUDA driver version is insufficient for CUDA runtime version"
    runtime = TrtRuntime(bindings)
    for act in (lambda: runtime.build(net("fp16"), request("fp16")), lambda: runtime.open(net("fp16"))):
        with pytest.raises(EnvironmentLacks, match="driver version is insufficient"):
            act()


def opened(tmp_path, built, bindings, options=USUAL):
    (tmp_path / "model.engine").write_bytes(built.plan)
    return TrtRuntime(bindings).open(tmp_path / "model.engine", options)


def test_an_engine_of_a_different_release_is_rejected_by_tensorrt_too(net, tmp_path):
    built = build(ImitatedBindings(), net("fp32"), request("fp32"))
    with pytest.raises(BundleError, match=r"10\.3\.0, 11\.4\.0"):
        opened(tmp_path, built, ImitatedBindings("11.4.0.106"))


def test_host_code_in_an_engine_runs_only_if_allowed(net, tmp_path, images):
    built = build(ImitatedBindings(), net("fp32"), request("fp32", version_compatible=True))
    later = ImitatedBindings("11.4.0.106")
    with pytest.raises(BundleError, match="host code"):
        opened(tmp_path, built, later)
    session = opened(tmp_path, built, later, RunOptions(host_code=True))
    assert session.run(images[:1])["logits"].shape == (1, 10)
    session.close()


@pytest.mark.parametrize("cuda_graph", [False, True])
def test_a_session_times_its_runs(net, tmp_path, images, cuda_graph):
    bindings = ImitatedBindings()
    built = build(bindings, net("fp16", batch="N"), request("fp16", batch=(1, 2, 4)))
    session = opened(tmp_path, built, bindings, RunOptions(cuda_graph=cuda_graph))
    assert session.timed_run(images[:3]).latency_ns > 0
    assert bindings.device.launches == cuda_graph
    assert np.isfinite(session.run(images)["logits"]).all()
    session.close()
    assert not bindings.device.held


DLA = [
    (ORIN, "6.2", "10.3.0", True),
    ("NVIDIA Jetson Orin NX Engineering Reference Developer Kit", "6.1", "10.3.0", True),
    ("NVIDIA Jetson Orin Nano Developer Kit", "6.2", "10.3.0", False),
    (ORIN, "7.2", "10.16.0.72", False),
    (ORIN, "7.2.1", "10.8.0", False),
    (ORIN, "7.2.2", "11.4.0.106", False),
    (ORIN, "7.2.2", "11.4.1.12", True),
    (ORIN, "7.2.1", "11.4.1.12", False),
    ("NVIDIA Jetson Orin NX Developer Kit", "7.2.2", "11.4.1", False),
    ("NVIDIA Jetson AGX Thor Developer Kit", "7.2.2", "11.4.1", False),
    (ORIN, "6.2", "10.5.0", False),
    (ORIN, None, "10.3.0", False),
    (None, None, "10.3.0", False),
    (ORIN, "6.2", "nonsense", False),
    (ORIN, "6", "10.3", True),
    (ORIN, "6.9", "10.3.9", True),
    (ORIN, "5.1.4", "10.3.0", False),
    (ORIN, "7", "10.3.0", False),
    (ORIN, "6.2", "10.2.0", False),
    (ORIN, "6.2", "10.4.0", False),
    (ORIN, "8.0", "12.1.0", True),
    ("NVIDIA DGX Spark", "7.2.2", "11.4.1", False),
]


@pytest.mark.parametrize("board, jetpack, release, there", DLA)
def test_where_there_is_a_dla(board, jetpack, release, there):
    assert (why_no_dla(board, jetpack, release) is None) == there


def test_the_reason_for_a_missing_dla_does_not_need_the_jetpack():
    assert why_no_dla(ORIN, None, "10.8.0") == "TensorRT 10.8 to 11.4.0 do not support DLA"
    assert why_no_dla(ORIN, "7.2.2", "11.4.0.106") == "TensorRT 10.8 to 11.4.0 do not support DLA"
    assert why_no_dla("NVIDIA Jetson AGX Thor", None, "11.4.1") == "Jetson Thor has no DLA"
    assert "only on AGX Orin with JetPack 7.2.2" in why_no_dla(ORIN, "7.2.1", "11.4.1")
    for board, release in ((ORIN, "10.7.0"), (ORIN, "10.3.0"), (None, "11.4.1")):
        assert why_no_dla(board, None, release) == "cnnx does not support a DLA on this machine"


def test_a_dla_build_lists_layers_on_the_gpu_and_layers_that_cannot_be_read(net, tmp_path):
    bindings = ImitatedBindings(here=machine(**JETSON), cannot=("fc", "flat"))
    built = build(bindings, net("fp16"), request("fp16", dla_core=1))
    made, config = bindings.loaded.trt, bindings.config
    assert (config.default_device_type, config.DLA_core) == (made.DeviceType.DLA, 1)
    assert {made.BuilderFlag.GPU_FALLBACK, made.BuilderFlag.FP16} <= config.flags
    assert built.identity == "tensorrt-10.3.0-sm87-nvidia-jetson-agx-orin-developer-kit-dla1"
    assert built.layer_types == {"fc": "fp16"}
    fallback, unseen = built.remarks
    assert "2 of" in fallback and "flat; fc" in fallback
    assert "2 layers run inside the DLA" in unseen and "conv1; conv2" in unseen
    assert built.on_gpu == ("flat", "fc")
    opened(tmp_path, built, bindings, RunOptions(dla_core=built.dla_core)).close()
    assert made.cores == [1, 1]  # when inspected and when opened


def test_many_layers_left_to_the_gpu_are_recorded_and_a_few_are_shown(net):
    layers = ("conv1", "relu1", "relu2", "pool", "gap", "flat", "fc")
    bindings = ImitatedBindings(here=machine(**JETSON), cannot=layers, gives={"fc": "fp32"})
    built = build(bindings, net("fp16"), request("fp16", dla_core=0))
    assert set(built.on_gpu) == set(layers)
    assert "7 of" in built.remarks[0] and "and 2 more" in built.remarks[0]
    # A network for a DLA of TensorRT 10 is weakly typed, so the GPU's layers may be wider.
    assert (
        built.remarks[1]
        == "Layers on the GPU that do not have the type of the graph (1): fc: fp32 instead of fp16"
    )


def test_a_dla_that_runs_no_layer_with_weights_is_refused(net):
    """All would run on the GPU, and the engine would be recorded as the DLA's."""
    bindings = ImitatedBindings(here=machine(**JETSON), cannot=LAYERS)
    with pytest.raises(BuildFailed, match="none of the 3 layers with weights"):
        build(bindings, net("fp16"), request("fp16", dla_core=0))


def test_a_dla_of_tensorrt_11_is_strongly_typed(net):
    """The flag FP16 went; NVIDIA's page "Strongly Typed Networks for DLA" of 11.4.1."""
    jetpack = {**JETSON, "jetpack": "7.2.2", "l4t": "39.2.2"}
    bindings = ImitatedBindings("11.4.1", here=machine(**jetpack))
    assert build(bindings, net("fp16"), request("fp16", dla_core=0)).dla_core == 0


def test_int8_with_fp16_scales_that_orin_refuses_has_a_hint(net):
    """TensorRT #4832, open."""
    says = [("ERROR", "Could not infer output types for operation: dequantize")]
    with pytest.raises(BuildFailed) as caught:
        build(ImitatedBindings("10.16.0.72", says=says, fails=True), net("int8"), request("int8"))
    assert "--scales fp32" in caught.value.hint


@pytest.mark.parametrize(
    "precision, batch, here, words",
    [
        ("int8", (1, 1, 1), JETSON, "does not support Q/DQ nodes"),
        ("fp32", (1, 1, 1), JETSON, "does not support FP32"),
        ("fp16", (1, 2, 4), JETSON, "one batch size"),
        ("fp16", (1, 1, 1), {}, "not a Jetson.*10.3.0"),
        ("fp16", (1, 1, 1), {**JETSON, "board": "NVIDIA Jetson AGX Thor Developer Kit"}, "Thor has no DLA"),
    ],
)
def test_dla_builds_that_are_rejected_before_any_work(net, precision, batch, here, words):
    bindings = ImitatedBindings(here=machine(**here))
    with pytest.raises(UsageError, match=words):
        build(bindings, net(precision), request(precision, batch=batch, dla_core=0))
    assert bindings.loaded.trt.configs == []


def test_a_dla_core_that_is_not_there(net):
    with pytest.raises(UsageError, match="invalid DLA core 1: this device has 1"):
        build(ImitatedBindings(here=machine(**JETSON), cores=1), net("fp16"), request("fp16", dla_core=1))


def test_the_hint_for_a_missing_tensorrt_depends_on_the_machine():
    jetson = trt.absent(machine(**JETSON))
    assert isinstance(jetson, EnvironmentLacks) and not isinstance(jetson, MissingExtra)
    assert "pip install" not in jetson.hint and "--system-site-packages" in jetson.hint
    assert isinstance(trt.absent(machine()), MissingExtra)
    assert "docs.nvidia.com" in trt.absent(machine(machine="aarch64")).hint


@pytest.mark.skipif(importlib.util.find_spec("tensorrt") is not None, reason="TensorRT is installed here")
def test_without_tensorrt_everything_says_so(net):
    runtime = trt.RUNTIME
    wanted = str(trt.absent(detect()))
    assert (str(runtime.missing()), str(runtime.cannot_run()), runtime.version()) == (wanted, wanted, None)


def test_a_folder_of_the_same_name_is_not_tensorrt(tmp_path, monkeypatch):
    (tmp_path / "tensorrt").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    if importlib.util.find_spec("tensorrt").origin is None:
        assert trt.RUNTIME.version() is None
        assert trt.RUNTIME.missing() is not None


def test_bindings_without_their_libraries_are_rejected(tmp_path, monkeypatch):
    """As after `pip install tensorrt-cu13-bindings`: the import fails for lack of libnvinfer.so."""
    (tmp_path / "tensorrt.py").write_text(
        "raise ImportError('libnvinfer.so.11: cannot open shared object file: No such file or directory')"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    trt._load.cache_clear()
    try:
        reason = trt.RUNTIME.missing()
    finally:
        trt._load.cache_clear()
    if importlib.util.find_spec("tensorrt").origin == str(tmp_path / "tensorrt.py"):
        assert isinstance(reason, EnvironmentLacks)
        assert "libnvinfer.so.11" in reason.what and "force-reinstall" in reason.hint
