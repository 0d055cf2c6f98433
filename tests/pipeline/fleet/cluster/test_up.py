"""`fleet up`, `status` and `down` over a real sshd: environments are made by pip, and Ray runs in them."""

import json
import shutil
import sys
import sysconfig
import tempfile
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

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
    # A plain environment finds nothing; the one that measures has the packages through one more requirement.
    stand_in(folder, "msgspec", metadata.version("msgspec"), path=f"{here}\n")
    return folder


@pytest.fixture
def fleet(tmp_path, sshd, monkeypatch):
    temporary = Path(tempfile.mkdtemp(prefix="f", dir="/tmp"))
    monkeypatch.setenv("TMPDIR", str(temporary))
    yield tmp_path
    kill_all(tmp_path)
    shutil.rmtree(temporary, ignore_errors=True)


def hosts_file(folder, sshd, *, lost_port):
    first = free_block(300)
    python = Path(sys._base_executable)
    device = f'address = "127.0.0.1"\nobject_store_mib = 80\n{sshd.keys(port=sshd.port)}'
    lost = device.replace(f"port = {sshd.port}", f"port = {lost_port}")
    (folder / "hosts.toml").write_text(
        f'[head]\naddress = "127.0.0.2"\ncluster_port = {first + 250}\nnode_ports = {first}\n'
        f'token_file = "{folder}/token"\nfolder = "{folder}/head"\nobject_store_mib = 80\n'
        f'[[device]]\nname = "orin-nano"\nnode_address = "127.0.0.3"\nnode_ports = {first + 100}\n'
        f'folder = "{folder}/a b"\npython = "{python}"\nworker_python = "{python}"\n{device}'
        f'[[device]]\nname = "lost"\nnode_address = "127.0.0.4"\nnode_ports = {first + 150}\n'
        f'folder = "{folder}/lost"\ninstall = false\npython = "{sys.executable}"\n{lost}'
    )
    return folder / "hosts.toml"


def outcomes(text):
    return {host["name"]: host for host in json.loads(text)["result"]["hosts"]}


def test_hosts_come_up_one_by_one_are_listed_and_go_down(fleet, sshd, links, cnnx_command, cnnx_process):
    hosts = hosts_file(fleet, sshd, lost_port=free_block(1))
    up = ["fleet", "up", hosts, "--find-links", links, "--wait", "150", "--json"]
    done = cnnx_process(*up)
    first = outcomes(done.stdout)
    assert done.returncode == 4, done.stderr
    assert {name: host["outcome"] for name, host in first.items()} == {
        "head": "joined", "orin-nano": "joined", "lost": "failed",
    }, first  # fmt: skip
    assert first["lost"]["step"] == "connect" and "Connection refused" in first["lost"]["reason"]
    assert "check address and port" in first["lost"]["hint"]
    token = (fleet / "token").read_text()
    assert (fleet / "a b" / "token").read_text() == token
    assert (fleet / "a b" / "token").stat().st_mode & 0o777 == 0o600
    assert (fleet / "a b").stat().st_mode & 0o077 == 0
    commands = " ".join(processes_of(fleet).values())
    assert f"{fleet}/a b/worker-venv/bin/python" in commands and token not in commands
    assert token not in "".join(file.read_text() for file in fleet.rglob("*.log")) + done.stderr + done.stdout

    # Once the fault is fixed, the rest comes up, and what is there stays as it is.
    text = hosts.read_text()
    lost = text.rindex("port = ")
    hosts.write_text(text[:lost] + f"port = {sshd.port}" + text[text.index("\n", lost) :])
    before = set(processes_of(fleet / "a b"))
    done = cnnx_process(*up[:-1])
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("already up") == 2 and done.stdout.count("joined") == 1
    assert "orin-nano: environment" in done.stderr and "reused" in done.stderr
    assert before <= set(processes_of(fleet / "a b"))

    code, out, _ = cnnx_command("fleet", "status", "--hosts", hosts, "--json")
    status = json.loads(out)["result"]
    assert code == 0 and status["absent"] == []
    assert {node["device"] for node in status["nodes"] if node["alive"]} == {None, "orin-nano", "lost"}

    code, out, _ = cnnx_command("fleet", "down", hosts, "--json")
    assert code == 0 and {host["outcome"] for host in outcomes(out).values()} == {"stopped"}
    assert not processes_of(fleet) and (fleet / "a b" / "venv").is_dir()
    code, out, _ = cnnx_command("fleet", "down", hosts)
    assert code == 0 and out.count("not running") == 3
