"""`fleet up`, `status` and `down` over a real sshd: environments are made by pip, and Ray runs in them."""

import json
import os
import shutil
import sys
import sysconfig
import tempfile
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from cnnx.pipeline.fleet.cluster.hosts import read_hosts
from tests.inputs.fleet import free_block, kill_all, processes_of

pytest.importorskip("ray", reason="a fleet needs Ray")
pytestmark = pytest.mark.slow


def stand_in(folder, name, version, *, path=""):
    """A wheel without content for pip; or one that adds a folder to the import path."""
    name = name.replace("-", "_")
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
        if path:
            archive.writestr("everything.pth", path)


@pytest.fixture
def links(tmp_path):
    """What `pip download` would give: stand-ins for what cnnx needs, and the packages of this interpreter."""
    folder = tmp_path / "links"
    folder.mkdir()
    here = Path(metadata.distribution("ray").locate_file(""))
    needs = [Requirement(line) for line in metadata.requires("cnnx")]
    for need in needs:
        if need.marker is None or need.marker.evaluate({"extra": "fleet"}):
            path = f"{here}\n{sysconfig.get_path('purelib')}\n" if need.name == "ray" else ""
            stand_in(folder, need.name, metadata.version(need.name), path=path)
    # The environment that measures does not get Ray; it has the packages through one that both get.
    stand_in(folder, "msgspec", metadata.version("msgspec"), path=f"{here}\n")
    return folder


@pytest.fixture
def fleet(tmp_path, sshd, monkeypatch):
    temporary = Path(tempfile.mkdtemp(prefix="f", dir="/tmp"))
    monkeypatch.setenv("TMPDIR", str(temporary))
    yield tmp_path
    kill_all(tmp_path, temporary, sshd.temporary)
    shutil.rmtree(temporary, ignore_errors=True)


def hosts_file(folder, sshd, *, port):
    first = free_block(300)
    python = Path(sys._base_executable)
    (folder / "hosts.toml").write_text(
        f'[head]\naddress = "127.0.0.2"\ncluster_port = {first + 250}\nnode_ports = {first}\n'
        f'token_file = "{folder}/token"\nfolder = "{folder}/head"\nobject_store_mib = 80\n'
        f'[[device]]\nname = "orin-nano"\nnode_address = "127.0.0.3"\nnode_ports = {first + 100}\n'
        f'folder = "{folder}/a b"\npython = "{python}"\nworker_python = "{python}"\n'
        f'address = "127.0.0.1"\nobject_store_mib = 80\n{sshd.keys(port=port)}'
    )
    return folder / "hosts.toml"


def outcomes(text):
    return {host["name"]: host for host in json.loads(text)["result"]["hosts"]}


def test_hosts_come_up_one_by_one_are_listed_do_work_and_go_down(
    fleet, sshd, links, tiny_bundle, cnnx_command, cnnx_process
):
    wrong = free_block(1)
    hosts = hosts_file(fleet, sshd, port=wrong)
    up = ["fleet", "up", hosts, "--find-links", links, "--wait", "150"]
    done = cnnx_process(*up, "--json")
    first = outcomes(done.stdout)
    assert done.returncode == 4, done.stderr
    assert (first["head"]["outcome"], first["orin-nano"]["outcome"]) == ("joined", "failed"), first
    lost = first["orin-nano"]
    assert lost["step"] == "connect" and "Connection refused" in lost["reason"]
    assert "check address and port" in lost["hint"]

    # Once the fault is fixed, the rest comes up, and what is there stays as it is.
    hosts.write_text(hosts.read_text().replace(f"port = {wrong}\n", f"port = {sshd.port}\n"))
    running = set(processes_of(fleet / "head"))
    done = cnnx_process(*up)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (done.stdout.count("already up"), done.stdout.count("joined")) == (1, 1)
    assert running <= set(processes_of(fleet / "head"))
    check_secrets(fleet, done.stderr + done.stdout)
    again = cnnx_process(*up)
    assert again.returncode == 0 and again.stdout.count("already up") == 2
    steps = [line for line in again.stderr.splitlines() if "environment" in line or "files" in line]
    assert len(steps) == 3 and all("reused" in line for line in steps)

    code, out, _ = cnnx_command("fleet", "status", "--hosts", hosts, "--json")
    status = json.loads(out)["result"]
    assert code == 0 and status["absent"] == []
    assert {node["device"] for node in status["nodes"] if node["alive"]} == {None, "orin-nano"}

    # The device measures in its own Python, in the cluster and over SSH alone.
    bundle = shutil.copytree(tiny_bundle, fleet / "bundle")
    measured = "runs/*-benchmark-*.json"
    before = len(list(bundle.glob(measured)))
    survey = ["fleet", "survey", "--models", bundle, "--batches", "1", "--seconds", "0.05", "--json"]
    address = read_hosts(hosts).cluster
    ways = {"ray": ["--address", address, "--token-file", fleet / "token"], "ssh": ["--no-ray", hosts]}
    for way, options in ways.items():
        done = cnnx_process(*survey, "--out", fleet / way, *options)
        assert done.returncode == 0, done.stdout + done.stderr
        result = json.loads(done.stdout)["result"]
        assert [(row["on"], row["status"]) for row in result["rows"]] == [("orin-nano", "done")]
        events = [json.loads(line)["event"] for line in done.stderr.splitlines() if line.startswith("{")]
        assert events[-1]["state"] == "done" and events[-1]["jobs_done"] == events[-1]["jobs"] == 1
        assert list(fleet.glob(f"{way}/devices/orin-nano/rows/*.json"))
    assert len(list(bundle.glob(measured))) == before + len(ways)

    code, out, _ = cnnx_command("fleet", "down", hosts, "--json")
    assert code == 0 and {host["outcome"] for host in outcomes(out).values()} == {"stopped"}
    assert not processes_of(fleet, sshd.temporary, os.environ["TMPDIR"])
    assert (fleet / "a b" / "venv").is_dir()
    code, out, _ = cnnx_command("fleet", "down", hosts)
    assert code == 0 and out.count("not running") == 2


def check_secrets(fleet, said):
    """The token is in two files that only their owner can read."""
    token = (fleet / "token").read_text()
    folder = fleet / "a b"
    assert (folder / "token").read_text() == token
    assert [path.stat().st_mode & 0o077 for path in (fleet / "token", folder, folder / "token")] == [0, 0, 0]
    commands = " ".join(processes_of(fleet).values())
    assert f"{folder}/worker-venv/bin/python" in commands and token not in commands
    assert token not in "".join(file.read_text() for file in fleet.rglob("*.log")) + said
