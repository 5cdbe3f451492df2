"""A socket where two processes wait for each other. The process that started them passes a line on to both when both
have sent one, and closes the socket of one process after the end of the other."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TextIO

from suites.serving.process_runner import POLL_S, short_path

OTHER_ENDED = "the other client has ended"

READY = "ready\n"


@contextmanager
def meeting_socket() -> Iterator[tuple[str, socket.socket]]:
    """Yield the path of a new socket, and the socket that listens there."""
    with TemporaryDirectory(prefix="clients_") as folder, socket.socket(socket.AF_UNIX) as listener:
        path = str(Path(folder) / "meeting")
        with short_path(path) as address:
            listener.bind(address)
        listener.listen()
        listener.settimeout(POLL_S)
        yield path, listener


def pass_on(listener: socket.socket, count: int, ended: Callable[[], bool]) -> None:
    """Let `count` processes wait for each other, until one of them ends.

    Args:
        ended: whether one of them has ended. No more connections are expected then.
    """
    with ExitStack() as stack, suppress(OSError):
        clients = list[TextIO]()
        while len(clients) < count:
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                if ended():
                    return
                continue
            connection.settimeout(None)
            stack.enter_context(connection)
            clients.append(stack.enter_context(connection.makefile("rw", encoding="utf-8")))
        while all(client.readline() for client in clients):
            for client in clients:
                client.write(READY)
                client.flush()


@contextmanager
def others_at(path: str) -> Iterator[Callable[[], None]]:
    """Connect to the socket at `path`. Yield a function that waits until the other process calls it too.

    Raises:
        RuntimeError: the other process has ended; the function raises it.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            with short_path(path) as address:
                connection.connect(address)
        except OSError:
            raise RuntimeError(OTHER_ENDED) from None
        with connection.makefile("rw", encoding="utf-8") as lines:

            def arrive() -> None:
                try:
                    lines.write(READY)
                    lines.flush()
                    answer = lines.readline()
                except OSError:
                    answer = ""
                if not answer:
                    raise RuntimeError(OTHER_ENDED)

            yield arrive
