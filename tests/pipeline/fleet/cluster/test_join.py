"""Nodes of a real Ray cluster on this machine: who is let in, what is exposed, what is left at the end."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from cnnx.pipeline.fleet.cluster.token import create_token
from tests.inputs.fleet import eventually, free_block, kill_all, processes_of

pytest.importorskip("ray", reason="a fleet needs Ray")
pytestmark = pytest.mark.slow

# What a script of somebody else does, who reached the port: run code in the cluster.
INTRUDER = """
import sys
from ray._private.state import GlobalState
from ray._raylet import GcsClientOptions
state = GlobalState()
state._initialize_global_state(GcsClientOptions.create(sys.argv[1], None, True, False))
print("let in", len(state.node_table()))
"""


class World:
    """Nodes, each in a process of `cnnx fleet join`, with all their files in one folder."""

    def __init__(self, folder):
        self.folder = folder
        self.token = folder / "token"
        # Short, as paths of sockets are; the nodes' own folders are made there.
        self.temporary = Path(tempfile.mkdtemp(prefix="f", dir="/tmp"))
        self.first = free_block(200)
        self.cluster = self.first + 199
        self.address = f"127.0.0.2:{self.cluster}"
        self.environment = {
            **os.environ,
            "CNNX_CACHE": str(folder / "cache"),
            "TMPDIR": str(self.temporary),
            "COLUMNS": "200",
        }

    def command(self, *arguments, token=None):
        return [sys.executable, "-m", "cnnx", "fleet", *arguments, "--token-file", str(token or self.token)]

    def head(self):
        options = ["--head", "--node-ip-address", "127.0.0.2", "--port", str(self.cluster)]
        return self.join("head", *options, "--node-ports", str(self.first))

    def node(self, *more, **options):
        address = ["--address", self.address, "--node-ip-address", "127.0.0.3"]
        return self.join("orin-nano", *address, "--node-ports", str(self.first + 100), *more, **options)

    def join(self, name, *options, **more):
        device = [] if name == "head" else ["--as", name]
        log = (self.folder / f"{name}.log").open("ab")
        command = self.command("join", *device, *options, "--object-store-mib", "80", **more)
        return subprocess.Popen(command, stdout=log, stderr=log, env=self.environment, cwd=self.folder)

    def said(self, name):
        return (self.folder / f"{name}.log").read_text()

    def run(self, command, **more):
        done = subprocess.run(
            command, env={**self.environment, **more}, capture_output=True, text=True, timeout=120
        )
        return done.returncode, done.stdout, done.stderr

    def processes(self):
        return processes_of(self.token, self.temporary)

    def nodes(self):
        code, out, _ = self.run(self.command("status", "--address", self.address, "--json"))
        return json.loads(out)["result"]["nodes"] if code == 0 else []


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    kill_all(tmp_path, made.temporary)
    shutil.rmtree(made.temporary, ignore_errors=True)


def joined(world, name, process, times=1):
    def count():
        assert process.poll() is None, world.said(name)
        return world.said(name).count("is in the cluster") >= times

    eventually(count, seconds=120)


def listening(pids):
    """Ports on which processes listen, each with its address in hexadecimal, from /proc."""
    inodes = {}
    for kind in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{kind}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":
                address, port = fields[1].split(":")
                inodes[f"socket:[{fields[9]}]"] = (int(port, 16), address)
    found = set()
    for pid in pids:
        for handle in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError, KeyError):
                found.add(inodes[str(handle.readlink())])
    return found


def test_a_cluster_lets_in_who_has_the_token_outlives_its_head_and_leaves_nothing(world):
    """One test, as each start of Ray takes seconds."""
    create_token(world.token)
    node = world.node()
    eventually(lambda: node.poll() is None and "waiting for the head" in world.said("orin-nano"))
    head = world.head()
    joined(world, "head", head)
    joined(world, "orin-nano", node)

    (first, second) = sorted(world.nodes(), key=lambda each: each["device"] or "")
    assert (first["device"], first["slots"], first["address"]) == (None, 0, "127.0.0.2")
    assert (second["device"], second["slots"], second["free"]) == ("orin-nano", 1, 1)
    assert second["python"] == ".".join(map(str, sys.version_info[:3])) and second["alive"]
    check_ports(world)
    check_secrets(world)
    check_strangers(world)

    head.kill()  # its supervisor gets no signal from it, but from the kernel
    head.wait()
    eventually(lambda: not [each for each in world.processes().values() if "gcs_server" in each])
    head = world.head()
    joined(world, "head", head, times=2)
    joined(world, "orin-nano", node, times=2)
    assert "the node ended:" in world.said("orin-nano")
    alive = {each["device"]: each["node"] for each in world.nodes() if each["alive"]}
    assert set(alive) == {None, "orin-nano"} and alive["orin-nano"] != second["node"]

    folders = len(list(world.temporary.iterdir()))
    node.send_signal(signal.SIGTERM)
    head.send_signal(signal.SIGINT)
    assert (node.wait(60), head.wait(60)) == (143, 130)
    assert not world.processes()
    # What remains is that of the head that was killed.
    assert (folders, len(list(world.temporary.iterdir()))) == (3, 1)


def check_ports(world):
    """Only the documented ports, and only in the blocks that a firewall rule can name."""
    base, other = world.first, world.first + 100
    documented = {world.cluster, *range(base, base + 3), *range(other, other + 3)}
    # Ray does not wait for the last of each block, before it reports that a node has started.
    eventually(lambda: {port for port, _ in listening(world.processes())} >= documented)
    ports = listening(world.processes())
    assert {port for port, _ in ports} == documented
    # Ray binds the last of each block to the address that it is given, and the others to all.
    assert {port for port, address in ports if set(address) != {"0"}} == {base + 2, other + 2}


def check_secrets(world):
    """The token is in its file alone, and others cannot enter the folder with Ray's sockets."""
    token = world.token.read_text()
    for pid, command in world.processes().items():
        assert token not in command and token not in Path(f"/proc/{pid}/environ").read_text(errors="replace")
    for file in [*world.temporary.rglob("*"), *world.folder.rglob("*.log")]:
        assert not file.is_file() or token.encode() not in file.read_bytes()
    assert all(folder.stat().st_mode & 0o077 == 0 for folder in world.temporary.iterdir())


def check_strangers(world):
    """Who has no token or a wrong one is refused, and so is a second node on a device, or on its ports."""
    wrong = world.folder / "wrong"
    wrong.touch(0o600)
    wrong.write_text("0" * 64)
    without = {**world.environment, "RAY_AUTH_MODE": "disabled"}
    command = [sys.executable, "-c", INTRUDER, world.address]
    intruder = subprocess.run(command, env=without, capture_output=True, text=True, timeout=120)
    assert intruder.returncode != 0 and "let in" not in intruder.stdout
    assert "InvalidAuthToken" in intruder.stderr
    nodes = {
        "the head refuses the token": world.join(
            "nano-2", "--address", world.address, "--node-ports", str(free_block()), token=wrong
        ),
        "has already joined as orin-nano": world.node(),
        f"the port {world.first} is in use": world.join(
            "nano-3", "--address", world.address, "--node-ports", str(world.first)
        ),
    }
    for says, refused in nodes.items():
        assert refused.wait(120) == 4
        assert any(says in file.read_text() for file in world.folder.glob("*.log")), says
