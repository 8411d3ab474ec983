"""What does the host tell a web client while it works? A websocket of the standard library.

Only what is needed to listen: the handshake, text and binary messages from the server, pings.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import struct
from typing import Any

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


class Events:
    """The messages that the host sends to the client called `client_id`."""

    def __init__(self, port: int, client_id: str, timeout_seconds: float) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=timeout_seconds)
        self._file = self._socket.makefile("rb")
        key = base64.b64encode(os.urandom(16)).decode()
        self._socket.sendall(
            f"GET /ws?clientId={client_id} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        status = self._file.readline()
        if b" 101 " not in status:
            raise ConnectionError(f"the host refused a websocket: {status!r}")
        while self._file.readline().strip():
            pass

    def close(self) -> None:
        """Hang up."""
        self._file.close()
        self._socket.close()

    def next(self) -> dict[str, Any] | bytes:
        """The next message: an event with `type` and `data`, or the bytes of a preview."""
        while True:
            kind, payload = self._message()
            if kind == TEXT:
                return json.loads(payload)
            if kind == BINARY:
                return payload
            if kind == CLOSE:
                raise ConnectionError("the host hung up")
            if kind == PING:
                self._pong(payload)

    def _message(self) -> tuple[int, bytes]:
        kind, parts, last = 0, [], False
        while not last:
            first, second = self._file.read(2)
            last, opcode, length = bool(first & 0x80), first & 0x0F, second & 0x7F
            if length >= 126:
                code = ">H" if length == 126 else ">Q"
                (length,) = struct.unpack(code, self._file.read(struct.calcsize(code)))
            parts.append(self._file.read(length))
            kind = opcode or kind
        return kind, b"".join(parts)

    def _pong(self, payload: bytes) -> None:
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
        self._socket.sendall(bytes([0x80 | PONG, 0x80 | len(payload)]) + mask + masked)
