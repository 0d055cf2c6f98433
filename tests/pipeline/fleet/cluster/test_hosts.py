"""Hosts files: what is read, what is refused, and that nothing in one reaches ssh as an option."""

import itertools
import re
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnx.errors import HostsError, UsageError
from cnnx.pipeline.fleet.cluster.hosts import Device, read_hosts
from cnnx.pipeline.fleet.cluster.names import check_device, joined, split_address
from cnnx.pipeline.fleet.cluster.shell import Shell
from tools import ROOT

HEAD = '[head]\naddress = "10.8.0.1"\n'
DEVICE = '[[device]]\nname = "orin-nano"\naddress = "10.8.0.2"\n'


def read(tmp_path, text):
    (tmp_path / "hosts.toml").write_text(text)
    return read_hosts(tmp_path / "hosts.toml")


def test_the_example_of_the_page_is_read(tmp_path):
    page = (ROOT / "docs" / "fleet.md").read_text("utf-8")
    hosts = read(tmp_path, re.search(r"```toml\n(.*?)```", page, re.DOTALL)[1])
    assert hosts.cluster == "10.8.0.1:6379" and not hosts.head.ssh
    assert {each.name for each in hosts.device} == {"orin-nano", "agx-orin"}
    assert hosts.device[0].worker_python == "/usr/bin/python3"


@pytest.mark.parametrize(
    ("text", "says", "hint"),
    [
        ("", "'head' is missing", "add 'head'"),
        (HEAD + 'adress = "x"\n', "unknown", "address"),
        (HEAD + DEVICE + 'pasword = "x"\n', "unknown", "did you mean"),
        (HEAD + DEVICE.replace("orin-nano", "Orin"), "device[0].name", "lower-case letters"),
        (HEAD + DEVICE.replace("orin-nano", "memory"), "device[0].name", "not cnnx-export"),
        (HEAD + DEVICE.replace("orin-nano", "node:10.8.0.2"), "device[0].name", "lower-case letters"),
        (HEAD + DEVICE + DEVICE, "two devices have the name 'orin-nano'", "a name of its own"),
        (HEAD + DEVICE.replace("10.8.0.2", "-oProxyCommand=x"), "device[0].address", "an IP address"),
        (HEAD + DEVICE + 'user = "-x"\n', "device[0].user", "a user name"),
        (HEAD + DEVICE + 'folder = "~/cnnx"\n', "device[0].folder", "without ~"),
        (HEAD + DEVICE + 'folder = "-rf"\n', "device[0].folder", "a path"),
        (HEAD + DEVICE + 'python = "a\\nb"\n', "device[0].python", "a path"),
        (HEAD + DEVICE + "port = 0\n", "device[0].port", "1..65535"),
        (HEAD + DEVICE + "node_ports = 65500\n", "device[0].node_ports", "100 ports"),
        (HEAD + DEVICE + 'install = false\nworker_python = "python3"\n', "not absolute", "command -v"),
        (HEAD + DEVICE + 'node_address = "orin.local"\n', "not an IP address", "private network"),
        (HEAD.replace("10.8.0.1", "127.0.0.1"), "Ray replaces 127.0.0.1", "node_address"),
        (HEAD.replace("10.8.0.1", "desk.local"), "is a name", "node_address"),
        (HEAD + "cluster_port = 17005\n", "among its node_ports", "another"),
        ("[head\n", "invalid TOML", "docs/fleet.md"),
    ],
)
def test_a_wrong_value_is_refused_with_its_key_and_a_hint(tmp_path, text, says, hint):
    with pytest.raises(HostsError) as refused:
        read(tmp_path, text)
    assert says in refused.value.what and hint in refused.value.hint
    assert refused.value.where == str(tmp_path / "hosts.toml")


TEXT = st.text(st.sampled_from("-oPrx=\n\0 ~%$`;'\"@:/.[]aZ0\u00e9\u2028"), max_size=12) | st.text(max_size=8)


@given(address=TEXT, user=TEXT, identity=TEXT, config=TEXT)
def test_no_value_reaches_ssh_as_an_option_or_a_second_word(
    tmp_path_factory, address, user, identity, config
):
    tables = {"address": address, "user": user, "identity": identity, "ssh_config": config}
    keys = "".join(f"{key} = {_basic(value)}\n" for key, value in tables.items())
    folder = tmp_path_factory.getbasetemp()
    try:
        hosts = read(folder, f'{HEAD}[[device]]\nname = "a"\n{keys}')
    except HostsError:
        return
    words = Shell(hosts.device[0])._ssh()
    assert words[-2:] == ["--", address] and not address.startswith("-") and "@" not in address
    after = dict(itertools.pairwise(words))
    assert (
        after.get("-l", "x")[0] != "-" and after.get("-i", "/")[0] == "/" and after.get("-F", "/")[0] == "/"
    )
    settings = [words[place + 1] for place, word in enumerate(words) if word == "-o"]
    assert "BatchMode=yes" in settings and not any("StrictHostKey" in each for each in settings)


def _basic(text):
    """A TOML string with any character, as far as TOML has it."""
    return '"' + "".join(f"\\U{ord(each):08x}" for each in text if not "\ud800" <= each <= "\udfff") + '"'


@given(st.text(max_size=6) | st.from_regex(r"[a-z0-9.-]{1,64}", fullmatch=True))
def test_names_are_the_same_on_the_command_line_and_in_the_file(name):
    from cnnx.schema import from_plain

    def accepted(call):
        try:
            call()
        except (HostsError, UsageError):
            return False
        return True

    data = {"name": name, "address": "10.8.0.2"}
    in_file = accepted(lambda: from_plain(Device, data, where="hosts.toml", error=HostsError))
    assert accepted(lambda: check_device(name)) == in_file
    if in_file:
        assert shlex.quote(name) == name and len(name) <= 63  # a label of Ray has at most 63 characters


@given(st.sampled_from(["10.8.0.1", "desk.local", "fd00::1"]), st.integers(1, 65535))
def test_addresses_are_read_as_they_are_written(host, port):
    assert split_address(joined(host, port)) == (host, port)


@pytest.mark.parametrize(
    "text", ["", "10.8.0.1", ":6379", "10.8.0.1:0", "10.8.0.1:99999", "-a:1", "fd00::1:1", "a b:1"]
)
def test_other_addresses_are_refused(text):
    with pytest.raises(UsageError, match="expected HOST:PORT"):
        split_address(text)
