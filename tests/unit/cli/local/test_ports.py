from __future__ import annotations

import socket

import pytest

from hmi.cli.local import is_free
from hmi.cli.local.ports import choose_ports
from hmi.errors import Conflict, InvalidInput


def test_ports_differ_when_any_free_ones_are_asked_for() -> None:
    ports = choose_ports("127.0.0.1", [("the API", 0), ("Flower", 0)])
    assert len(set(ports)) == 2
    assert all(is_free("127.0.0.1", port) for port in ports)


def test_port_is_named_when_it_is_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert not is_free("127.0.0.1", port)
        with pytest.raises(Conflict, match=rf"port {port} on 127\.0\.0\.1 is in use; choose another for Flower"):
            choose_ports("127.0.0.1", [("the API", 0), ("Flower", port)])


def test_port_is_named_when_two_services_are_given_the_same() -> None:
    (port,) = choose_ports("127.0.0.1", [("the API", 0)])
    with pytest.raises(Conflict, match=str(port)):
        choose_ports("127.0.0.1", [("the API", port), ("Flower", port)])


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host"])
def test_host_is_refused_when_it_is_not_this_machine(host: str) -> None:
    with pytest.raises(InvalidInput, match="the API"):
        choose_ports(host, [("the API", 0)])
