"""What is made of Ray's list of nodes, and of its words where it fails."""

import pytest

import cnnx
from cnnx.errors import EnvironmentLacks, HostsError, Unreachable, UsageError
from cnnx.options.fleet import JoinOptions
from cnnx.pipeline.fleet.cluster import status
from cnnx.pipeline.fleet.cluster.join import _check
from cnnx.pipeline.fleet.cluster.membership import Membership, holding, membership_of, memberships
from cnnx.pipeline.fleet.cluster.ray_cluster import ListedNode, refusal
from cnnx.pipeline.fleet.cluster.token import create_token
from tests.inputs.fleet import free_block


def listed(node, device, *, alive=True, free=1.0, address="10.8.0.2", **labels):
    total = {"CPU": 1.0, device: 1.0, "cnnx-export": 1.0} if device else {"CPU": 1.0}
    labels = {f"cnnx.{name.replace('_', '-')}": text for name, text in labels.items()}
    labels |= {"cnnx.device": device} if device else {}
    return ListedNode(node, address, "host", alive, total, {device: free} if device and alive else {}, labels)


@pytest.fixture
def ray_lists(monkeypatch, tmp_path):
    """Ray's list of nodes, as its documented API gives it."""
    create_token(tmp_path / "token")

    def lists(*nodes):
        monkeypatch.setattr(status, "list_nodes", lambda address, token: nodes)
        return cnnx.fleet_status(address="10.8.0.1:6379", token_file=tmp_path / "token")

    return lists


def test_slots_labels_and_a_head_without_a_device(ray_lists):
    found = ray_lists(
        listed("aaaa", None, address="10.8.0.1"),
        listed("bbbb", "orin-nano", free=0.0, pytorch="2.13.0_cpu", python="3.12.1", worker_python="3.10.12"),
    )
    head, device = found.nodes
    assert (head.device, head.slots, head.free, head.exports) == (None, 0, 0, False)
    assert (device.slots, device.free, device.exports, device.pytorch) == (1, 0, True, "2.13.0+cpu")
    shown = repr(found)
    assert "(head)" in shown and "0 of 1" in shown and "3.12.1, measures with 3.10.12" in shown


def test_a_node_that_came_back_hides_its_earlier_ones_and_one_that_did_not_is_shown_once(ray_lists):
    found = ray_lists(
        listed("a", "nano", alive=False), listed("b", "nano", alive=False), listed("c", "nano"),
        listed("d", "agx", alive=False, address="10.8.0.3"),
        listed("e", "agx", alive=False, address="10.8.0.3"),
        listed("f", "nano", address="10.8.0.9"),
    )  # fmt: skip
    assert [(each.node, each.alive) for each in found.nodes] == [("e", False), ("c", True), ("f", True)]


@pytest.mark.parametrize(
    ("output", "kind", "says"),
    [
        ("x\nUnauthenticated: RPC error: InvalidAuthToken: ...", EnvironmentLacks, "refuses the token"),
        (
            "RuntimeError: Version mismatch: The cluster was started with",
            EnvironmentLacks,
            "another Ray or Python",
        ),
        ("a\n\n  the end  \n", Unreachable, "Ray failed: the end"),
        ("", Unreachable, "Ray failed: no output"),
    ],
)
def test_rays_words_become_a_reason_and_a_hint(output, kind, says):
    error = refusal(output, "10.8.0.1:6379")
    assert type(error) is kind and says in error.what and error.hint and error.where == "10.8.0.1:6379"


def test_a_head_that_does_not_answer_is_unreachable(tmp_path):
    pytest.importorskip("ray", reason="a fleet needs Ray")
    create_token(tmp_path / "token")
    with pytest.raises(Unreachable, match="does not answer") as refused:
        cnnx.fleet_status(address=f"127.0.0.1:{free_block(1)}", token_file=tmp_path / "token")
    assert "cnnx fleet up" in refused.value.hint


@pytest.mark.parametrize(
    ("given", "kind", "says"),
    [
        ({}, UsageError, "this machine is not a node of a cluster"),
        ({"address": "a:1", "hosts": "h.toml"}, UsageError, "--address and --hosts exclude each other"),
        ({"hosts": "h.toml", "token_file": "t"}, UsageError, "--token-file has no effect"),
        ({"hosts": "h.toml"}, HostsError, "cannot be read"),
        ({"address": "a:1", "token_file": "/no/token"}, EnvironmentLacks, "no token"),
    ],
)
def test_options_that_contradict_each_other_are_refused(given, kind, says, tmp_path, monkeypatch):
    monkeypatch.setenv("CNNX_CACHE", str(tmp_path))  # another test may have a node in the usual one
    with pytest.raises(kind, match=says):
        cnnx.fleet_status(**given)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "either --head or --address"),
        ({"head": True, "address": "10.8.0.1:6379"}, "either --head or --address"),
        ({"address": "10.8.0.1:6379"}, "the device has no name"),
        ({"address": "10.8.0.1:6379", "device": "memory"}, "'memory' is reserved"),
        ({"address": "10.8.0.1", "device": "nano"}, "expected HOST:PORT"),
        ({"head": True}, "the head has no address"),
        ({"head": True, "node_ip_address": "127.0.0.1"}, "Ray replaces 127.0.0.1"),
        ({"head": True, "node_ip_address": "localhost"}, "expected an IP address"),
        ({"head": True, "node_ip_address": "10.8.0.1", "port": 17005}, "among the node's ports"),
    ],
)  # fmt: skip
def test_a_join_that_cannot_work_is_refused_before_anything_starts(given, says):
    with pytest.raises(UsageError, match=says) as refused:
        _check(JoinOptions(**given))
    assert refused.value.hint


def test_a_machine_knows_the_cluster_of_its_nodes(tmp_path, monkeypatch):
    """While a node runs; of two clusters one must be named, and a device is held once."""
    monkeypatch.setenv("CNNX_CACHE", str(tmp_path))
    one, other = Membership("10.8.0.1:6379", "10.8.0.1"), Membership("10.9.0.1:6379", None)
    with holding("nano", one):
        assert membership_of(None) == membership_of(one.address) == one
        with pytest.raises(EnvironmentLacks, match="already joined as nano"), holding("nano", one):
            pass
        with holding("desk", other), pytest.raises(UsageError, match="several clusters"):
            membership_of(None)
        (tmp_path / "locks/fleet-odd").write_text("no JSON")
        assert memberships() == (one,)
    assert memberships() == ()
    assert membership_of(other.address) == other
