"""Guards around the application: which host names it answers for, and a line for each request."""

import re
import time
from collections.abc import Callable
from datetime import datetime

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from encdec.serving.answers import JSONAnswer

_ADDRESS = re.compile(r"[\w.:%-]{1,64}", re.ASCII)
"""Of a client, or its name; nothing that could pass for another part of a line."""


class Hosts:
    """Refuses requests that use a host name which is not allowed for this server.

    Args:
      app: the application.
      allowed: the names; `*` allows any.
      headers: of a refusal.
    """

    def __init__(self, app: ASGIApp, allowed: list[str], headers: dict[str, str]) -> None:
        self._app, self._headers = app, headers
        self._allowed = {name.lower() for name in allowed}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        name = host_name(Headers(scope=scope).get("host", ""))
        if "*" in self._allowed or name in self._allowed:
            await self._app(scope, receive, send)
            return
        error = (
            f"this server does not answer for the host {name!r}: to allow it, start encdec serve "
            f"with --allow-host {name or 'NAME'}"
        )
        refusal = JSONAnswer({"error": error}, 400, headers=self._headers)
        await refusal(scope, receive, send)


def host_name(header: str) -> str:
    """The name or address in a Host header, in lower case, without its port."""
    if header.startswith("["):  # an IPv6 address
        return header[1:].split("]")[0].lower()
    return header.split(":")[0].lower()


class RequestLog:
    """Says a line for each request: when, from where, what, status, seconds; never its text.

    Args:
      app: the application.
      say: what gets the lines.
    """

    def __init__(self, app: ASGIApp, say: Callable[[str], None]) -> None:
        self._app, self._say = app, say

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.monotonic(), 0

        async def sending(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._app(scope, receive, sending)
        finally:
            now = datetime.now().astimezone().isoformat(timespec="seconds")
            client = (scope.get("client") or ("-",))[0]
            if not _ADDRESS.fullmatch(client):  # a proxy, or who plays one, has written it
                client = ascii(client[:64])
            seconds = time.monotonic() - start
            path = ascii(scope["path"])[1:-1]  # without control characters
            self._say(f"{now} {client} {scope['method']} {path} {status or '-'} {seconds:.3f}")
