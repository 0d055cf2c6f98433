"""TensorRT's Python bindings imitated on a CPU, over `HostCuda`: the surface that cnnx uses, no more.

Each thing does what NVIDIA's "TensorRT Python API Reference" documents, under the class's name,
where nothing else is cited. test_trt_api.py holds the names here to the API of the release imitated. An
engine "runs" by ONNX's reference evaluator when its stream is synchronized.
"""

from __future__ import annotations

import base64
import copy
import ctypes
import enum
import json
import types
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from cnnx.machine.environment import Environment
from cnnx.runtimes.engine.network import Library, make_log
from tests.doubles.host_cuda import HostCuda
from tests.doubles.imitated_fusion import emit, kernels, layers_of, with_scales

ORIN = "NVIDIA Jetson AGX Orin Developer Kit"
# The words of the inspector for types: 10 has them within a format (issue #4020), 11 alone.
_FORMATS = {
    "int8": "Thirty-two wide channel vectorized row major Int8 format",
    "fp16": "Channel major FP16 format where channel % 8 == 0",
    "fp32": "Row major linear FP32",
}
_DATATYPES = {"int8": "Int8", "fp16": "Half", "fp32": "Float"}


def machine(board: str | None = None, jetpack: str | None = None, **more: Any) -> Environment:
    nothing = dict.fromkeys(
        ("distribution", "cpu", "cpu_governor", "memory_bytes", "power_mode", "l4t", "gpu"), None
    )
    known = {"system": "Linux", "machine": "x86_64", "cores": 1, "python": "3.11", "packages": {}}
    return Environment(**{**nothing, **known, "board": board, "jetpack": jetpack, **more})


@dataclass
class Behaviour:
    """How this TensorRT differs from one that does all it is asked.

    Attributes:
        gives: node -> type that its kernel gets, whatever the graph says.
        says: (severity, message) logged by a build.
        fails: a build gives no plan.
        cannot: layers that the DLA cannot run.
        cores: of the DLA.
        caches: contents of timing caches that are refused, and how: "none", "raise" or "mismatch".
        hides: nodes that the inspector does not name.
        fuses: nodes that Myelin fuses with the node before them, as TensorRT 10 reports such kernels (issue
            #4397): dots in names are underscores, the type is that before the fused node, and only
            "Metadata" names both.
        foreign: whether all is one ForeignNode, which names its first and last node and has no metadata.
        times: node -> time of its layer, in ms.
        scales: tensor -> factor by which the engine's scale for it is wrong, where it is quantized.
        coarse: whether that is also so where it is dequantized.
        internal: whether tensors between kernels have internal names.
    """

    gives: dict[str, str] = field(default_factory=dict)
    says: list[tuple[str, str]] = field(default_factory=list)
    fails: bool = False
    cannot: tuple[str, ...] = ()
    cores: int = 2
    caches: dict[bytes, str] = field(default_factory=dict)
    hides: tuple[str, ...] = ()
    fuses: tuple[str, ...] = ()
    foreign: bool = False
    times: dict[str, float] = field(default_factory=dict)
    scales: dict[str, float] = field(default_factory=dict)
    coarse: bool = False
    internal: bool = True


class ImitatedBindings:
    """Satisfies `cnnx.runtimes.trt.runtime.Bindings`."""

    def __init__(self, release: str = "10.3.0", *, here: Environment | None = None, **behaviour: Any) -> None:
        self.release, self.here, self.device = release, here or machine(), HostCuda()
        self.behaviour = Behaviour(**behaviour)
        trt = module(release, self.device, self.behaviour)
        self.loaded = Library(trt, make_log(trt))

    def version(self):
        return self.release

    def lacking(self):
        return None

    def load(self):
        return self.loaded

    def cuda(self):
        return self.device

    def environment(self):
        return self.here

    @property
    def config(self):
        """The configuration of the last build."""
        return self.loaded.trt.configs[-1]


def module(release: str, cuda: HostCuda, behaviour: Behaviour) -> Any:
    """The bindings' module of a release."""
    trt = types.SimpleNamespace(__version__=release, configs=[], cores=[])
    old, old_types = release.startswith("10.3"), release.startswith("10.")
    levels = ("NONE", "AMPERE_PLUS") if old else ("NONE", "AMPERE_PLUS", "SAME_COMPUTE_CAPABILITY")
    for name, members in {
        "ProfilingVerbosity": ("LAYER_NAMES_ONLY", "NONE", "DETAILED"),
        # FP16 went in 11.
        "BuilderFlag": ("TF32", "GPU_FALLBACK", "VERSION_COMPATIBLE", *(["FP16"] if old_types else [])),
        "NetworkDefinitionCreationFlag": ("EXPLICIT_BATCH", "STRONGLY_TYPED")
        if old_types
        else ("STRONGLY_TYPED",),
        "MemoryPoolType": ("WORKSPACE",),
        "HardwareCompatibilityLevel": levels,
        "DeviceType": ("GPU", "DLA"),
        "TensorIOMode": ("NONE", "INPUT", "OUTPUT"),
        "LayerInformationFormat": ("ONELINE", "JSON"),
        "DataType": ("FLOAT", "HALF", "INT8"),
        "TensorLocation": ("DEVICE", "HOST"),
    }.items():
        setattr(trt, name, enum.IntEnum(name, members, start=0))

    class ILogger:
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

    class IProfiler:
        def report_layer_time(self, layer_name, ms):
            raise NotImplementedError  # pure virtual: who profiles writes it

    class IDebugListener:
        def process_debug_tensor(self, addr, location, type, shape, name, stream):  # noqa: A002
            raise NotImplementedError  # pure virtual

    class IBuilderConfig:
        __slots__ = (
            "DLA_core",
            "builder_optimization_level",
            "cache",
            "default_device_type",
            "flags",
            "hardware_compatibility_level",
            "limits",
            "profiles",
            "profiling_verbosity",
        )

        def __init__(self):
            self.flags = {trt.BuilderFlag.TF32}  # on by default (BuilderFlag)
            self.limits, self.profiles, self.cache = {}, [], None
            self.profiling_verbosity = trt.ProfilingVerbosity.LAYER_NAMES_ONLY
            self.default_device_type = trt.DeviceType.GPU

        def set_flag(self, flag):
            self.flags.add(flag)

        def clear_flag(self, flag):
            self.flags.discard(flag)

        def set_memory_pool_limit(self, pool, pool_size):
            self.limits[pool] = pool_size

        def add_optimization_profile(self, profile):
            self.profiles.append(profile)
            return len(self.profiles) - 1

        def can_run_on_DLA(self, layer):  # noqa: N802
            return layer.name not in behaviour.cannot

        def create_timing_cache(self, serialized_timing_cache):
            how = behaviour.caches.get(bytes(serialized_timing_cache))
            if how == "raise":
                raise RuntimeError("corrupt")
            return None if how == "none" else ITimingCache(bytes(serialized_timing_cache))

        def set_timing_cache(self, cache, ignore_mismatch):
            """False, and the cache not set, where its header is of another device or version."""
            assert not ignore_mismatch
            if behaviour.caches.get(cache.data) == "mismatch":
                return False
            self.cache = cache
            return True

        def get_timing_cache(self):
            return self.cache

    class ITimingCache:
        def __init__(self, data):
            self.data = data

        def serialize(self):
            return memoryview(self.data)

    class IOptimizationProfile:
        def set_shape(self, input, min, opt, max):  # noqa: A002
            self.shapes = (min, opt, max)

    class INetworkDefinition:
        def __init__(self):
            self.model, self.strong, self.emits = None, True, False

        if not old:

            def mark_unfused_tensors_as_debug_tensors(self):
                self.emits = True
                return True

        @property
        def num_inputs(self):
            return len(self.model.graph.input)

        @property
        def num_outputs(self):
            return len(self.model.graph.output)

        @property
        def num_layers(self):
            return len(self.model.graph.node)

        def get_input(self, index):
            entry = self.model.graph.input[index]
            dims = entry.type.tensor_type.shape.dim
            # A dimension that is not fixed is -1 (ITensor).
            return types.SimpleNamespace(name=entry.name, shape=[d.dim_value or -1 for d in dims])

        def get_layer(self, index):
            return types.SimpleNamespace(name=self.model.graph.node[index].name)

    class OnnxParser:
        def __init__(self, network, logger):
            self._network, self.num_errors, self._error = network, 0, None

        def parse_from_file(self, model):
            self._network.model = onnx.load(model)
            bad = [node for node in self._network.model.graph.node if node.op_type == "Nope"]
            if bad:
                self.num_errors = 1
                self._error = types.SimpleNamespace(
                    node_name=lambda: bad[0].name,
                    node_operator=lambda: bad[0].op_type,
                    desc=lambda: "Plugin not found, are the plugin name, version, and namespace correct?",
                )
            return not bad

        def get_error(self, index):
            return self._error

    class Builder:
        num_DLA_cores = behaviour.cores  # noqa: N815

        def __init__(self, logger):
            self._log = logger

        def create_network(self, flags):
            network = INetworkDefinition()
            network.strong = bool(flags & 1 << trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
            return network

        def create_builder_config(self):
            trt.configs.append(IBuilderConfig())
            return trt.configs[-1]

        def create_optimization_profile(self):
            return IOptimizationProfile()

        def _allows(self, network, config):
            """Whether types and flags agree.

            FP16 is not allowed in a strongly typed network (BuilderFlag.FP16 of 10.3), and a DLA of 10 needs
            it: its layers are FP16 or INT8 ("Working with DLA", and trtexec's samples/common/sampleEngines).
            """
            narrow = old_types and trt.BuilderFlag.FP16 in config.flags
            wants = config.default_device_type == trt.DeviceType.DLA and old_types
            if network.strong and narrow:
                self._log.log(ILogger.ERROR, "kFP16 is set and the network is strongly typed")
            elif wants and not narrow:
                self._log.log(ILogger.ERROR, "DLA layers need the precision FP16 or INT8")
            else:
                return True
            return False

        def build_serialized_network(self, network, config):
            """A plan, or None where it fails."""
            for severity, message in behaviour.says:
                self._log.log(getattr(ILogger, severity), message)
            if behaviour.fails or not self._allows(network, config):
                return None
            if config.cache is not None:
                config.cache.data += b"+"
            plan = {
                "release": release,
                "onnx": base64.b64encode(network.model.SerializeToString()).decode(),
                "batch": [shape[0] for shape in config.profiles[0].shapes] if config.profiles else None,
                "detailed": config.profiling_verbosity == trt.ProfilingVerbosity.DETAILED,
                "portable": trt.BuilderFlag.VERSION_COMPATIBLE in config.flags,
                "dla": config.default_device_type == trt.DeviceType.DLA,
                "emits": network.emits,
            }
            return memoryview(json.dumps(plan).encode())

    class Runtime:
        engine_host_code_allowed = False
        DLA_core = -1

        def __init__(self, logger):
            self._log = logger

        def deserialize_cuda_engine(self, serialized_engine):
            """None for what cannot be read, is of another version, or brings code that is not allowed.

            A version compatible plan contains a lean runtime, which is host code (Runtime,
            engine_host_code_allowed).
            """
            try:
                plan = json.loads(bytes(serialized_engine))
            except ValueError:
                self._log.log(ILogger.ERROR, "Serialization assertion failed: magic tag does not match")
                return None
            if plan["portable"] and not self.engine_host_code_allowed:
                self._log.log(ILogger.ERROR, "the plan contains host code, which is not allowed")
                return None
            if plan["release"] != release and not plan["portable"]:
                self._log.log(ILogger.ERROR, f"Version tag does not match: {plan['release']}, {release}")
                return None
            trt.cores.append(self.DLA_core)
            return ICudaEngine(plan)

    class ICudaEngine:
        def __init__(self, plan):
            self.plan = plan
            loaded = onnx.load_from_string(base64.b64decode(plan["onnx"]))
            self.model = with_scales(loaded, behaviour.scales, coarse=behaviour.coarse)
            self.kernels = kernels(self.model, internal=behaviour.internal) if plan["emits"] else []
            self.shapes = {}
            graph = self.model.graph
            self.values = {value.name: value for value in [*graph.input, *graph.output]}
            inferred = onnx.shape_inference.infer_shapes(self.model).graph
            self.lengths = {
                value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
                for value in (*inferred.input, *inferred.value_info, *inferred.output)
            }
            # All contexts share the engine, whose own shapes stay as they are.
            of_any_batch = copy.deepcopy(self.model)
            of_any_batch.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
            self.evaluator, self.answers = ReferenceEvaluator(of_any_batch), {}

        @property
        def num_io_tensors(self):
            return len(self.values)

        def get_tensor_name(self, index):
            return list(self.values)[index]

        def get_tensor_mode(self, name):
            graph = self.model.graph
            inputs = {value.name for value in graph.input}
            return trt.TensorIOMode.INPUT if name in inputs else trt.TensorIOMode.OUTPUT

        def get_tensor_dtype(self, name):
            half = self.values[name].type.tensor_type.elem_type == onnx.TensorProto.FLOAT16
            return trt.DataType.HALF if half else trt.DataType.FLOAT

        def get_tensor_shape(self, name):
            return [d.dim_value or -1 for d in self.values[name].type.tensor_type.shape.dim]

        def get_tensor_profile_shape(self, name, profile_index):
            rest = self.get_tensor_shape(name)[1:]
            return [[size, *rest] for size in self.plan["batch"]]

        device_memory_size_v2 = 4096

        def create_execution_context(self):
            return IExecutionContext(self)

        def create_engine_inspector(self):
            return EngineInspector(self)

    class IExecutionContext:
        def __init__(self, engine):
            self.engine, self.addresses, self.size, self.profiler = engine, {}, -1, None
            self.listener, self.unfused_tensors_debug_state = None, False

        def set_debug_listener(self, listener):
            self.listener = listener
            return True

        def set_input_shape(self, name, shape):
            """False for a shape outside the profile."""
            fixed = self.engine.get_tensor_shape(name)[0]
            low, _, high = self.engine.plan["batch"] or (fixed, fixed, fixed)
            if list(shape[1:]) != self.engine.get_tensor_shape(name)[1:] or not low <= shape[0] <= high:
                return False
            self.size = shape[0]
            return True

        def get_tensor_shape(self, name):
            return [self.size, *self.engine.get_tensor_shape(name)[1:]]

        def set_tensor_address(self, name, memory):
            self.addresses[name] = memory
            return True

        def execute_async_v3(self, stream_handle):
            assert stream_handle in cuda.held
            views = {name: self._view(name) for name in self.addresses}
            if self.unfused_tensors_debug_state:
                images = views[self.engine.get_tensor_name(0)]
                emit(trt, cuda, self.listener, self.engine, images, stream_handle, capsule=not old_types)
            cuda.enqueue(lambda _at: self._execute(views))
            if self.profiler is not None:
                for node in self.engine.model.graph.node:
                    self.profiler.report_layer_time(named(node), behaviour.times.get(node.name, 0.001))
            return True

        def _view(self, name):
            shape, kind = self.get_tensor_shape(name), nptype(self.engine.get_tensor_dtype(name))
            nbytes = int(np.prod(shape)) * np.dtype(kind).itemsize
            memory = (ctypes.c_byte * nbytes).from_address(self.addresses[name])
            return np.frombuffer(memory, kind).reshape(shape)

        def _execute(self, views):
            graph = self.engine.model.graph
            entry = graph.input[0].name
            images = views[entry].tobytes()  # measurements run the same few thousands of times
            if images not in self.engine.answers:
                with np.errstate(all="ignore"):
                    self.engine.answers[images] = self.engine.evaluator.run(None, {entry: views[entry]})
            for value, result in zip(graph.output, self.engine.answers[images], strict=True):
                np.copyto(views[value.name], result)

    class EngineInspector:
        execution_context = None

        def __init__(self, engine):
            self._engine = engine

        def get_engine_information(self, format):  # noqa: A002
            assert format == trt.LayerInformationFormat.JSON
            plan, graph = self._engine.plan, self._engine.model.graph
            nodes = [node for node in graph.node if node.name not in behaviour.hides]
            if plan["dla"]:
                unable = [node for node in nodes if node.name in behaviour.cannot]
                inside = f"{{ForeignNode[{nodes[0].name}...{nodes[-1].name}]}}"
                layers = [{"Name": inside, "LayerType": "DLA", "Inputs": [], "Metadata": ""}]
                nodes = unable
            else:
                layers = []
            if plan["emits"]:
                layers, nodes = layers_of(self._engine, old=release.startswith("10")), []
            if behaviour.foreign:
                name = f"{{ForeignNode[{nodes[0].name}...{nodes[-1].name}]}}"
                layers, nodes = [{"Name": name, "LayerType": "Myelin", "Inputs": [], "Metadata": ""}], []
            if not plan["detailed"]:
                return json.dumps({"Layers": [node.name for node in nodes]})
            # Without a context with shapes: "N/A due to dynamic shapes", as seen in dumps of such engines.
            context = self.execution_context
            unknown = plan["batch"] is not None and (context is None or context.size < 0)
            layers += [self._layer(node, unknown) for node in nodes]
            names = list(self._engine.values)
            if release.startswith("10"):
                return json.dumps({"Layers": layers, "Bindings": names})
            return json.dumps({"Layers": layers, "I/O Tensors": [{"Name": name} for name in names]})

        def _layer(self, node, unknown):
            kind = behaviour.gives.get(node.name) or typed(self._engine.model.graph, node)
            weighted = node.op_type in ("Conv", "Gemm", "MatMul")
            if release.startswith("10"):
                tensor = {"Format/Datatype": _FORMATS[kind]}
                if unknown:
                    tensor = {"Format/Datatype": "N/A due to dynamic shapes"}
            else:
                tensor = {"Datatype": "N/A due to dynamic shapes" if unknown else _DATATYPES[kind]}
            if node.name in behaviour.fuses:
                return self._fused(node, kind)
            layer = {
                "Name": named(node),
                "LayerType": "CaskConvolution" if weighted else "PointWiseV2",
                "Inputs": [{"Name": node.input[0], **self._sized(node.input[0]), **tensor}],
                "Outputs": [{"Name": node.output[0], **self._sized(node.output[0]), **tensor}],
                "Metadata": f"[ONNX Layer: {node.name}]",
            }
            return {**layer, "Weights": {"Type": _DATATYPES[kind]}} if weighted else layer

        def _sized(self, tensor):
            """Dimensions, with the context's number of images; none if its shape is unknown."""
            size = self.execution_context.size if self.execution_context else 1
            lengths = self._engine.lengths.get(tensor)
            return {"Dimensions": [size, *lengths[1:]]} if lengths else {}

        def _fused(self, node, kind):
            """A convolution or product of Myelin with the cast before it; its constants are not reported."""
            before = next(each for each in self._engine.model.graph.node if node.input[0] in each.output)
            names = [each.name.replace(".", "_") for each in (before, node)]
            old = release.startswith("10")
            tensor = {"Format/Datatype": "Float"} if old else {"Datatype": "Float"}
            result = {"Format/Datatype": _DATATYPES[kind]} if old else {"Datatype": _DATATYPES[kind]}
            return {
                "Name": f"__myl_CastConv_{names[1]}_myl0_3",
                "LayerType": "fusion",
                "Inputs": [{"Name": before.input[0], "Dimensions": [1], **tensor}],
                "Outputs": [{"Name": node.output[0], "Dimensions": [1], **result}],
                "TacticName": "__myl_CastConv_0x0123",
                "StreamId": 0,
                "Metadata": "\u001e".join(f"[ONNX Layer: {name}]" for name in names),
            }

    def nptype(trt_type):
        kinds = {"FLOAT": np.float32, "HALF": np.float16, "INT8": np.int8}
        return kinds[trt_type.name]

    trt.nptype = nptype
    for kind in (
        ILogger,
        IProfiler,
        IDebugListener,
        Builder,
        IBuilderConfig,
        ITimingCache,
        IOptimizationProfile,
        INetworkDefinition,
        OnnxParser,
        Runtime,
        ICudaEngine,
        IExecutionContext,
        EngineInspector,
    ):
        setattr(trt, kind.__name__, kind)
    return trt


def named(node) -> str:
    """Name of a node's layer, which TensorRT fuses with others."""
    return f"{node.name} + {node.name}_more"


def typed(graph, node) -> str:
    """The type that a strongly typed network gives a node: its data's, INT8 behind a DequantizeLinear."""
    makers = {output: made for made in graph.node for output in made.output}
    source = makers.get(node.input[0])
    if source is not None and source.op_type == "DequantizeLinear":
        return "int8"
    types_ = {weight.name: weight.data_type for weight in graph.initializer}
    return "fp16" if onnx.TensorProto.FLOAT16 in [types_.get(name) for name in node.input] else "fp32"
