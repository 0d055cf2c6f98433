"""The token: only its owner can read it, and it is never replaced."""

import os

import pytest

from cnnx.errors import EnvironmentLacks, InputRefused
from cnnx.pipeline.fleet.cluster.ray_cluster import environment_of
from cnnx.pipeline.fleet.cluster.token import create_token, read_token, token_file


def test_a_token_is_made_once_and_only_its_owner_can_read_it(tmp_path):
    before = os.umask(0)
    try:
        create_token(tmp_path / "deep" / "token")
        create_token(tmp_path / "other")
    finally:
        os.umask(before)
    token = read_token(tmp_path / "deep" / "token")
    assert (tmp_path / "deep" / "token").stat().st_mode & 0o777 == 0o600
    assert len(token) == 64 and token != read_token(tmp_path / "other")
    create_token(tmp_path / "deep" / "token")
    assert read_token(tmp_path / "deep" / "token") == token


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602])
def test_a_token_that_others_can_read_or_change_is_refused(tmp_path, mode):
    create_token(tmp_path / "token")
    (tmp_path / "token").chmod(mode)
    with pytest.raises(InputRefused, match="others can read or change") as refused:
        read_token(tmp_path / "token")
    assert "chmod 600" in refused.value.hint


@pytest.mark.parametrize(
    "text", ["", "short", "a" * 31, "x" * 40 + "\nX-Header: 1", "y" * 40 + " z", "z" * 5000]
)
def test_what_is_not_a_token_is_refused_and_not_shown(tmp_path, text):
    (tmp_path / "token").touch(0o600)
    (tmp_path / "token").write_text(text)
    with pytest.raises(InputRefused) as refused:
        read_token(tmp_path / "token")
    assert len(text) < 20 or text[:20] not in str(refused.value)


def test_an_absent_token_names_both_ways_to_get_one(tmp_path):
    with pytest.raises(EnvironmentLacks) as refused:
        read_token(tmp_path / "token")
    assert "copy the file" in refused.value.hint and "--head" in refused.value.hint


def test_the_file_is_the_users_own(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert token_file(None) == tmp_path / "cnnx" / "fleet-token"
    monkeypatch.chdir(tmp_path)
    assert token_file("mine") == tmp_path / "mine"


def test_ray_gets_the_path_of_the_token_and_never_the_token_or_another_cluster(tmp_path):
    kept = {
        "PATH": "/bin",
        "RAY_AUTH_TOKEN": "secret",
        "RAY_AUTH_MODE": "disabled",
        "RAY_ADDRESS": "1.2.3.4:1",
    }
    found = environment_of(kept, tmp_path / "token")
    assert (found["RAY_AUTH_MODE"], found["RAY_AUTH_TOKEN_PATH"]) == ("token", str(tmp_path / "token"))
    assert "secret" not in found.values() and "RAY_ADDRESS" not in found and found["PATH"] == "/bin"
    assert found["RAY_USAGE_STATS_ENABLED"] == "0" and "CNNX_FLEET_PYTHON" not in found
    with_worker = environment_of(kept, tmp_path / "token", tmp_path / "python")
    assert with_worker["CNNX_FLEET_PYTHON"] == str(tmp_path / "python")
