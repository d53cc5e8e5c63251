"""The clips that requests to a server name: data URLs, public URLs, and files of one folder if that is allowed."""

import base64
import ipaddress
import socket
import time
from collections.abc import Sequence
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse
from urllib.request import (
    AbstractHTTPHandler,
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPRedirectHandler,
    OpenerDirector,
    Request,
    url2pathname,
)

from ..processing.decoding.container import NETWORK_TIMEOUT, MediaError

# The seconds that a whole download may take.
DOWNLOAD_TIMEOUT = 300.0


class ClipTooLarge(MediaError):
    """Says that a clip is larger than a server accepts."""


class ClipFetcher:
    """Fetches the clips that requests name, from nowhere else than the person who runs the server allows.

    Args:
        local_media (`Path`, *optional*):
            The folder whose files requests may name, by `file:` URLs or by paths. By default no file can be named.
        private_hosts (`Sequence[str]`, *optional*):
            The names of hosts from which clips are fetched although their address is not a public one.
        max_bytes (`int`, *optional*, defaults to 268435456): The largest size of a clip, 256 MiB.
    """

    def __init__(
        self, local_media: Path | None = None, private_hosts: Sequence[str] = (), max_bytes: int = 256 << 20
    ) -> None:
        self.local_media = None if local_media is None else local_media.resolve()
        self.max_bytes = max_bytes
        self._opener = OpenerDirector()
        for handler in (HTTPDefaultErrorHandler(), HTTPRedirectHandler(), HTTPErrorProcessor()):
            self._opener.add_handler(handler)
        self._opener.add_handler(_PublicHandler(frozenset(host.lower() for host in private_hosts)))

    def __call__(self, url: str) -> bytes | BytesIO | Path:
        """Fetches a clip.

        Args:
            url (`str`): A `data:` URL in base64, an `http:` or `https:` URL, a `file:` URL or a path.

        Returns:
            `bytes`, `BytesIO` or `Path`: The clip, as [`MicroEmoProcessor`] takes it.

        Raises:
            ClipTooLarge: If the clip is too large.
            MediaError: If the URL cannot be read, or names what requests may not name.
        """
        if not isinstance(url, str) or not url:
            raise MediaError(f"the URL of a clip is a text, got {url!r}")
        scheme = url.partition(":")[0].lower()
        if scheme == "data":
            return self._decode(url)
        if scheme in ("http", "https"):
            return self._download(url)
        return self._find_file(url)

    def _decode(self, url: str) -> bytes:
        header, comma, content = url.partition(",")
        if not comma or not header.lower().endswith(";base64"):
            raise MediaError(f"expected a data URL with base64, data:video/mp4;base64,..., got {header[:100]!r}")
        try:
            content = content if "%" not in content else unquote(content)
            return self._checked(base64.b64decode("".join(content.split()), validate=True))
        except ValueError as error:
            if isinstance(error, MediaError):
                raise
            raise MediaError(f"the data URL {header[:100]},... is not base64: {error}") from None

    def _checked(self, clip: bytes) -> bytes:
        if len(clip) > self.max_bytes:
            raise ClipTooLarge(f"a clip has at most {self.max_bytes >> 20} MiB, got {len(clip) >> 20} MiB")
        return clip

    def _download(self, url: str) -> BytesIO:
        content, deadline = BytesIO(), time.monotonic() + DOWNLOAD_TIMEOUT
        try:
            with self._opener.open(Request(url), timeout=NETWORK_TIMEOUT[0]) as response:
                while chunk := response.read1(1 << 20):
                    content.write(chunk)
                    if content.tell() > self.max_bytes:
                        raise ClipTooLarge(f"{url} has more than {self.max_bytes >> 20} MiB, the most that a clip has")
                    if time.monotonic() > deadline:
                        raise MediaError(f"{url} was not sent within {DOWNLOAD_TIMEOUT:.0f} s")
        except MediaError:
            raise
        except (OSError, HTTPException, ValueError) as error:
            raise MediaError(f"{url} cannot be fetched: {error}") from error
        content.seek(0)
        content.name = url  # for messages
        return content

    def _find_file(self, url: str) -> Path:
        if self.local_media is None:
            raise MediaError("this server reads clips from data: URLs and http: URLs, and no files")
        parts = urlparse(url)
        if parts.scheme not in ("", "file") or parts.netloc not in ("", "localhost"):
            raise MediaError(f"expected a data:, http:, https: or file: URL, got {url[:100]!r}")
        try:
            # A path without a scheme is taken as it is: `#`, `?` and `%` are letters of it.
            path = (self.local_media / (url2pathname(parts.path) if parts.scheme else url)).resolve()
            is_file = path.is_relative_to(self.local_media) and path.is_file()
        except (OSError, ValueError):  # too long, or with a zero byte
            is_file = False
        if not is_file:  # said the same way of files outside, so that nobody learns which ones are there
            raise MediaError(f"{url[:1000]} is no file in the folder that this server reads clips from")
        if path.stat().st_size > self.max_bytes:
            raise ClipTooLarge(f"{url} has more than {self.max_bytes >> 20} MiB, the most that a clip has")
        return path


class _PublicHandler(AbstractHTTPHandler):
    """Opens URLs, and those that they lead to, without proxies and only where [`_connect`] does."""

    def __init__(self, private_hosts: frozenset[str]) -> None:
        super().__init__()
        self._private_hosts = private_hosts

    def http_open(self, request: Request) -> Any:
        return self.do_open(partial(_Connection, private_hosts=self._private_hosts), request)

    def https_open(self, request: Request) -> Any:
        return self.do_open(partial(_SecureConnection, private_hosts=self._private_hosts), request)

    http_request = https_request = AbstractHTTPHandler.do_request_


class _Connection(HTTPConnection):
    def __init__(self, *args: Any, private_hosts: frozenset[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._private_hosts = private_hosts

    def connect(self) -> None:
        self.sock = _connect(self.host, self.port, self.host.lower() in self._private_hosts)


class _SecureConnection(HTTPSConnection, _Connection):
    """Speaks TLS over the connection of [`_Connection`], which stands next to `HTTPSConnection` in the order of bases."""


def _connect(host: str, port: int, is_allowed: bool) -> socket.socket:
    """Connects to a host at the very address that was checked: a name may have another address when it is asked again."""
    failure: Exception = OSError(f"{host} has no address")
    for family, kind, protocol, _, place in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        if not (is_allowed or _is_public(str(place[0]))):
            raise MediaError(f"{host} is not in the public network, and this server fetches no clips from there")
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(NETWORK_TIMEOUT[0])
            connection.connect(place)
            connection.settimeout(NETWORK_TIMEOUT[1])
            return connection
        except OSError as error:
            connection.close()
            failure = error
    raise failure


def _is_public(address: str) -> bool:
    found = ipaddress.ip_address(address.partition("%")[0])
    found = getattr(found, "ipv4_mapped", None) or found
    return found.is_global and not found.is_multicast
