"""Downloads a large file over HTTP: resumable, verified, and moved to its path atomically."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cnnx.errors import RecipeError, Unreachable, WeightsError
from cnnx.limits import DOWNLOAD_BYTES, DOWNLOAD_BYTES_PER_SECOND
from cnnx.store.cache import locked
from cnnx.store.digests import digest_of_file
from cnnx.store.files import atomic_file, writing

_TIMEOUT_SECONDS = 30.0
_BLOCK_BYTES = 1 << 18
_PATIENCE_SECONDS = 120.0
_LENGTH_DIGITS = 18
_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
_NETWORK_ERRORS = (
    urllib.error.URLError,
    http.client.HTTPException,
    ConnectionError,
    TimeoutError,
    ssl.SSLError,
)


def fetch(url: str, path: Path, *, digest: str, progress: Callable[[int, int | None], None]) -> None:
    """Download `url` to `path`, unless another process did so while this one waited for the lock.

    The bytes are collected in `path`.part. If a previous run left such a file, only the rest is requested
    (RFC 9110, section 14.2), provided that the remote file has not changed (If-Range, section 13.1.5). If it
    has changed, or the server does not support ranges, the download starts again.

    Args:
        url: an https URL, or http on this machine.
        path: final path; its folder is created.
        digest: first hex digits of the file's SHA-256.
        progress: called with the bytes received and the total, None if the server does not report it.

    Raises:
        RecipeError: the URL is neither https nor local.
        Unreachable: no network, no such file, or the connection broke; the partial file is kept.
        WeightsError: the complete file has the wrong hash; the partial file is removed.
        WriteFailed: the file cannot be stored.
    """
    require_safe(url)
    part = path.with_name(path.name + ".part")
    with locked(path), writing(path):
        if path.is_file():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with _explained(url, path):
            _complete(url, part, progress)
        found = digest_of_file(part)
        if not found.startswith(digest):
            _discard(part)
            raise WeightsError(
                f"the SHA-256 of the download starts with {found[: len(digest)]}, not {digest}",
                where=url,
                hint=f"run again; if that fails, the server has another file: put the right one at {path}",
            )
        with atomic_file(path) as draft:
            part.replace(draft)
        _discard(part)


@dataclass(frozen=True, slots=True)
class _Version:
    """The remote file that a partial file belongs to; stored next to the partial file."""

    url: str
    etag: str
    total: int | None


def _complete(url: str, part: Path, progress: Callable[[int, int | None], None]) -> None:
    """Complete the partial file, and resume the download if the server supports it."""
    version, done = _left_behind(url, part)
    if done and version.total == done:
        return
    if not done or not _resume(version, part, done, progress):
        _discard(part)
        with _open(url, {}) as response:
            version = _described(url, response)
            _note(part).write_text(json.dumps(asdict(version)))
            _append(response, part, 0, version.total, progress)


def _resume(version: _Version, part: Path, done: int, progress: Callable[[int, int | None], None]) -> bool:
    """Append the missing bytes; return False if the server cannot send them or its file has changed."""
    headers = {"Range": f"bytes={done}-"}
    if version.etag.startswith('"'):  # If-Range requires a strong validator
        headers["If-Range"] = version.etag
    try:
        response = _open(version.url, headers)
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            return False
        raise
    with response:
        start = response.headers.get("Content-Range", "").startswith(f"bytes {done}-")
        if response.status != http.client.PARTIAL_CONTENT or not start:
            return False
        if _described(version.url, response) != version:
            return False
        _append(response, part, done, version.total, progress)
    return True


def _open(url: str, headers: dict[str, str]) -> Any:
    request = urllib.request.Request(url, headers={"User-Agent": "cnnx", **headers})
    return _OPENER.open(request, timeout=_TIMEOUT_SECONDS)


def _append(
    response: Any, part: Path, done: int, total: int | None, progress: Callable[[int, int | None], None]
) -> None:
    first, started = done, time.monotonic()
    with part.open("ab") as file:
        progress(done, total)
        while block := response.read1(_BLOCK_BYTES):
            file.write(block)
            done += len(block)
            progress(done, total)
            if done > DOWNLOAD_BYTES:
                raise ConnectionError(f"the server sends more than {DOWNLOAD_BYTES:,} bytes")
            waited = time.monotonic() - started
            if waited > _PATIENCE_SECONDS and done - first < waited * DOWNLOAD_BYTES_PER_SECOND:
                raise ConnectionError(f"only {done - first:,} bytes came in {waited:.0f} s")
    if total is not None and done < total:
        raise ConnectionError(f"the connection broke after {done:,} of {total:,} bytes")


def _described(url: str, response: Any) -> _Version:
    """Return the version of the complete file, from a full or a partial response."""
    if response.status == http.client.PARTIAL_CONTENT:
        length = re.sub(r".*/", "", response.headers.get("Content-Range", ""))
    else:
        length = response.headers.get("Content-Length", "")
    known = length.isascii() and length.isdigit() and len(length) <= _LENGTH_DIGITS
    return _Version(url, response.headers.get("ETag", ""), int(length) if known else None)


def _left_behind(url: str, part: Path) -> tuple[_Version, int]:
    """Return the version and size of the partial file of a previous run; 0 bytes if it cannot be used."""
    try:
        version = _Version(**json.loads(_note(part).read_text()))
        done = part.stat().st_size
    except (OSError, ValueError, TypeError):
        return _Version(url, "", None), 0
    if version.url != url or (version.total is not None and done > version.total):
        return _Version(url, "", None), 0
    return version, done


def _note(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _note(part).unlink(missing_ok=True)


def require_safe(url: str) -> None:
    """Refuse a URL that is neither https nor on this machine.

    Raises:
        RecipeError: the URL is neither https nor local.
    """
    fault = "weights are downloaded over https only"
    try:
        parts = urllib.parse.urlsplit(url)
        scheme, host, _ = parts.scheme, parts.hostname, parts.port
        (host or "").encode("idna")
        if not re.fullmatch(r"[!-~]*", url):
            raise ValueError("it has characters other than printable ASCII")
    except ValueError as error:  # UnicodeError is one
        fault, scheme, host = f"it is not a URL: {error}", "", None
    if (scheme != "https" or not host) and not (scheme == "http" and host in _LOCAL_HOSTS):
        raise RecipeError(
            f"invalid weights.url {url!r}: {fault}",
            where="weights.url",
            hint="use an https:// URL, or put the file in weights/ next to the recipe",
        )


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Applies `require_safe` to redirects."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        require_safe(newurl)
        fp.close()  # or urllib would read a body of any length into memory
        return super().redirect_request(req, fp, code, msg, headers, newurl)


_OPENER = urllib.request.build_opener(_SafeRedirects)


@contextlib.contextmanager
def _explained(url: str, path: Path) -> Iterator[None]:
    try:
        yield
    except _NETWORK_ERRORS as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        status = f"{error.code} " if isinstance(error, urllib.error.HTTPError) else ""
        raise Unreachable(
            f"cannot download {path.name}: {status}{reason}",
            where=url,
            hint=f"run again (the download resumes), put the file at {path}, or use --weights standin",
        ) from error
