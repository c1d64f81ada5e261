"""TCP ports for services on this machine."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Sequence

from hmi.errors import Conflict, InvalidInput

__all__ = ["choose_ports", "is_free"]


def choose_ports(host: str, wanted: Sequence[tuple[str, int]]) -> list[int]:
    """One port for each (what it is for, port or 0 for any free one).

    Raises `Conflict` naming a port that is taken, `InvalidInput` for a host that is not this machine's.
    """
    with contextlib.ExitStack() as held:  # all are held until the last is chosen, so that no two are the same
        return [_bind(held, host, purpose, port) for purpose, port in wanted]


def is_free(host: str, port: int) -> bool:
    try:
        choose_ports(host, [("", port)])
    except Conflict:
        return False
    return True


def _bind(held: contextlib.ExitStack, host: str, purpose: str, port: int) -> int:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = held.enter_context(socket.socket(family, kind, protocol))
        if port:  # as servers do: a port that was just given up is free
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1)  # else two sockets that may reuse it can both have a port
    except (OSError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise Conflict(f"port {port} on {host} is in use; choose another for {purpose}") from error
        raise InvalidInput(f"cannot listen on {host} port {port} for {purpose}: {error}") from error
    return int(listener.getsockname()[1])
