"""Asking a running service what it knows, as an observer of its session."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from detray import __version__
from detray.core.effects import ClientMessage, ReportStatus, Welcome
from detray.core.resources import UNIT
from detray.core.stimuli import StatusRequested
from detray.ids import ClientID
from detray.runtime.frames import FrameError, FrameReader, frame

TIMEOUT_S = 3.0
_AMOUNTS = ("demand", "total", "available")


class NoAnswer(Exception):
    """The session is there, and its service does not answer: why."""


class Observer:
    """A connection to a service that may ask for status and nothing else."""

    def __init__(self, socket_path: str) -> None:
        """Raises NoAnswer."""
        self._reader = FrameReader()
        self._decoder = msgspec.msgpack.Decoder(list[ClientMessage])
        self._waiting: list[ClientMessage] = []
        self._until = time.monotonic() + TIMEOUT_S
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(TIMEOUT_S)
            self._socket.connect(socket_path)
            self._send([["hello", "observer", os.getpid(), "", "detray status", __version__]])
            # The service numbers its clients; its welcome is how one learns the own number.
            self._client: ClientID = self._receive(Welcome).client
        except OSError as error:
            self._socket.close()
            raise NoAnswer(f"cannot connect to {socket_path}: {error}") from None
        except NoAnswer:
            self._socket.close()
            raise

    def close(self) -> None:
        """Leave."""
        self._socket.close()

    def ask(self, topic: str, limit: int = 1000) -> Any:  # Any: what the service tells
        """Plain dicts and lists about a topic (`StatusRequested`). Raises NoAnswer."""
        self._until = time.monotonic() + TIMEOUT_S
        try:
            self._send([StatusRequested(self._client, 1, topic, limit)])
            report = self._receive(ReportStatus)
            return msgspec.msgpack.decode(report.body)
        except (OSError, msgspec.MsgspecError) as error:
            raise NoAnswer(str(error)) from None

    def _send(self, messages: list[Any]) -> None:  # Any: whatever msgpack takes
        self._socket.sendall(frame(msgspec.msgpack.encode(messages)))

    def _receive(self, kind: type[Any]) -> Any:  # Any: a message of that kind
        """The next message of a kind; others are passed over."""
        while True:
            for index, message in enumerate(self._waiting):
                if isinstance(message, kind):
                    del self._waiting[: index + 1]
                    return message
            self._read()

    def _read(self) -> None:
        left = self._until - time.monotonic()
        if left <= 0:
            raise NoAnswer(f"no answer within {TIMEOUT_S:g} s")
        self._socket.settimeout(left)
        try:
            if not self._reader.receive(self._socket):
                raise NoAnswer("the service closed the connection (another version of detray?)")
            while (parts := self._reader.next()) is not None:
                self._waiting += self._decoder.decode(parts[0])
        except TimeoutError:
            raise NoAnswer(f"no answer within {TIMEOUT_S:g} s") from None
        except (FrameError, msgspec.MsgspecError) as error:
            raise NoAnswer(f"the service speaks another language: {error}") from None


def with_amounts(row: Mapping[str, Any]) -> dict[str, Any]:  # Any: plain data, both
    """The row with amounts of resources as users give them, not in ten-thousandths."""
    return {
        name: {each: amount / UNIT for each, amount in value.items()}
        if name in _AMOUNTS and isinstance(value, Mapping)
        else value
        for name, value in row.items()
    }
