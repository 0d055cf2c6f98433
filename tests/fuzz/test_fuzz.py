"""Changed inputs at every entry point: refused, or with a result that is right. See tools/check/fuzz."""

import pytest

from tools.check.fuzz.__main__ import run_apart
from tools.check.fuzz.bundled import HOME, make_apart
from tools.check.fuzz.doors import MODULES, doors_of
from tools.check.fuzz.shown import findings_of

pytestmark = pytest.mark.slow

INPUTS = 1000
WITHOUT_COMMAND = {"proof", "sysfs", "tegrastats", "timing cache"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """One bundle that all doors change."""
    folder = tmp_path_factory.mktemp("fuzz")
    make_apart(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(HOME, str(folder))
        yield


@pytest.mark.parametrize("module", MODULES)
def test_no_changed_input_is_a_finding(module, bundle):
    """The corpus, and then a thousand new inputs at each door of a kind."""
    tallies = run_apart([door.name for door in doors_of(module)], INPUTS, seed=0)
    found = [finding for tally in tallies for finding in tally.findings]
    assert not found, findings_of(found)
    for tally in tallies:
        assert tally.tried == INPUTS
        assert tally.commands == (0 if tally.door in WITHOUT_COMMAND else INPUTS // 100), tally.door
        assert tally.kinds["refused"] + tally.kinds["same"] + tally.kinds["valid"] == INPUTS
