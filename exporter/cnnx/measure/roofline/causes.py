"""Why an engine is slower than its roofline, and what would help. Each rule gives its figures.

Causes are ranked by the time that the change could save at most, so that the first is the one to try.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

from cnnx.measure.roofline.chips import Multiplies
from cnnx.measure.roofline.flow import Conversion, Flow, Part, blocks_of
from cnnx.measure.roofline.peaks import Peaks
from cnnx.measure.roofline.work import Network
from cnnx.schema import Rate

_MATTERS = 0.05  # share of the time that a change must be able to save to be reported
_FAR = 0.25  # attained share below which a layer is far from its limit
_FEW_CHANNELS = 16  # INT8 kernels of tensor cores take channels in vectors of 32, at least half full
_SHOWN = 3
_FLOATS = ("fp16", "bf16", "fp32", "tf32")
_WORDS = {"reformat": "reformat", "cast": "cast", "quantize": "Q/DQ conversion"}
_MORE_KERNELS = "build with --optimization-level 5 (TensorRT), which tries more kernels and layouts"
_REQUANTIZED = "compare with FP16, which needs none of them: the runtime does not fuse them here"
_ADD = "Add"
# Operator between INT8 layers that computes in floating point -> what keeps it in INT8.
_BY_OPERATOR = {
    _ADD: "keep {its} Add in INT8, with Q/DQ on the shortcut",
    "MaxPool": "quantize before {its} MaxPool, not after it",
    "AveragePool": "quantize both input and output of {its} AveragePool",
    "Concat": "give all inputs of {its} Concat one scale",
    "Softmax": "leave {its} Softmax, which needs FP32, or keep the block in FP16",
    "LayerNormalization": "leave {its} LayerNormalization, which needs FP32, or keep the block in FP16",
    "LRN": "leave {its} LRN, which needs FP32, or keep the block in FP16",
}


@dataclass(frozen=True, slots=True)
class Cause:
    """A cause of lost time.

    Attributes:
        rule: name of the rule that found it.
        share: share of the time that it takes.
        saves: share that the change could save at most.
        what: what takes the time, and why.
        change: what would help.
    """

    rule: str
    share: Rate
    saves: Rate
    what: str
    change: str

    def __str__(self) -> str:
        return f"{self.what}: {self.change}."


@dataclass(frozen=True, slots=True)
class View:
    """An engine's profile, as rules look at it.

    Attributes:
        flow: its layers.
        network: the graph it was built from.
        batch: images per run.
        peaks: peak rates of the device; None: unknown.
        h2d: share of copies to the GPU in the latency with transfers.
        transfer: share of copies in both directions.
        launch_ns: time of a launch; 0: launches do not matter.
        cuda_graph: whether latency was measured as one CUDA graph.
        engine: whether an engine was measured; else a graph.
    """

    flow: Flow
    network: Network
    batch: int
    peaks: Peaks | None = None
    h2d: float = 0.0
    transfer: float = 0.0
    launch_ns: float = 0.0
    cuda_graph: bool | None = None
    engine: bool = True

    def share(self, parts: Iterable[Part]) -> float:
        """Share of layers in the latency with transfers."""
        return self.share_of(sum(part.limit.median_ns for part in parts))

    def share_of(self, time_ns: float) -> float:
        """Share of a time of layers in the latency with transfers."""
        total = sum(part.limit.median_ns for part in self.flow.parts)
        return min(1.0, max(0.0, time_ns) / total * (1 - self.transfer)) if total else 0.0

    @property
    def products(self) -> list[Part]:
        """Layers that multiply and take longer than a launch."""
        return [
            part
            for part in self.flow.parts
            if part.limit.macs and part.limit.bound != "launch" and not part.converts
        ]


def causes_of(view: View) -> tuple[Cause, ...]:
    """Causes that a change could save at least a twentieth of the time of, the most rewarding first."""
    found = [cause for rule in RULES for cause in rule(view) if cause.saves >= _MATTERS]
    return tuple(sorted(found, key=lambda cause: -cause.saves))


def _conversions(view: View) -> Iterator[Cause]:
    """Conversions between layers, grouped by what makes them necessary."""
    groups: dict[str, list[tuple[Conversion, Part]]] = {}
    for part in view.flow.parts:
        found = view.flow.conversion(part) if part.converts and part.limit.median_ns else None
        if found and (culprit := _culprit(found)):
            groups.setdefault(_change(culprit[0], culprit[1]), []).append((found, culprit[0]))
    for change, members in groups.items():
        parts, culprits = [found.part for found, _ in members], [culprit for _, culprit in members]
        kinds = {part.limit.kind for part in parts}
        word = _WORDS[kinds.pop()] if len(kinds) == 1 else "conversion"
        blocks = blocks_of(culprits, view.flow.parts) or [part.name for part in culprits]
        share = view.share(parts)
        who = f"{len(parts)} {word}s" if len(parts) > 1 else f"A {word}"
        what = f"{who} around {_listed(blocks)} {_take(parts)} {share:.0%} of the time"
        its = "its" if len(set(blocks)) == 1 else "their"
        yield Cause("conversions", share, share, what, _specific(change, view.network).replace("{its}", its))


def _culprit(found: Conversion) -> tuple[Part, str] | None:
    """The layer that makes a conversion necessary, and how; None at the input and output, or if unknown."""
    if found.before is None or found.after is None or not found.source or not found.target:
        return None
    if found.source == found.target:
        return found.after, "layout"
    if found.target == "int8":
        # A layer that also feeds a sum in floating point writes floats for it.
        sums = [part for part in found.beside if _ADD in part.operators]
        return (sums[0] if sums and _ADD not in found.before.operators else found.before), "type"
    if found.source == "int8":
        return found.after, "type"
    return (found.before if found.source == "fp32" else found.after), "type"


def _change(culprit: Part, how: str) -> str:
    if how == "layout":
        return _MORE_KERNELS
    for operator, change in _BY_OPERATOR.items():
        if operator in culprit.operators:
            return change
    if culprit.limit.macs and culprit.limit.type == "int8":
        return _REQUANTIZED
    if culprit.limit.macs:
        return "put {its} floating-point layer in INT8, or its neighbors in FP16"
    operators = ", ".join(sorted(culprit.operators)) or "layer"
    return f"quantize both input and output of {{its}} {operators}, or keep the block in FP16"


def _specific(change: str, network: Network) -> str:
    """The change, and the setting that prevents it."""
    if change != _BY_OPERATOR[_ADD]:
        return change
    if network.floating_sums:
        return f'{change} (residual = "int8" in the recipe)'
    return (
        f"{change} (--method mse does so, instead of the scales in the file)"
        if network.own_scales
        else change
    )


def _input(view: View) -> Iterator[Cause]:
    """Conversions of the network's input, which pixels would make smaller."""
    parts, saved = [], 0.0
    for part in view.flow.parts:
        found = view.flow.conversion(part) if part.converts else None
        if found and found.before is None and found.after and found.source in _FLOATS:
            data, read = part.limit.data_bytes, part.reads[0].nbytes(view.batch)
            parts.append(part)
            saved += part.limit.median_ns * (0.75 * read / data if data and read else 0.5)
    if parts and not view.network.pixels:
        what = f"Converting the input takes {view.share(parts):.0%} of the time"
        change = "let the engine take pixels, a quarter of the bytes (cnnx export --input uint8-nhwc)"
        yield Cause("input", view.share(parts), view.share_of(saved), what, change)


def _transfers(view: View) -> Iterator[Cause]:
    what = f"Copies to and from the GPU take {view.transfer:.0%} of the time"
    if view.network.pixels:
        change = "copy the next batch on a second stream while this one runs"
        yield Cause("transfers", view.transfer, view.transfer, what, change)
    else:
        change = "send pixels, a quarter of the bytes (cnnx export --input uint8-nhwc)"
        yield Cause("transfers", view.transfer, 0.75 * view.h2d, what, change)


def _launches(view: View) -> Iterator[Cause]:
    short = [part for part in view.flow.parts if part.limit.bound == "launch" and not part.converts]
    timed = [part for part in view.flow.parts if part.limit.median_ns]
    share = view.share(short)
    spent = sum(part.limit.median_ns - (part.limit.limit_ns or 0.0) for part in short)
    what = (
        f"{len(short)} of {len(timed)} layers take hardly longer than a launch "
        f"({view.launch_ns / 1000:.0f} us), together {share:.0%} of the time"
    )
    change = "run more images at once (a larger --batch)"
    if view.cuda_graph is False:
        change = f"launch them as one CUDA graph (--cuda-graph), or {change}"
    yield Cause("launches", share, view.share_of(spent), what, change)


def _floats(view: View) -> Iterator[Cause]:
    """Products in floating point in an INT8 engine. Depthwise convolutions are left there on purpose."""
    parts = [
        part for part in view.products if part.limit.type in _FLOATS and not _is_depthwise(part, view.network)
    ]
    if not any(part.limit.type == "int8" for part in view.products) or not parts:
        return
    parts.sort(key=lambda part: -part.limit.median_ns)
    reason = view.network.reasons.get(parts[0].name, "")
    because = f" ({parts[0].name}: {reason})" if reason else ""
    share = view.share(parts)
    names, multiply = _listed([part.name for part in parts]), "multiplies" if len(parts) == 1 else "multiply"
    what = f"{names} {multiply} in floating point and {_take(parts)} {share:.0%} of the time{because}"
    change = "put the slowest in INT8 if the agreement allows it ([[precision.overrides]] in the recipe)"
    yield Cause("floating point", share, share / 2, what, change)


def _depthwise(view: View) -> Iterator[Cause]:
    """Depthwise convolutions in INT8: they are bound by memory, and their INT8 kernels gain little."""
    parts = [
        part for part in view.products if part.limit.type == "int8" and _is_depthwise(part, view.network)
    ]
    macs = sum(part.limit.macs or 0 for part in view.flow.parts) or 1
    share = view.share(parts)
    work = sum(part.limit.macs or 0 for part in parts) / macs
    spent = sum(part.limit.median_ns - (part.limit.limit_ns or 0.0) for part in parts)
    what = f"Depthwise convolutions in INT8 take {share:.0%} of the time for {work:.0%} of the MACs"
    yield Cause(
        "depthwise", share, view.share_of(spent), what, "measure them in FP16, too, as they gain little"
    )


def _is_depthwise(part: Part, network: Network) -> bool:
    if part.nodes:
        return network.depthwise.issuperset(part.nodes)
    groups = part.kernel.groups if part.kernel else 1
    return groups > 1 and any(groups in tensor.shape[1:2] for tensor in part.writes)


def _slow(view: View) -> Iterator[Cause]:
    """Layers that are far from their limit, though they have enough work."""
    far = [
        part
        for part in view.flow.parts
        if not part.converts
        and part.limit.bound in ("compute", "memory")
        and (part.limit.attained or 0.0) < _FAR
        and not (part.limit.type == "int8" and _is_depthwise(part, view.network))
    ]
    rest = []
    for part in sorted(far, key=lambda part: -_lost([part])):
        if part.limit.type != "int8":
            rest.append(part)
        elif _ADD in part.operators and {tensor.type for tensor in (*part.reads, *part.writes)} & {*_FLOATS}:
            yield _far(view, part, "as it adds in floating point", _BY_OPERATOR[_ADD].replace("{its}", "its"))
        elif channels := _few_channels(part):
            why = f"as INT8 kernels want 32 input channels and it has {channels}"
            yield _far(view, part, why, "keep it in FP16 ([[precision.overrides]] in the recipe)")
        else:
            rest.append(part)
    if rest:
        share = view.share(rest)
        names, attain = _listed([part.name for part in rest]), "attain" if len(rest) > 1 else "attains"
        what = (
            f"{names} {attain} less than a quarter of the roofline and {_take(rest)} {share:.0%} of the time"
        )
        yield Cause("slow kernels", share, view.share_of(_lost(rest)), what, _MORE_KERNELS)


def _far(view: View, part: Part, why: str, change: str) -> Cause:
    share, attained = view.share([part]), part.limit.attained or 0.0
    what = f"{part.name} takes {share:.0%} of the time at {attained:.0%} of its limit, {why}"
    return Cause("slow kernels", share, view.share_of(_lost([part])), what, change)


def _few_channels(part: Part) -> int:
    """Number of input channels if INT8 kernels want more; else 0."""
    shape = part.reads[0].shape if part.reads else ()
    return shape[1] if len(shape) > 2 and 0 < shape[1] < _FEW_CHANNELS else 0


def _lost(parts: Iterable[Part]) -> float:
    return sum(part.limit.median_ns - (part.limit.limit_ns or 0.0) for part in parts)


def _requantized(view: View) -> Iterator[Cause]:
    """Kernels that quantize what INT8 products write in floating point, with the activation in between."""
    parts = []
    for part in view.flow.parts:
        before = view.flow.writers.get(part.reads[0].name) if part.reads else None
        from_product = before is not None and before.limit.macs and before.limit.type == "int8"
        to_int8 = any(tensor.type == "int8" for tensor in part.writes)
        if from_product and to_int8 and not part.limit.macs and not part.converts:
            parts.append(part)
    share = view.share(parts)
    kernels = f"{len(parts)} kernels quantize" if len(parts) != 1 else "A kernel of its own quantizes"
    what = f"{kernels} what INT8 layers wrote as floats, and {_take(parts)} {share:.0%} of the time"
    yield Cause("requantized", share, share / 2, what, _REQUANTIZED)


def _narrower(view: View) -> Iterator[Cause]:
    """Products near their limit, which only a narrower type makes faster."""
    for wide, narrow, option in ((("fp32", "tf32"), "fp16", "--fp16"), (("fp16",), "int8", "--int8")):
        parts = [part for part in view.products if part.limit.type in wide and part.limit.bound]
        limit, time = _sum_of_limits(parts), sum(part.limit.median_ns for part in parts)
        rate = view.peaks.operations.get(cast(Multiplies, narrow)) if view.peaks else None
        if view.network.precision == "int8" or not rate or not time or limit < _FAR * time:
            continue
        share = view.share(parts)
        lower = sum(
            max(2e9 * (part.limit.macs or 0) / rate, (part.limit.memory_ns or 0) / 2) for part in parts
        )
        types = " and ".join(sorted({part.limit.type.upper() for part in parts}))
        what = f"Products in {types} take {share:.0%} of the time at {limit / time:.0%} of their limit"
        change = f"{narrow.upper()} has a lower limit (cnnx export {option})"
        yield Cause("type", share, view.share_of(limit - lower), what, change)


def _sum_of_limits(parts: Iterable[Part]) -> float:
    return sum(part.limit.limit_ns or 0.0 for part in parts)


def _unfused(view: View) -> Iterator[Cause]:
    """Conversions in a graph, which ONNX Runtime runs as they are written."""
    if view.engine:
        return
    for kind, what, change in (
        ("quantize", "Q and DQ", "measure an engine, which fuses them (cnnx build)"),
        ("cast", "Casts", "measure an engine, or export with --fp32 for this device"),
    ):
        share = view.share(part for part in view.flow.parts if part.limit.kind == kind)
        because = f"{what} take {share:.0%} of the time, as ONNX Runtime runs them one by one"
        yield Cause(kind, share, share, because, change)


RULES: tuple[Callable[[View], Iterator[Cause]], ...] = (
    _conversions,
    _input,
    _transfers,
    _launches,
    _floats,
    _depthwise,
    _slow,
    _requantized,
    _narrower,
    _unfused,
)
"""Every rule."""


def _take(parts: Sequence[Part]) -> str:
    return "takes" if len(parts) == 1 else "take"


def _listed(names: Sequence[str]) -> str:
    """The first names, each once, and the number of the others."""
    names = list(dict.fromkeys(names))
    if len(names) > _SHOWN + 1:
        return f"{', '.join(names[:_SHOWN])} and {len(names) - _SHOWN} more"
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
