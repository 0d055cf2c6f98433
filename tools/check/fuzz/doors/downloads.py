"""Downloads: the URL of a recipe, and what a server answers."""

from __future__ import annotations

import hashlib
import json
import socket
from pathlib import Path
from random import Random
from typing import Any

from tools.check.fuzz.door import Door, Files
from tools.check.fuzz.doors.recipes import text_of
from tools.check.fuzz.mutators import octets, text

_BODY = bytes(range(256)) * 8
_DIGEST = hashlib.sha256(_BODY).hexdigest()
_NAME = f"w-{_DIGEST[:8]}.pth"
_RECIPE = """name = "mine"
model = {{ definition = "lenet5", classes = 10 }}
input = {{ shape = [1, 32, 32] }}
preprocessing = {{ color = "gray", resize = 32, mean = [0.5], std = [0.5] }}
weights = {{ file = "{}", url = "{}" }}
"""
_URL = f"http://localhost:9/models/{_NAME}"
_END = b"\0END\0"


def _answer(head: str, body: bytes) -> bytes:
    return head.replace("\n", "\r\n").encode() + b"\r\n" + body


_WHOLE = _answer(f'HTTP/1.1 200 OK\nContent-Length: {len(_BODY)}\nETag: "a1"\nConnection: close\n', _BODY)
_CHUNKED = _answer("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n", b"800\r\n" + _BODY + b"\r\n0\r\n\r\n")
_MOVED = _answer("HTTP/1.1 302 Found\nLocation: /other\nContent-Length: 0\n", b"")
_REST = _answer(
    f'HTTP/1.1 206 Partial Content\nContent-Range: bytes 1000-2047/{len(_BODY)}\nETag: "a1"\n', _BODY[1000:]
)


class AnswerDoor(Door):
    """What a server answers: status, headers, body; also to a download that resumes."""

    name, reads = "download", "a server's answers: status, headers, body"

    def prepare(self) -> None:
        import torch  # noqa: F401

        import cnnx.pipeline.export.export
        import cnnx.weights.download  # noqa: F401

        # Every connection is answered by the next of the prepared answers, then refused.
        socket.create_connection = _Answers.connect  # type: ignore[assignment]

    def seeds(self, scratch: Path) -> dict[str, Files]:
        note = {"url": _URL, "etag": '"a1"', "total": len(_BODY)}
        part = {"part": _BODY[:1000], "note": json.dumps(note).encode()}
        return {
            "whole": {"answers": _WHOLE},
            "chunked": {"answers": _CHUNKED},
            "moved": {"answers": _MOVED + _END + _WHOLE},
            "resumed": {"answers": _REST + _END + _WHOLE, **part},
        }

    def mutate(self, dice: Random, files: Files) -> tuple[Files, str]:
        name = dice.choice([each for each in files if each != "part" or dice.random() < 0.3])
        content = files[name]
        assert isinstance(content, bytes)
        head, separator, rest = content.partition(b"\r\n\r\n")
        if name == "answers" and dice.random() < 0.7:
            lines = head.decode("latin-1").replace("\r\n", "\n")
            changed, how = text.edit(dice, lines)
            made = changed.replace("\n", "\r\n").encode("utf-8", "surrogatepass") + separator + rest
            return {**files, name: made}, f"headers: {how}"
        changed_bytes, how = octets.damage(dice, content)
        return {**files, name: changed_bytes}, f"{name}: {how}"

    def read(self, folder: Path) -> Any:
        """The file that a download leaves."""
        from cnnx.weights.download import fetch

        target = folder.parent / "cache" / _NAME
        target.parent.mkdir(exist_ok=True)
        for file in target.parent.iterdir():
            file.unlink()
        for name, suffix in (("part", ".part"), ("note", ".part.json")):
            if (folder / name).exists():
                target.with_name(target.name + suffix).write_bytes((folder / name).read_bytes())
        _Answers.given = (folder / "answers").read_bytes().split(_END)
        fetch(_URL, target, digest=_DIGEST[:8], progress=lambda *_: None)
        return hashlib.sha256(target.read_bytes()).hexdigest()

    def command(self, folder: Path) -> list[str]:
        _Answers.given = (folder / "answers").read_bytes().split(_END)
        (folder.parent / "r.toml").write_text(_RECIPE.format(_NAME, _URL), encoding="utf-8")
        return ["export", str(folder.parent / "r.toml"), "--out", "out"]


class UrlDoor(Door):
    """The URL and file name of a recipe's weights."""

    name, reads = "URL", "the URL of a recipe's weights"

    def prepare(self) -> None:
        import torch  # noqa: F401

        import cnnx.pipeline.export.export
        import cnnx.weights  # noqa: F401

        socket.create_connection = _Answers.connect  # type: ignore[assignment]

    def seeds(self, scratch: Path) -> dict[str, Files]:
        urls = (
            _URL,
            f"https://example.org/a/{_NAME}?x=1#y",
            f"http://127.0.0.1:8080/{_NAME}",
            f"http://[::1]/{_NAME}",
        )
        return {f"url{number}": {"url": url.encode()} for number, url in enumerate(urls)}

    def mutate(self, dice: Random, files: Files) -> tuple[Files, str]:
        changed, how = text.edit(dice, text_of(files, "url"))
        if dice.random() < 0.2:
            scheme = dice.choice(("file", "ftp", "http", "data", "HTTPS", "javascript", "https+x", ""))
            changed, how = f"{scheme}:{changed.partition(':')[2]}", "scheme"
        return {"url": changed.encode("utf-8", "surrogatepass")}, how

    def read(self, folder: Path) -> Any:
        """Whether a download from there is tried; no other machine is asked anything over http."""
        from cnnx.weights.download import require_safe

        url = (folder / "url").read_bytes().decode("utf-8", "surrogatepass")
        require_safe(url)
        return url

    def legitimate(self, before: Any, after: Any, folder: Path) -> str:
        from urllib.parse import urlsplit

        parts = urlsplit(after)
        local = parts.scheme == "http" and parts.hostname in ("localhost", "127.0.0.1", "::1")
        return "another URL that is safe" if local or (parts.scheme == "https" and parts.hostname) else ""

    def command(self, folder: Path) -> list[str]:
        _Answers.given = []
        url = (
            (folder / "url").read_bytes().decode("utf-8", "replace").replace("\\", "\\\\").replace('"', '\\"')
        )
        recipe = _RECIPE.format(_NAME, url).encode("utf-8", "replace")
        (folder.parent / "r.toml").write_bytes(recipe)
        return ["export", str(folder.parent / "r.toml"), "--out", "out"]


class _Answers:
    """A server without a network: each connection is answered by the next of the given bytes."""

    given: list[bytes]

    @classmethod
    def connect(cls, *_: Any, **__: Any) -> socket.socket:
        if not cls.given:
            raise ConnectionRefusedError(111, "Connection refused")
        with socket.create_server(("127.0.0.1", 0)) as server:
            ours = socket.socket()
            ours.settimeout(5)
            ours.connect(server.getsockname())
            theirs, _ = server.accept()
        theirs.sendall(cls.given.pop(0))  # the socket's buffer holds them all
        theirs.shutdown(socket.SHUT_WR)
        cls.open = theirs
        return ours

    open: socket.socket


DOORS = (AnswerDoor(), UrlDoor())
