import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.inputs.tiny import FEW

KILLS = 5


@pytest.mark.slow
def test_an_export_killed_at_any_moment_leaves_nothing_that_looks_whole(
    tmp_path, tiny, cnnx_process, cnnx_command
):
    """SIGKILL at five moments spread over a whole run, into the same cache and the same place."""
    out = tmp_path / "out"
    environment = {**os.environ, "CNNX_CACHE": str(tmp_path / "cache")}
    command = [str(Path(sys.executable).parent / "cnnx"), "export", str(tiny), "--int8", *FEW]
    started = time.monotonic()
    whole = subprocess.run(
        [*command, "--out", str(tmp_path / "first")],
        env={**environment, "CNNX_CACHE": str(tmp_path / "first-cache")},
        capture_output=True,
    )
    duration = time.monotonic() - started
    assert whole.returncode in (0, 6), whole.stderr
    seen = set()
    moments = random.Random(0)
    for kill in range(KILLS):
        process = subprocess.Popen([*command, "--out", str(out)], env=environment, stderr=subprocess.DEVNULL)
        time.sleep(duration * (kill + moments.random()) / KILLS)
        process.send_signal(signal.SIGKILL)
        process.wait()
        code, _, said = cnnx_command("inspect", out)
        seen.add(code)
        assert code in (0, 3), said
        assert (code == 0) == (out / "manifest.json").is_file(), said
    assert seen == {0, 3}, "every kill came too early, or too late, to prove anything"
    done = cnnx_process(*command[1:], "--out", out, env=environment)
    assert done.returncode in (0, 6), done.stderr
    code, shown, _ = cnnx_command("inspect", out)
    assert code == 0 and "not validated yet" not in shown
