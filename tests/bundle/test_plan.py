"""The header of a plan, byte by byte."""

import pytest

from cnnx.bundle.plan import PlanHeader, read_plan_header

HEAD = b"ftrt" + bytes(4) + bytes(range(100, 116)) + bytes([10, 3, 0, 26])


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (HEAD, PlanHeader("tensorrt", "10.3.0")),
        (HEAD + b"the rest", PlanHeader("tensorrt", "10.3.0")),
        (b"vtrt" + HEAD[4:], PlanHeader("rtx", "10.3.0")),
        (HEAD[:-1], None),
        (b"", None),
        (b"ftrx" + HEAD[4:], None),
        *[(HEAD[:place] + b"\1" + HEAD[place + 1 :], None) for place in range(8)],
        (HEAD[:8] + b"\0" + HEAD[9:], PlanHeader("tensorrt", "10.3.0")),
    ],
)
def test_a_header_names_its_product_and_release(tmp_path, content, found):
    (tmp_path / "plan").write_bytes(content)
    assert read_plan_header(tmp_path / "plan") == found
