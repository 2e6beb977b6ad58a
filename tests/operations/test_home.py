"""The home: what is chosen once stays, secrets are readable by their owner only, one command at a time."""

import getpass
import os
import stat

import pytest

from operations.errors import OperationFailed
from operations.home import SOCKET_PATH_MAX, Home


def test_ports_and_passwords_are_chosen_once_and_kept(tmp_path):
    first = Home(tmp_path)
    port, password = first.port("gateway"), first.password("somebody")

    again = Home(tmp_path)

    assert again.port("gateway") == port
    assert again.password("somebody") == password


def test_two_ports_of_one_home_differ(tmp_path):
    home = Home(tmp_path)

    assert len({home.port(f"server-{number}") for number in range(20)}) == 20


def test_secrets_are_readable_by_their_owner_only(tmp_path):
    home = Home(tmp_path)
    home.password("somebody")

    assert stat.S_IMODE(home.secrets.path.stat().st_mode) == 0o600


def test_second_command_on_one_home_is_refused(tmp_path):
    home = Home(tmp_path)

    with home.lock(), pytest.raises(OperationFailed, match="Another countinghouse command"), Home(tmp_path).lock():
        pytest.fail("two commands changed one home")


def test_server_keeps_the_account_that_made_its_data(tmp_path):
    """Debian's package brings the account `postgres`, which then is not who runs a cluster made without it."""
    home = Home(tmp_path)
    home.state.set("accounts", {"postgres": "nobody"})

    assert home.account("postgres").name == ("nobody" if os.geteuid() == 0 else getpass.getuser())


def test_homes_have_different_markers(tmp_path):
    assert Home(tmp_path / "a").marker != Home(tmp_path / "b").marker


def test_socket_of_a_deep_home_has_a_short_path(tmp_path):
    home = Home(tmp_path / ("deep" * 30))

    socket = home.supervisor_socket

    assert len(str(socket)) <= SOCKET_PATH_MAX
    home.remove_far_socket()
    assert not socket.parent.exists()
