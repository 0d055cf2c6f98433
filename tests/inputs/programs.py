"""Programs run to their end."""

import subprocess

import pytest


def run(*command, **options):
    """A finished process, its output kept; fails the test with that output when it fails."""
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=540, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def pip(programs, *arguments):
    """What pip printed; skips the test where there is no package index."""
    command = [programs / "python", "-m", "pip", "install", "--quiet", *arguments]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=540)
    unreachable = ("connection", "network", "temporary failure", "timed out")
    if done.returncode and any(word in done.stderr.lower() for word in unreachable):
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stderr
    return done.stdout
