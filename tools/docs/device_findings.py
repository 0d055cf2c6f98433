"""What a reading of cnnx's device code expected to fail on a first device, and how each is covered.

In the order in which they were found. Each names the tests that hold it, as FILE::TEST under tests/, of which
the page shows the file, and the probes of tools/check/gpu.py that look at it on a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.markdown import table


@dataclass(frozen=True)
class Finding:
    """One of them.

    Attributes:
        what: what would have failed.
        covered: what cnnx does; None: nothing yet.
        tests: tests that hold it.
        probes: probes that look at it.
    """

    what: str
    covered: str | None
    tests: tuple[str, ...] = ()
    probes: tuple[str, ...] = ()


_SESSION, _TRT = "runtimes/engine/test_session.py", "runtimes/trt/test_trt.py"
_VALIDITY, _RULES = "measure/test_validity.py", "measure/test_machine_rules.py"
_ENVIRONMENT, _STATE = "machine/test_environment.py", "machine/test_state.py"
FINDINGS: Sequence[Finding] = (
    Finding(
        "TensorRT for RTX runs a general kernel for a new shape until its own is compiled, and a CUDA graph "
        "captured meanwhile keeps it",
        "Kernels are specialized eagerly, and a stream is asked whether it can be captured",
        (
            f"{_SESSION}::test_rtx_compiles_the_kernels_of_a_shape_before_they_run",
            f"{_SESSION}::test_rtx_tells_that_an_engine_cannot_be_captured",
        ),
        ("queueing",),
    ),
    Finding(
        "Any time counted by NVML with reduced clocks makes a measurement invalid, and nearly every GPU "
        "under load has some (DCGM #285); CUDA 13 deprecates the questions",
        "More than 1 % of the measured time is invalid, less a remark; the successors are asked, too",
        (
            f"{_RULES}::test_findings_and_remarks_at_their_limits",
            f"{_STATE}::test_a_driver_without_the_deprecated_questions_answers_by_their_successors",
        ),
        ("nvml",),
    ),
    Finding(
        "Images per second hold a copy of the images into page-locked memory",
        "Memory is filled once, before runs that are queued two deep; end to end is a series of its own",
        (
            f"{_SESSION}::test_gpu_compute_of_queued_runs_holds_no_time_of_the_host",
            f"{_VALIDITY}::test_timed_sessions_are_asked_for_parts_and_looked_at_from_warm_to_the_end",
        ),
        ("queueing",),
    ),
    Finding(
        "JetPack is unknown on Jetson Linux 36.4.7, 36.5.0 and others, so a DLA is refused",
        "A row for each release, and the major version for one that is not listed",
        (f"{_ENVIRONMENT}::test_releases_of_jetson_linux",),
    ),
    Finding(
        "pynvml's error for a function that the driver lacks is no NVMLError",
        "Both are caught",
        (f"{_ENVIRONMENT}::test_a_question_that_the_driver_lacks_raises_nothing",),
        ("nvml",),
    ),
    Finding(
        "A hint locks the clocks with a word of nvbench that nvidia-smi does not know",
        "The hint has `--lock-gpu-clocks=tdp,tdp`",
        (f"{_VALIDITY}::test_hints_fit_the_machine_and_how_it_was_measured",),
    ),
    Finding(
        "H200, GH200, H800 and A800 measure power a quarter of the time, as A100 and H100 do (arXiv "
        "2312.02741), without a note",
        "The compute capability decides, and the energy counter comes first there",
        ("measure/power/sensors/test_nvml.py::test_what_power_usage_means_depends_on_the_generation",),
        ("sensors", "energy"),
    ),
    Finding(
        "TensorRT 10 places layers on a DLA by precision constraints, which strongly typed networks do not "
        "have",
        "DLA builds of TensorRT 10 are weakly typed with the FP16 flag; one with no layer with weights on "
        "the DLA is refused",
        (
            f"{_TRT}::test_a_dla_that_runs_no_layer_with_weights_is_refused",
            f"{_TRT}::test_a_dla_of_tensorrt_11_is_strongly_typed",
        ),
    ),
    Finding(
        "What the engine inspector leaves out, or names otherwise (TensorRT #4397), refuses an engine, and "
        "its report is lost",
        "Only a wrong type refuses, names match without dots, and reports stay beside the engine, refused or "
        "not",
        (
            f"{_TRT}::test_what_the_inspector_does_not_tell_refuses_nothing",
            "runtimes/test_kernels.py::test_names_match_where_dots_became_underscores_and_only_if_that_is_clear",
            "pipeline/steps/test_engine.py::"
            "test_what_a_builder_reported_is_kept_beside_the_engine_and_travels_in_a_proof",
        ),
    ),
    Finding(
        "GPU compute holds the host's time to launch, and one interrupted run in 2,000 makes it unsteady",
        "The next run is queued before one has ended, as trtexec does; the middle 90 % of the runs decide",
        (
            f"{_SESSION}::test_gpu_compute_of_queued_runs_holds_no_time_of_the_host",
            "measure/test_spread.py::test_a_measurement_with_hiccups_is_valid_but_for_its_p99",
        ),
        ("queueing",),
    ),
    Finding(
        "ONNX Runtime on CUDA: the limit for GPU compute is applied to times of Python, layers have the "
        "time of their launch, and its messages break `--json`",
        "A remark; times of kernels; messages go to stderr",
        (
            f"{_VALIDITY}::test_the_limit_for_gpu_compute_is_not_applied_to_python_around_onnx_runtime",
            "runtimes/ort/test_ort.py::"
            "test_on_cuda_a_layer_takes_the_time_of_its_kernels_not_of_their_launch",
            "runtimes/ort/test_ort.py::test_a_visible_gpu_is_used_without_tf32_and_named",
        ),
    ),
    Finding(
        "Dynamic Boost of laptops moves the power limit by some watts",
        "A remark up to a tenth of the limit",
        (f"{_RULES}::test_findings_and_remarks_at_their_limits",),
        ("nvml",),
    ),
    Finding(
        "INT8 with FP16 scales does not build on Orin with TensorRT 10.16 (TensorRT #4832)",
        "The message has a hint: export again with `--scales fp32`",
        (f"{_TRT}::test_int8_with_fp16_scales_that_orin_refuses_has_a_hint",),
    ),
    Finding(
        "A failed capture leaves an error that the next call takes for its own, and a graph",
        "The last error is cleared and the graph destroyed",
        (
            f"{_SESSION}::test_a_call_that_is_forbidden_during_a_capture_leaves_nothing_behind",
            f"{_SESSION}::test_an_interrupted_capture_destroys_the_graph_of_what_was_queued",
        ),
        ("errors",),
    ),
    Finding(
        "Closing a session stops at the first free that fails",
        "What can be freed is freed, also after an error that ends the context",
        (
            f"{_SESSION}::test_a_free_that_fails_does_not_keep_the_others",
            f"{_SESSION}::test_after_a_sticky_error_a_session_closes_and_says_what_to_do",
        ),
        ("sticky",),
    ),
    Finding(
        "Times of CUDA events are unreliable in confidential computing",
        "Latency is invalid there",
        (f"{_RULES}::test_findings_and_remarks_at_their_limits",),
        ("nvml",),
    ),
    Finding(
        "With MIG, NVML's figures are those of the whole GPU",
        "A remark. Whether NVML lists the memory of processes in an instance is not known",
        (f"{_ENVIRONMENT}::test_an_instance_of_a_partitioned_gpu_is_remarked",),
        ("nvml",),
    ),
    Finding(
        "Ada and newer report no slowdown temperature",
        "It is the temperature now and the distance that NVML reports",
        (f"{_STATE}::test_a_driver_without_the_deprecated_questions_answers_by_their_successors",),
        ("nvml",),
    ),
    Finding(
        "In a container, NVML's process IDs are the host's; without the capability `utility` there is no "
        "NVML",
        "Memory by process is not read there. Without NVML, `doctor` reports no GPU: see below",
        ("measure/test_footprint.py::test_in_a_container_a_host_process_with_our_number_is_not_ours",),
        ("processes", "visible"),
    ),
    Finding(
        "Copies that take longer than the computation are a warning in trtexec, and invalid here",
        "A remark",
        (f"{_VALIDITY}::test_long_copies_are_a_remark_as_in_trtexec",),
        ("queueing",),
    ),
    Finding(
        "Without CUDA's development package, its library has only a name with a version",
        "Names with versions are looked for, in wheels and folders",
        ("runtimes/engine/test_cuda.py::test_a_cuda_runtime_that_is_missing_is_searched_for",),
        ("smoke",),
    ),
    Finding("A version-compatible engine may lack the lean runtime with packages from pip", None),
)


def section() -> str:
    """The section of the page."""
    rows = [
        (
            str(number),
            each.what,
            each.covered or "open",
            ", ".join(dict.fromkeys(f"`{Path(one.split('::')[0]).name}`" for one in each.tests)) or "-",
            ", ".join(each.probes) or "-",
        )
        for number, each in enumerate(FINDINGS, 1)
    ]
    return f"{_HEAD}\n{table(_COLUMNS, rows, left=range(len(_COLUMNS)))}\n"


_COLUMNS = ("#", "what would have failed", "how it is covered", "test", "probe")
_HEAD = """
## What reading the code found

Before cnnx ran on a device, all of its device code was read against the documentation and sources of
CUDA, TensorRT and NVML. This would have failed. Tests hold each on an imitation; the probes of
`python -m tools.check.gpu` look at it on a GPU.
"""
