import pytest

from tests.inputs.fleet import kill_all, serving


@pytest.fixture(scope="session")
def sshd(tmp_path_factory):
    """An sshd on 127.0.0.1 that takes one key, for the tests of one worker."""
    with serving(tmp_path_factory.mktemp("ssh") / "d") as server:
        yield server


@pytest.fixture
def fleet_folder(tmp_path):
    """A folder whose processes are killed if the test leaves some."""
    yield tmp_path
    kill_all(tmp_path)
