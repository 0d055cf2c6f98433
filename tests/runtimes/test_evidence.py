"""What a builder left beside an engine is read by the file's name."""

import json

from cnnx.runtimes.evidence import READERS, kernels_in
from cnnx.runtimes.rtx import build_log
from cnnx.runtimes.trt.inspector import parse_kernels

INSPECTED = json.dumps({"Layers": [{"Name": "a", "LayerType": "gemm", "Inputs": [{"Type": "Half"}]}]})


def test_the_file_that_reports_kernels_is_read_and_the_inspectors_first():
    assert list(READERS) == ["inspector.json", "layers.log"]
    found = kernels_in({"layers.log": "nothing", "inspector.json": INSPECTED, "build.log": "x"})
    assert found == parse_kernels(INSPECTED) and found[0].inputs == ("fp16",)
    assert kernels_in({"layers.log": "nothing"}) == build_log.parse_kernels("nothing", ())
    assert kernels_in({"build.log": "x"}) == kernels_in({}) == ()
