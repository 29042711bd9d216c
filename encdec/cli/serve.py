"""`encdec serve`: serves a page to translate in."""

import asyncio
import ipaddress
import logging
import os
import socket
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import OmitArgPrefixes, Positional, arg

from encdec.cli.languages import LanguageOptions
from encdec.cli.parsing import parse_for_run
from encdec.cli.shortlist import ShortlistOptions
from encdec.config import InferenceDeviceConfig
from encdec.config.search import SearchOptions
from encdec.files import cache_folder
from encdec.serving.limits import Limits
from encdec.types import InputError

_SHUTDOWN_SECONDS = 30
"""From SIGTERM or the first Ctrl+C to the end of requests that are still at work."""


@dataclass(frozen=True)
class _Options:
    run: Annotated[Positional[Path], arg(metavar="RUN", help="Run folder.")]
    host: Annotated[
        str,
        arg(
            help="Address to listen on. Only this machine can reach the default address; other "
            "machines can reach any other address."
        ),
    ] = "127.0.0.1"
    port: Annotated[int, arg(help="Port to listen on; 0 takes any free port.")] = 8000
    allow_host: Annotated[
        tuple[str, ...],
        arg(
            help="Host names that requests may use for this server besides its address and "
            "localhost, such as that of a reverse proxy; '*' allows any."
        ),
    ] = ()
    log_requests: Annotated[
        bool,
        arg(help="Write a line on stderr for each request: time, client, path, status, seconds."),
    ] = False
    limits: Annotated[Limits, OmitArgPrefixes] = field(default_factory=Limits)
    languages: Annotated[LanguageOptions, OmitArgPrefixes] = field(default_factory=LanguageOptions)
    search: Annotated[SearchOptions, OmitArgPrefixes] = field(default_factory=SearchOptions)
    shortlist: Annotated[ShortlistOptions, OmitArgPrefixes] = field(
        default_factory=ShortlistOptions
    )
    devices: Annotated[InferenceDeviceConfig, OmitArgPrefixes] = field(
        default_factory=InferenceDeviceConfig
    )


def run(arguments: list[str]) -> None:
    """Serves the page until it is interrupted.

    Raises:
      InputError: the run cannot be opened, a library is missing, or the address cannot be used.
    """
    options = parse_for_run(_Options, arguments, "encdec serve", "Serves a page to translate in.")
    try:
        import uvicorn

        from encdec.serving import app
    except ImportError as error:
        raise InputError(
            f'{error.name} is not installed: pip install "encdec[serve]" (".[serve]" in a clone)'
        ) from error
    from encdec.inference import translator as translators
    from encdec.parallel.devices import keep_compiled_programs

    keep_compiled_programs(cache_folder())
    translator = options.languages.of(translators.load_on(options.devices, options.run))
    translator = options.shortlist.of(translator)
    with _listen(options.host, options.port) as listener:
        host, port = listener.getsockname()[:2]
        search = app.served_search(options.search, options.limits)
        if search != options.search:
            changed = [
                f"{name} = {getattr(search, name)}"
                for name in ("beam", "mbr")
                if getattr(search, name) != getattr(options.search, name)
            ]
            print(
                f"encdec: {' and '.join(changed)}, because requests have at most "
                f"{options.limits.most_beam}: --most-beam allows more",
                file=sys.stderr,
            )
        # A first translation compiles the search, so that no request waits for the compilation.
        translator(app.example(translator, options.limits), search)
        loopback = ipaddress.ip_address(host).is_loopback
        hosts = [host, options.host, "localhost", *options.allow_host] if loopback else ["*"]
        page = app.application(
            translator, options.limits, hosts, search, _log if options.log_requests else None
        )
        shown = f"[{host}]" if ":" in host else host
        print(f"{options.run} at http://{shown}:{port} (Ctrl+C ends)", flush=True)
        settings = uvicorn.Config(
            page,
            log_level="warning",
            lifespan="off",
            server_header=False,
            timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        )
        logging.getLogger("uvicorn.error").addFilter(_is_news)
        uvicorn.Server(settings).run([listener])


def _log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a line of the server is more than that the end has cut off a request."""
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))


def _listen(host: str, port: int) -> socket.socket:
    """Opens a socket that listens on an address, before the server is built."""
    if not 0 <= port <= 65535:
        raise InputError(f"port = {port} cannot be used: it must be from 0 to 65535")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except (OSError, UnicodeError) as error:
        number = getattr(error, "errno", None) or 0
        reason = os.strerror(number) if number > 0 else getattr(error, "strerror", None) or error
        raise InputError(
            f"{host}:{port} cannot be listened on ({reason}): name another by --host or --port"
        ) from error
