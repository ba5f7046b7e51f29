"""How the coordinator, its workers and the referee speak: one JSON line a letter, over private sockets.

A letter carries the serial number of the question that it asks or answers, which its asker draws at random: a line
that nobody asked for answers nothing. Descriptors travel with a letter, towards workers and the referee alone.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec

# No letter comes near this; a longer line is noise.
_MOST_BYTES = 64 << 20
_CHUNK_BYTES = 1 << 16
_MOST_DESCRIPTORS = 4
# Whoever leaves a letter lying for longer is gone.
_SEND_SECONDS = 30.0


class Closed(Exception):
    """The other side is gone."""


class Garbled(Exception):
    """The other side sent what is no letter."""


class Letter(NamedTuple):
    """One message, the serial number it goes by, and the descriptors that came with it."""

    serial: int
    message: Any
    descriptors: list[int]


class Channel:
    """One side of a socket: whole letters in, whole letters out."""

    def __init__(self, end: socket.socket, accepts: object, takes_descriptors: bool = False) -> None:
        """``accepts``: the union of messages that may come in; ``takes_descriptors`` with them, too."""
        self._end = end
        self._end.settimeout(_SEND_SECONDS)
        self._buffer = b""
        self._descriptors: list[int] = []
        self._takes_descriptors = takes_descriptors
        self._decoder: msgspec.json.Decoder[tuple[int, Any]] = msgspec.json.Decoder(tuple[int, accepts])  # type: ignore[valid-type]

    def fileno(self) -> int:
        """The socket's descriptor, or -1 once it is closed."""
        return self._end.fileno()

    def send(self, serial: int, message: Any, descriptors: Sequence[int] = ()) -> None:
        """Write one letter; raises Closed where nobody reads."""
        line = memoryview(msgspec.json.encode((serial, message)) + b"\n")
        try:
            if descriptors:
                line = line[socket.send_fds(self._end, [line], list(descriptors)) :]
            self._end.sendall(line)
        except OSError as error:
            raise Closed(str(error)) from error

    def receive(self, timeout_seconds: float | None = None) -> Letter | None:
        """The next letter, or None after ``timeout_seconds``; blocks without spinning.

        Raises Closed at the end, and Garbled at a line that is no letter.
        """
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while b"\n" not in self._buffer:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not select.select([self._end], [], [], left)[0]:
                return None
            self._take_chunk()
        line, _, self._buffer = self._buffer.partition(b"\n")
        descriptors, self._descriptors = self._descriptors, []
        try:
            serial, message = self._decoder.decode(line)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            for descriptor in descriptors:
                os.close(descriptor)
            raise Garbled(str(error)) from error
        return Letter(serial, message, descriptors)

    def close(self) -> None:
        """Close the socket; closing twice is harmless."""
        # The other end may be gone already; this one is closed all the same.
        with suppress(OSError):
            self._end.close()

    def _take_chunk(self) -> None:
        try:
            if self._takes_descriptors:
                chunk, descriptors, _, _ = socket.recv_fds(self._end, _CHUNK_BYTES, _MOST_DESCRIPTORS)
                self._descriptors += descriptors
            else:
                # The kernel closes descriptors that come with it.
                chunk = self._end.recv(_CHUNK_BYTES)
        except OSError as error:
            raise Closed(str(error)) from error
        if not chunk:
            raise Closed("end of stream")
        self._buffer += chunk
        if len(self._buffer) > _MOST_BYTES:
            raise Garbled(f"a line of more than {_MOST_BYTES >> 20} MiB")


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
