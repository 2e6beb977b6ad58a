"""The private servers: on loopback only, beside others, restarted when killed, and never left behind."""

import os
import signal
import socket
import time
from pathlib import Path

import amqp
import psycopg
import pytest

from operations.leftovers import processes_of, wait_gone
from operations.rabbitmq import connect
from operations.servers import EPMD, POSTGRES, RABBITMQ
from operations.system import System

RESTART_SECONDS_MAX = 60


def listening_addresses(system: System) -> set[str]:
    """Return the addresses that the ports of this home are listened on, as the kernel tells them."""
    ports = {f"{port:04X}" for port in system.home.state.get("ports").values()}
    lines = [*Path("/proc/net/tcp").read_text().splitlines()[1:], *Path("/proc/net/tcp6").read_text().splitlines()[1:]]
    local = [line.split()[1] for line in lines if line.split()[3] == "0A"]
    return {address for address, _, port in (row.partition(":") for row in local) if port in ports}


def test_nothing_listens_beyond_loopback(servers):
    loopback = {"0100007F", "00000000000000000000000001000000"}

    found = listening_addresses(servers)

    assert found
    assert found <= loopback


def test_money_is_flushed_to_disk_and_pages_have_checksums(servers):
    with psycopg.connect(servers.servers.database_url) as connection:
        for name in ("fsync", "synchronous_commit", "full_page_writes", "data_checksums"):
            assert connection.execute("select current_setting(%s)", [name]).fetchone() == ("on",), name


def test_no_password_no_connection(servers):
    port = servers.servers.postgres.port

    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(f"postgresql://countinghouse_admin@127.0.0.1:{port}/postgres")


def test_guest_does_not_exist(servers):
    port = servers.servers.rabbitmq.port

    with pytest.raises(amqp.AccessRefused):
        connect(f"amqp://guest:guest@127.0.0.1:{port}/countinghouse")


def test_starting_again_leaves_the_servers_alone(servers):
    before = {name: process.pid for name, process in servers.states().items()}

    servers.start_servers()

    assert {name: process.pid for name, process in servers.states().items()} == before


def test_second_instance_runs_beside_the_first(servers, own_servers):
    ports = [set(system.home.state.get("ports").values()) for system in (servers, own_servers)]

    assert not ports[0] & ports[1]
    for system in (servers, own_servers):
        connect(system.servers.user_amqp_url("ledger")).close()
    stranger = servers.servers.user_amqp_url("ledger").rpartition(":")[0]
    with pytest.raises(amqp.AccessRefused):
        connect(f"{stranger}:{own_servers.servers.rabbitmq.port}/countinghouse")


@pytest.mark.parametrize("server", [POSTGRES, RABBITMQ])
def test_killed_server_is_started_again_by_itself(own_servers, server):
    (killed,) = own_servers.kill(server)

    assert wait_gone([killed], timeout_seconds=10)
    deadline = time.monotonic() + RESTART_SECONDS_MAX
    while own_servers.states()[server].pid in (0, killed):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    own_servers.start_servers()  # waits until both take connections again


def test_down_leaves_no_process_and_no_open_port(own_servers):
    pids = [process.pid for process in own_servers.states().values() if process.pid]
    ports = own_servers.home.state.get("ports").values()

    own_servers.down()

    assert wait_gone(pids, timeout_seconds=0)
    assert processes_of(own_servers.home) == []
    for port in ports:
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_down_ends_what_a_killed_supervisor_left_behind(own_servers):
    pids = [own_servers.states()[name].pid for name in (EPMD, POSTGRES, RABBITMQ)]
    supervisor = int((own_servers.home.run / "supervisord.pid").read_text())
    os.kill(supervisor, signal.SIGKILL)
    assert wait_gone([supervisor], timeout_seconds=10)

    own_servers.down()

    assert wait_gone(pids, timeout_seconds=0)


def test_up_after_a_killed_supervisor_starts_afresh(own_servers):
    os.kill(int((own_servers.home.run / "supervisord.pid").read_text()), signal.SIGKILL)
    time.sleep(0.2)

    own_servers.start_servers()

    with psycopg.connect(own_servers.servers.database_url) as connection:
        assert connection.execute("select 1").fetchone() == (1,)
