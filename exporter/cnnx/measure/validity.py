"""Validity of a measurement, as a pure function of the recorded data."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

from cnnx.machine.state import MachineState
from cnnx.measure.machine_rules import judge_machine
from cnnx.measure.samples import Breakdown, Latency, variation
from cnnx.measure.spread import UNSTEADY, drift, interrupted, judge_percentile, robust_variation
from cnnx.measure.verdict import Validity as Validity
from cnnx.measure.verdict import ValidityFinding as ValidityFinding

# trtexec (TensorRT's samples/common/sampleReporting.cpp) warns at these.
_ENQUEUE_SHARE = 0.8


def judge_validity(
    latency: Latency,
    *,
    on_gpu: bool,
    states: Sequence[MachineState] = (),
    cuda_graph: bool = False,
    percentiles: Sequence[float] = (50.0, 90.0, 99.0),
) -> Validity:
    """Check a measurement by trtexec's rules, NVML's throttling reasons, clocks, temperatures and power mode.

    Args:
        latency: raw samples, with a breakdown if the session reports it.
        on_gpu: whether it ran on a GPU.
        states: machine states from the end of warm-up until just after the last run; empty if unknown.
        cuda_graph: whether the kernels were launched as a CUDA graph.
        percentiles: percentiles that are reported, in percent.
    """
    settled, unsteady = list(_settled(latency)), list(_unsteady(latency, states))
    outliers = list(_outliers(latency))
    if not on_gpu:
        return Validity((), (*settled, *unsteady))
    judged = tuple(judge_percentile(latency.main_ns, each) for each in sorted(set(percentiles)))
    findings, remarks = judge_machine(states)
    if latency.parts is None:
        # End to end times of Python, as of ONNX Runtime on CUDA: the limit is for GPU compute.
        return Validity((*settled, *findings), (*unsteady, *outliers, *remarks), judged)
    bound = list(_enqueue_bound(latency.parts, cuda_graph))
    # A warning in trtexec: GPU compute is not affected.
    remarks = [*outliers, *_transfer_bound(latency.parts), *remarks]
    return Validity((*settled, *unsteady, *bound, *findings), tuple(remarks), judged)


def _settled(latency: Latency) -> Iterator[ValidityFinding]:
    if latency.warmup_ended != "steady":
        yield ValidityFinding(
            "warm-up", "latencies had not settled when warm-up ended", "measure with more --seconds"
        )
    if not latency.complete:
        reason = f"only {len(latency.main_ns)} samples at the time limit, fewer than requested"
        yield ValidityFinding("cut short", reason, "measure with more --seconds, or a lower --percentile")


def _unsteady(latency: Latency, states: Sequence[MachineState]) -> Iterator[ValidityFinding]:
    """Judge by the middle of the runs on a GPU, as the median is; elsewhere by all, as a remark."""
    what = "GPU compute" if latency.parts else "latency"
    jetson = any(state.gpu is not None and state.gpu.least_mhz is not None for state in states)
    lock = "sudo jetson_clocks" if jetson else "sudo nvidia-smi --lock-gpu-clocks=tdp,tdp"
    hint = f"lock the clocks ({lock})" if latency.parts else "close other programs and lock the clocks"
    found = (robust_variation if latency.parts else variation)(latency.steady_ns)
    if found is not None and found > UNSTEADY:
        yield ValidityFinding("unsteady", f"{what} varies by {found:.1%}, more than {UNSTEADY:.1%}", hint)
    moved = drift(latency.steady_ns) if latency.parts else None
    if moved is not None and abs(moved) > UNSTEADY:
        reason = f"the median of {what} moved by {moved:+.1%} from the first third of the runs to the last"
        yield ValidityFinding("drift", reason, hint)


def _outliers(latency: Latency) -> Iterator[ValidityFinding]:
    if count := interrupted(latency.steady_ns):
        times = latency.steady_ns
        longest = f"the longest {max(times) / 1e6:.3g} ms"
        reason = f"{count} of {len(times)} runs took more than twice the median, {longest}"
        hint = "the host or the driver interrupted them; the median is not affected"
        yield ValidityFinding("outliers", reason, hint)


def _enqueue_bound(parts: Breakdown, cuda_graph: bool) -> Iterator[ValidityFinding]:
    enqueue, compute = statistics.median(parts.enqueue_ns), statistics.median(parts.compute_ns)
    if enqueue > _ENQUEUE_SHARE * compute:
        yield ValidityFinding(
            "enqueue-bound",
            f"enqueueing takes {enqueue / 1e6:.3f} ms, GPU compute {compute / 1e6:.3f} ms: the GPU waits",
            "measure a larger --batch: the network is too small to fill the GPU"
            if cuda_graph
            else "measure with --cuda-graph, or a larger --batch",
        )


def _transfer_bound(parts: Breakdown) -> Iterator[ValidityFinding]:
    compute = statistics.median(parts.compute_ns)
    for name, times in (("to the device", parts.h2d_ns), ("to the host", parts.d2h_ns)):
        copying = statistics.median(times)
        if copying >= compute:
            yield ValidityFinding(
                "transfer-bound",
                f"copying {name} takes {copying / 1e6:.3f} ms, GPU compute {compute / 1e6:.3f} ms",
                "use GPU compute as the latency of the network, and keep data on the device if possible",
            )
