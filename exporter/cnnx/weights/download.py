"""One large file over HTTP: continued where it was left, checked, then moved into place whole."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cnnx.errors import RecipeError, Unreachable, WeightsError
from cnnx.store.cache import locked
from cnnx.store.digests import digest_of_file
from cnnx.store.files import atomic_file, writing

_TIMEOUT_SECONDS = 30.0
_BLOCK_BYTES = 1 << 18
_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
_NETWORK_ERRORS = (
    urllib.error.URLError,
    http.client.HTTPException,
    ConnectionError,
    TimeoutError,
    ssl.SSLError,
)


def fetch(url: str, place: Path, *, digest: str, progress: Callable[[int, int | None], None]) -> None:
    """Download `url` to `place`, unless another process has done so while this one waited for the lock.

    Bytes gather in `place`.part. If an earlier run left one, only the rest is asked for (RFC 9110, section
    14.2), on condition that the file is still the same (If-Range, section 13.1.5). A server that knows no
    ranges, or whose file has changed, sends all of it, and the download starts again.

    Args:
        url: https, or http on this machine.
        place: the final path; its folder is made.
        digest: first hex digits of the file's SHA-256.
        progress: called with bytes so far and bytes in all, None where the server does not say.

    Raises:
        RecipeError: neither https nor local.
        Unreachable: no network, no such file, or the connection broke; the part is kept.
        WeightsError: the file came whole and has another hash; the part is removed.
        WriteFailed: it cannot be stored.
    """
    require_safe(url)
    part = place.with_name(place.name + ".part")
    with locked(place), writing(place):
        if place.is_file():
            return
        place.parent.mkdir(parents=True, exist_ok=True)
        with _explained(url, place):
            _complete(url, part, progress)
        found = digest_of_file(part)
        if not found.startswith(digest):
            _discard(part)
            raise WeightsError(
                f"what was downloaded has a SHA-256 that starts with {found[: len(digest)]}, not {digest}",
                where=url,
                mend=f"run again; if it stays so, the server has another file: put the right one at {place}",
            )
        with atomic_file(place) as draft:
            part.replace(draft)
        _discard(part)


@dataclass(frozen=True, slots=True)
class _Version:
    """Which file a part belongs to, as the server described it; kept beside the part."""

    url: str
    etag: str
    total: int | None


def _complete(url: str, part: Path, progress: Callable[[int, int | None], None]) -> None:
    """Bring the part to its full length, asking only for what it lacks where the server can do that."""
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
    """Append what the part lacks; False where the server cannot send that, or has another file now."""
    headers = {"Range": f"bytes={done}-"}
    if version.etag.startswith('"'):  # only a strong validator may stand in If-Range
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
    with part.open("ab") as file:
        progress(done, total)
        while block := response.read(_BLOCK_BYTES):
            file.write(block)
            done += len(block)
            progress(done, total)
    if total is not None and done < total:
        raise ConnectionError(f"the connection broke after {done:,} of {total:,} bytes")


def _described(url: str, response: Any) -> _Version:
    """The whole file's description from a full or a partial answer."""
    if response.status == http.client.PARTIAL_CONTENT:
        length = re.sub(r".*/", "", response.headers.get("Content-Range", ""))
    else:
        length = response.headers.get("Content-Length", "")
    return _Version(url, response.headers.get("ETag", ""), int(length) if length.isdigit() else None)


def _left_behind(url: str, part: Path) -> tuple[_Version, int]:
    """What an earlier run left of this URL's file, and how many bytes; nothing when it cannot be trusted."""
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
    """Refuse an address that weights are not downloaded from.

    Raises:
        RecipeError: neither https nor local.
    """
    scheme, host = urllib.parse.urlsplit(url).scheme, urllib.parse.urlsplit(url).hostname
    if scheme != "https" and not (scheme == "http" and host in _LOCAL_HOSTS):
        raise RecipeError(
            f"weights are downloaded over https, not from {url}", where="weights.url", mend="https://"
        )


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Holds redirects to the rule that the first address is held to."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        require_safe(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


_OPENER = urllib.request.build_opener(_SafeRedirects)


@contextlib.contextmanager
def _explained(url: str, place: Path) -> Iterator[None]:
    try:
        yield
    except _NETWORK_ERRORS as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        status = f"{error.code} " if isinstance(error, urllib.error.HTTPError) else ""
        raise Unreachable(
            f"cannot download {place.name}: {status}{reason}",
            where=url,
            mend=f"run again (it continues where it stopped), or put the file at {place}, or take "
            "--weights standin",
        ) from error
