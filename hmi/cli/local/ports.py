"""TCP ports for services on this machine."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Sequence

from hmi.errors import Conflict, InvalidInput


def choose_ports(host: str, requested: Sequence[tuple[str, int]]) -> list[int]:
    """Choose a port for each pair of purpose and port; port 0 takes any free one.

    Raises `Conflict` naming a port that is taken, `InvalidInput` for a host that is not this machine.
    """
    with contextlib.ExitStack() as sockets:  # open until the last port is chosen, so that no two are the same
        return [_bind(sockets, host, purpose, port) for purpose, port in requested]


def is_free(host: str, port: int) -> bool:
    try:
        choose_ports(host, [("", port)])
    except Conflict:
        return False
    return True


def _bind(sockets: contextlib.ExitStack, host: str, purpose: str, port: int) -> int:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = sockets.enter_context(socket.socket(family, kind, protocol))
        if port:  # as servers do: a port that was just closed is free
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1)  # else two sockets with this option can have the same port
    except (OSError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise Conflict(f"port {port} on {host} is in use; choose another for {purpose}") from error
        raise InvalidInput(f"cannot listen on {host} port {port} for {purpose}: {error}") from error
    return int(listener.getsockname()[1])
