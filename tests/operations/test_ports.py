"""Ports: free ones, below the range of outgoing connections, never one that is taken."""

import socket

import pytest

from operations import ports
from operations.errors import OperationFailed


def test_chosen_port_is_free_and_below_the_outgoing_range():
    port = ports.choose()

    assert port in ports.CHOICE
    assert ports.is_free(port)


def test_port_that_somebody_listens_on_is_passed_over():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = listener.getsockname()[1]

        chosen = ports.choose(preferred=[taken])

    assert chosen != taken


def test_port_that_is_promised_to_another_server_is_passed_over():
    promised = ports.choose()

    assert ports.choose(preferred=[promised], taken=[promised]) != promised


def test_waiting_for_a_port_that_nobody_opens_ends_with_a_sentence():
    port = ports.choose()

    with pytest.raises(OperationFailed, match=f"Nothing listens on 127.0.0.1:{port}"):
        ports.wait_open(port, timeout_seconds=0.1)
