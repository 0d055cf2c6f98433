"""A set of pictures made ready: decoded once, resized, cropped, kept as 8-bit pixels.

Like torchvision's ImageFolder this applies no EXIF orientation: the training pictures of the published
networks were not turned, and neither are a camera's frames.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from cnnx.data.geometry import crop
from cnnx.data.images import ImageItem, ImageSet, name_bytes, printable
from cnnx.data.parallel import in_order
from cnnx.errors import ImageError
from cnnx.recipe import Preprocessing
from cnnx.store.digests import digest_of_file
from cnnx.store.files import writing

PIXELS, FACTS = "crops.npy", "crops.json"
SCHEMA = 3
MAX_SKIPPED_SHARE = 0.1

_ALWAYS_FORGIVEN = 2  # so that one bad file among a few does not stop a first try
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Skipped:
    """A picture that could not be used, and why."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Crops:
    """Pictures ready for normalisation, in the order of their set.

    Attributes:
        folder: where they lie.
        pixels: (N, height, width, channels), read-only, mapped from disk.
        ids: name of each picture in its set.
        digests: SHA-256 of each picture's source.
        labels: (N,) class indices; None when any picture has none.
        skipped: pictures that were tried and could not be used.
        excluded: how many were left out because another set holds them.
        list_digest: SHA-256 of the lines "digest  id label" (no label: "digest  id", as sha256sum prints).
        pixels_digest: SHA-256 of the file of pixels; of some of a set's pictures, that of the whole.
        name: the set's name.
        source: who made the pictures and under which terms.
        class_names: the name of each label, where known.
        synthetic: whether a program made the pictures to stand in for photographs.
        note: what their user should be told of the set.
    """

    folder: Path
    pixels: NDArray[np.uint8]
    ids: tuple[str, ...]
    digests: tuple[str, ...]
    labels: NDArray[np.int64] | None
    skipped: tuple[Skipped, ...]
    excluded: int
    list_digest: str
    pixels_digest: str
    name: str
    source: str
    class_names: tuple[str, ...] | None
    synthetic: bool
    note: str

    @classmethod
    def open(cls, folder: Path) -> Crops:
        """What `write_crops` left in this folder.

        Raises:
            ImageError: the folder holds no crops, or damaged ones.
        """
        try:
            facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
            pixels = np.load(folder / PIXELS, mmap_mode="r", allow_pickle=False)
            return cls._from_facts(folder, pixels, facts)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ImageError(
                f"this is no set of crops: {error}", where=folder, mend="remove the folder and run again"
            ) from error

    @classmethod
    def _from_facts(cls, folder: Path, pixels: NDArray[np.uint8], facts: dict[str, Any]) -> Crops:
        labels, names = facts["labels"], facts["class_names"]
        if facts["schema"] != SCHEMA or len(pixels) != len(facts["ids"]):
            raise ValueError(f"schema {facts['schema']}, {len(pixels)} pictures, {len(facts['ids'])} names")
        return cls(
            folder=folder,
            pixels=pixels,
            ids=tuple(facts["ids"]),
            digests=tuple(facts["digests"]),
            labels=None if None in labels else np.array(labels, np.int64),
            skipped=tuple(Skipped(**each) for each in facts["skipped"]),
            excluded=facts["excluded"],
            list_digest=facts["list_digest"],
            pixels_digest=facts["pixels_digest"],
            name=facts["name"],
            source=facts["source"],
            class_names=None if names is None else tuple(names),
            synthetic=facts["synthetic"],
            note=facts["note"],
        )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def key(self) -> str:
        """For the keys of steps: which pictures, and what decoding made of them."""
        return f"{self.list_digest} {self.pixels_digest}"

    def only(self, places: NDArray[np.intp]) -> Crops:
        """Some of these pictures, as a set of their own."""
        labels = None if self.labels is None else self.labels[places]
        ids, digests = (tuple(each[place] for place in places) for each in (self.ids, self.digests))
        kept = zip(ids, digests, [None] * len(ids) if labels is None else labels.tolist(), strict=True)
        return dataclasses.replace(
            self,
            pixels=self.pixels[places],
            ids=ids,
            digests=digests,
            labels=labels,
            list_digest=_list_digest(kept),
        )

    def batches(self, size: int) -> Iterator[NDArray[np.uint8]]:
        """The pixels in slices of `size`, the last one perhaps shorter."""
        for start in range(0, len(self), size):
            yield self.pixels[start : start + size]


def write_crops(
    images: ImageSet,
    preprocessing: Preprocessing,
    *,
    shape: tuple[int, int, int],
    count: int,
    folder: Path,
    progress: Callable[[int, int], None],
    exclude: frozenset[str] = frozenset(),
    max_skipped_share: float = MAX_SKIPPED_SHARE,
) -> Crops:
    """Decode the first `count` usable pictures of a set, once, in constant memory.

    A picture that is damaged or too large is named, skipped, and replaced by the next of the set.

    Args:
        images: the set, in its order.
        preprocessing: gives color, resize and interpolation.
        shape: channels, height, width of a crop.
        count: how many are wanted; a smaller set gives fewer.
        folder: where crops.npy and crops.json go; made when absent.
        progress: called with (done, wanted) after each crop.
        exclude: digests of pictures to leave out, because another set holds them.
        max_skipped_share: more skipped than this share of those tried is an error; two are always
            forgiven while a usable picture is left.

    Raises:
        ImageError: no usable picture, or too many that are not.
        WriteFailed: the folder cannot be written.
    """
    tally = _Tally()
    attempt = partial(_attempt, preprocessing=preprocessing, shape=shape, exclude=exclude)
    limit = _most_skips(count, max_skipped_share)
    wanted = min(count, len(images))
    with writing(folder), warnings.catch_warnings():
        # Pillow warns of large and of odd files; what matters of that is a skip with its reason.
        warnings.simplefilter("ignore")
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / PIXELS).open("wb") as file:
            _write_header(file, (wanted, *shape[1:], shape[0]))
            for tried in in_order(attempt, images):
                file.write(tally.take(tried))
                progress(len(tally.kept), wanted)
                if len(tally.kept) == count or len(tally.skipped) > limit:
                    break
            file.seek(0)
            _write_header(file, (len(tally.kept), *shape[1:], shape[0]))
        tally.judge(images, max_skipped_share)
        facts = {"schema": SCHEMA, **_facts(images), **tally.facts()}
        facts["pixels_digest"] = digest_of_file(folder / PIXELS)
        facts["note"] = images.note or tally.note()
        (folder / FACTS).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return Crops.open(folder)


def fingerprint(
    images: ImageSet,
    *,
    count: int,
    exclude: frozenset[str] = frozenset(),
    max_skipped_share: float = MAX_SKIPPED_SHARE,
) -> str:
    """SHA-256, in hex, of all that `write_crops` could read with these arguments; decodes nothing.

    It covers the content of each picture that could still be tried after as many skips as are
    forgiven, so a change to any picture that matters changes it. Preprocessing is not part of it.
    """
    facts = {**_facts(images), "count": count, "share": max_skipped_share, "exclude": sorted(exclude)}
    total = hashlib.sha256(json.dumps(facts).encode())
    left = count + _most_skips(count, max_skipped_share)
    for item, digest in in_order(_digest, images):
        total.update(_line(digest, item.id, item.label))
        left -= digest not in exclude
        if left <= 0:
            break
    return total.hexdigest()


def _facts(images: ImageSet) -> dict[str, Any]:
    return {
        "name": images.name,
        "source": images.source,
        "class_names": images.class_names,
        "synthetic": images.synthetic,
        "note": images.note,
    }


def _digest(item: ImageItem) -> tuple[ImageItem, str]:
    try:
        return item, item.digest()
    except ImageError as error:
        return item, error.what


def _list_digest(kept: Iterable[tuple[str, str, int | None]]) -> str:
    """Of the lines of these pictures, each given by id, digest and label."""
    lines = b"".join(_line(digest, name, label) for name, digest, label in kept)
    return hashlib.sha256(lines).hexdigest()


def _line(digest: str, name: str, label: int | None) -> bytes:
    tail = b"\n" if label is None else f" {label}\n".encode()
    return digest.encode() + b"  " + name_bytes(name) + tail


def _most_skips(count: int, share: float) -> int:
    """The most pictures that may be skipped on the way to `count`: s <= max(2, share * (count + s))."""
    return sys.maxsize if share >= 1 else max(_ALWAYS_FORGIVEN, int(share * count / (1 - share) + 1e-6))


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    """The header of a .npy file, always 128 bytes, so that it can be written again over itself.

    https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html, version 1.0. The number of
    crops is known only at the end. A mapped file would allow that too, but a full disk kills its writer.
    """
    text = str({"descr": "|u1", "fortran_order": False, "shape": shape}).ljust(117) + "\n"
    file.write(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode("ascii"))


@dataclass(frozen=True, slots=True)
class _Tried:
    """One picture, cut to `pixels`; or a reason why it cannot be used; or neither: left out."""

    item: ImageItem
    digest: str = ""
    pixels: bytes = b""
    reason: str = ""


def _attempt(
    item: ImageItem, *, preprocessing: Preprocessing, shape: tuple[int, int, int], exclude: frozenset[str]
) -> _Tried:
    try:
        digest = item.digest()
        if digest in exclude:
            return _Tried(item)
        return _Tried(item, digest, crop(item.load(), preprocessing, shape).tobytes())
    except ImageError as error:
        return _Tried(item, reason=error.what)


@dataclass(slots=True)
class _Tally:
    """What became of the pictures tried so far. `kept` holds id, digest and label of each crop."""

    kept: list[tuple[str, str, int | None]] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    excluded: int = 0

    def take(self, tried: _Tried) -> bytes:
        """Count one picture; gives its pixels, none when it is not kept."""
        if tried.pixels:
            self.kept.append((printable(tried.item.id), tried.digest, tried.item.label))
        elif tried.reason:
            self.skipped.append(Skipped(printable(tried.item.id), tried.reason))
        else:
            self.excluded += 1
        return tried.pixels

    def judge(self, images: ImageSet, share: float) -> None:
        """Refuse a set with nothing left in it, or with too much that is broken."""
        tried = len(self.kept) + len(self.skipped)
        if self.kept and len(self.skipped) <= max(_ALWAYS_FORGIVEN, share * tried):
            return
        named = "; ".join(f"{each.id} {each.reason}" for each in self.skipped[:_SHOWN])
        if self.skipped:
            what = f"{len(self.skipped)} of {tried} pictures cannot be used: {named}"
            raise ImageError(
                what, where=images.name, mend="mend or remove these files, or list the good ones"
            )
        raise ImageError(
            f"no picture is left: another set holds all {self.excluded}",
            where=images.name,
            mend="give different pictures for calibration and validation",
        )

    def note(self) -> str:
        """What the user should be told: labels count only where every picture has one."""
        without = sum(label is None for *_, label in self.kept)
        return (
            f"{without} of {len(self.kept)} pictures have no label: labels unused"
            if 0 < without < len(self.kept)
            else ""
        )

    def facts(self) -> dict[str, Any]:
        """What crops.json says of the pictures."""
        ids, digests, labels = zip(*self.kept, strict=True)
        return {
            "ids": ids,
            "digests": digests,
            "labels": labels,
            "skipped": [dataclasses.asdict(each) for each in self.skipped],
            "excluded": self.excluded,
            "list_digest": _list_digest(self.kept),
        }
