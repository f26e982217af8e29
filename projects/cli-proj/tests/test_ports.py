"""Ports are checked before anything starts."""

import socket

import pytest

from cli_proj.failure import CommandFailed
from cli_proj.supervise.ports import WantedPort, check_ports, free_port


def test_a_taken_port_is_a_conflict_that_names_the_option():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CommandFailed, match=f"port {port} is taken") as raised:
            check_ports([WantedPort("--app-port", "127.0.0.1", port)])
    assert raised.value.code == 5
    assert "--app-port" in raised.value.hint


def test_one_port_cannot_serve_two_services():
    port = free_port()
    with pytest.raises(CommandFailed, match="--gui-port and --app-port must differ"):
        check_ports([WantedPort("--gui-port", "127.0.0.1", port), WantedPort("--app-port", "127.0.0.1", port)])


def test_an_address_of_another_machine_is_refused():
    with pytest.raises(CommandFailed, match="cannot listen on"):
        check_ports([WantedPort("--app-port", "192.0.2.1", free_port())])


def test_free_ports_pass():
    check_ports([WantedPort("--gui-port", "127.0.0.1", free_port())])
