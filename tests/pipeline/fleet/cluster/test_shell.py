"""Scripts over a real sshd: values arrive as they are, and a connection that fails says how to fix it."""

import dataclasses
import hashlib
import os
import subprocess
import sys

import pytest

from cnnx.errors import EnvironmentLacks, Unreachable
from cnnx.pipeline.fleet.cluster import scripts
from cnnx.pipeline.fleet.cluster.hosts import Device
from cnnx.pipeline.fleet.cluster.shell import Shell
from tests.inputs.fleet import eventually, free_block, key_pair, processes_of


@pytest.fixture
def device(sshd):
    return Device(
        name="orin-nano",
        address="127.0.0.1",
        port=sshd.port,
        identity=str(sshd.identity),
        ssh_config=str(sshd.config),
    )


def test_arguments_and_input_arrive_as_they_are(device):
    hostile = ["", " ", "-e", "$(touch /tmp/x)", "`id`", "'", '"', "\\", "a\nb", "~", "*", "\u00e9"]
    script = """printf '%s\\0' "$@"; cat"""
    content = bytes(range(256)) * 1000
    said = Shell(device).run(script, hostile, stdin=b"", seconds=60)
    assert said.split("\0")[:-1] == hostile
    counted = Shell(device).run("sha256sum", [], stdin=content, seconds=60)
    assert counted.split()[0] == hashlib.sha256(content).hexdigest()


def test_each_way_that_ssh_fails_has_its_own_hint(device, sshd, tmp_path):
    def fails(**changed):
        with pytest.raises(Unreachable) as refused:
            Shell(dataclasses.replace(device, **changed)).run("true", [], seconds=60)
        return refused.value

    nothing = fails(port=free_block(1))
    assert "Connection refused" in nothing.what and "check address and port" in nothing.hint
    stranger, _ = key_pair(tmp_path / "stranger")
    denied = fails(identity=str(stranger))
    assert "Permission denied" in denied.what and "ssh-copy-id" in denied.hint
    (tmp_path / "config").write_text(f"UserKnownHostsFile {tmp_path}/none\nGlobalKnownHostsFile /dev/null\n")
    unknown = fails(ssh_config=str(tmp_path / "config"))
    assert "Host key verification failed" in unknown.what
    assert unknown.hint == f"compare the host's key: ssh -p {sshd.port} 127.0.0.1"
    other = key_pair(tmp_path / "other")[1]
    (tmp_path / "known").write_text(f"[127.0.0.1]:{sshd.port} {other}")
    (tmp_path / "config").write_text(f"UserKnownHostsFile {tmp_path}/known\nGlobalKnownHostsFile /dev/null\n")
    assert "compare the host's key" in fails(ssh_config=str(tmp_path / "config")).hint


def test_a_script_that_fails_or_hangs_is_no_failure_of_ssh(device):
    with pytest.raises(EnvironmentLacks) as failed:
        Shell(device).run("echo first >&2; echo the reason >&2; exit 3", [], seconds=60)
    assert failed.value.what == "the reason" and not isinstance(failed.value, Unreachable)
    with pytest.raises(EnvironmentLacks, match="did not end within 1 s"):
        Shell(device).run("exec sleep 30", [], seconds=1)


def test_a_file_arrives_whole_or_not_at_all(device, tmp_path):
    shell, wheel = Shell(device), b"wheel" * 100_000
    sha256 = hashlib.sha256(wheel).hexdigest()
    line = f"{sha256} a.whl\n".encode()
    assert shell.run(scripts.MISSING, [str(tmp_path)], stdin=line, seconds=60).split() == ["a.whl"]
    with pytest.raises(EnvironmentLacks, match=r"a\.whl arrived damaged"):
        shell.run(scripts.RECEIVE, [str(tmp_path), "a.whl", sha256], stdin=wheel[:-1], seconds=60)
    assert not list((tmp_path / "wheels").iterdir())
    shell.run(scripts.RECEIVE, [str(tmp_path), "a.whl", sha256], stdin=wheel, seconds=60)
    assert (tmp_path / "wheels" / "a.whl").read_bytes() == wheel
    assert shell.run(scripts.MISSING, [str(tmp_path)], stdin=line, seconds=60) == ""


def test_what_is_started_outlives_its_session_and_only_it_is_stopped(device, fleet_folder):
    shell, folder = Shell(device), str(fleet_folder)
    program = [sys.executable, "-c", "import time; print('is here', flush=True); time.sleep(600)", folder]

    def start(digest):
        return shell.run(scripts.START, [folder, "nano", digest, *program], seconds=60).strip()

    assert start("one") == "started"
    (pid,) = eventually(lambda: processes_of(folder))
    assert os.getsid(pid) == pid
    assert eventually(
        lambda: "is here" in (log := shell.run(scripts.LOOK, [folder, "nano"], seconds=60)) and log
    )
    assert start("one") == "running" and list(processes_of(folder)) == [pid]
    assert start("two") == "started"
    (other,) = eventually(lambda: processes_of(folder))
    assert other != pid
    # The same ID with another start time is another process, which is left alone.
    file = fleet_folder / "nano.pid"
    written = file.read_text()
    file.write_text(written.replace(written.split()[1], "1"))
    assert shell.run(scripts.LOOK, [folder, "nano"], seconds=60).startswith("ended")
    assert shell.run(scripts.STOP, [folder, "nano"], seconds=60) == "absent\n" and other in processes_of(
        folder
    )
    file.write_text(written)
    assert shell.run(scripts.STOP, [folder, "nano"], seconds=60) == "stopped\n"
    assert not processes_of(folder) and not file.exists()
    assert shell.run(scripts.STOP, [f"{folder}/none", "nano"], seconds=60) == "absent\n"


def test_a_process_that_ended_by_itself_is_not_running(device, fleet_folder):
    shell, folder = Shell(device), str(fleet_folder)
    words = ["sh", "-c", "echo error: broken >&2; exit 4"]
    assert shell.run(scripts.START, [folder, "nano", "one", *words], seconds=60) == "started\n"
    look = eventually(
        lambda: (said := shell.run(scripts.LOOK, [folder, "nano"], seconds=60)).startswith("ended") and said
    )
    assert look == "ended\nerror: broken\n"
    lasting = [folder, "nano", "one", "sh", "-c", "sleep 600; :", "sh", folder]
    assert shell.run(scripts.START, lasting, seconds=60) == "started\n"
    assert shell.run(scripts.LOOK, [folder, "nano"], seconds=60) == "running\n"


@pytest.mark.parametrize(
    ("python", "says"), [("no-such-python", "there is no Python"), ("false", "no output")]
)
def test_a_python_that_cannot_be_used_is_found_first(device, tmp_path, python, says):
    with pytest.raises(EnvironmentLacks, match=says):
        Shell(device).run(scripts.CONNECT, [str(tmp_path), python], seconds=60)


def test_the_scripts_are_posix_sh():
    for name, script in vars(scripts).items():
        if name.isupper() and not name.startswith("_"):
            subprocess.run(["sh", "-n"], input=script.encode(), check=True)
