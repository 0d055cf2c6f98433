"""Decodes, resizes and crops an image set once, and stores the crops as 8-bit pixels.

EXIF orientation is ignored unless the preprocessing asks for it, as in torchvision's ImageFolder: the
training images of the published networks were not rotated, and neither are camera frames.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
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
from cnnx.preprocessing import Preprocessing
from cnnx.store.digests import digest_of_file
from cnnx.store.files import writing

PIXELS, FACTS = "crops.npy", "crops.json"
SCHEMA = 3
MAX_SKIPPED_SHARE = 0.1

_ALWAYS_FORGIVEN = 2  # one bad file in a small set must not stop a first try
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Skipped:
    """An image that could not be used, and the reason."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Crops:
    """Cropped images ready for normalization, in the order of their set.

    Attributes:
        folder: folder that contains the crops.
        pixels: (N, height, width, channels), read-only, memory-mapped.
        ids: name of each image in its set.
        digests: SHA-256 of each image's source.
        labels: (N,) class indices; None if any image has no label.
        skipped: images that could not be used.
        excluded: number of images left out because another set contains them.
        list_digest: SHA-256 of the lines "digest  id label" (without a label: "digest  id", the format of
            sha256sum).
        pixels_digest: SHA-256 of the pixel file; for a subset, that of the whole set.
        name: name of the set.
        source: origin and licence of the images.
        class_names: name of each label, if known.
        synthetic: whether the images are generated substitutes for photographs.
        note: message for the user about the set, or "".
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
        """Open the crops that `write_crops` stored in a folder.

        Raises:
            ImageError: the folder contains no crops, or they are damaged.
        """
        try:
            facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
            pixels = np.load(folder / PIXELS, mmap_mode="r", allow_pickle=False)
            return cls._from_facts(folder, pixels, facts)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ImageError(
                f"the stored crops cannot be read: {error}",
                where=folder,
                hint=f"run `rm -r '{folder}'`, then run again",
            ) from error

    @classmethod
    def _from_facts(cls, folder: Path, pixels: NDArray[np.uint8], facts: dict[str, Any]) -> Crops:
        labels, names = facts["labels"], facts["class_names"]
        if facts["schema"] != SCHEMA or len(pixels) != len(facts["ids"]):
            raise ValueError(f"schema {facts['schema']}, {len(pixels)} images, {len(facts['ids'])} names")
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
        """Text for cache keys that identifies the images and their decoded pixels."""
        return f"{self.list_digest} {self.pixels_digest}"

    def only(self, places: NDArray[np.intp]) -> Crops:
        """Return the images at these indices as a set of their own."""
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
        """Yield the pixels in slices of `size`; the last may be shorter."""
        for start in range(0, len(self), size):
            yield self.pixels[start : start + size]


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What `write_crops` can read.

    Attributes:
        digest: SHA-256 of everything that it could read, in hex.
        images: SHA-256 of each image by name, or why it cannot be read.
    """

    digest: str
    images: Mapping[str, str]


def write_crops(
    images: ImageSet,
    preprocessing: Preprocessing,
    *,
    shape: tuple[int, int, int],
    count: int,
    folder: Path,
    progress: Callable[[int, int], None],
    found: Mapping[str, str] | None = None,
    exclude: frozenset[str] = frozenset(),
    max_skipped_share: float = MAX_SKIPPED_SHARE,
) -> Crops:
    """Decode the first `count` usable images of a set once, in constant memory.

    An image that is damaged or too large is recorded, skipped, and replaced by the next one of the set.

    Args:
        images: the set.
        preprocessing: color mode, resize and interpolation.
        shape: channels, height, width of a crop.
        count: number of images to decode; a smaller set gives fewer.
        folder: output folder for crops.npy and crops.json, created if missing.
        progress: called with (done, wanted) after each crop.
        found: the images of a `Fingerprint`, which must not have changed since; None: any images.
        exclude: digests of images to leave out because another set contains them.
        max_skipped_share: maximum share of unusable images among those tried. Two are always accepted
            while any usable image is left.

    Raises:
        ImageError: no usable image, too many unusable ones, or one has changed.
        WriteFailed: the folder cannot be written.
    """
    tally = _Tally()
    attempt = partial(_attempt, preprocessing=preprocessing, shape=shape, exclude=exclude, found=found)
    limit = _most_skips(count, max_skipped_share)
    wanted = min(count, len(images))
    with writing(folder), warnings.catch_warnings():
        # Pillow warns about large and unusual files. Those that matter are skipped with a reason.
        warnings.simplefilter("ignore")
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / PIXELS).open("wb") as file:
            _write_header(file, (wanted, *shape[1:], shape[0]))
            for tried in in_order(attempt, images):
                if tried.changed:
                    raise _changed(tried.item, images)
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
) -> Fingerprint:
    """Return what `write_crops` could read with these arguments.

    No image is decoded. Every image is included that could be tried if the maximum number of images were
    skipped. Preprocessing is not included.
    """
    facts = {**_facts(images), "count": count, "share": max_skipped_share, "exclude": sorted(exclude)}
    total, found = hashlib.sha256(json.dumps(facts).encode()), dict[str, str]()
    left = count + _most_skips(count, max_skipped_share)
    for item, digest in in_order(_digest, images):
        total.update(_line(digest, item.id, item.label))
        found[item.id] = digest
        left -= digest not in exclude
        if left <= 0:
            break
    return Fingerprint(total.hexdigest(), found)


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
    """Return the SHA-256 of one line per image, given as (id, digest, label)."""
    lines = b"".join(_line(digest, name, label) for name, digest, label in kept)
    return hashlib.sha256(lines).hexdigest()


def _line(digest: str, name: str, label: int | None) -> bytes:
    tail = b"\n" if label is None else f" {label}\n".encode()
    return digest.encode() + b"  " + name_bytes(name) + tail


def _most_skips(count: int, share: float) -> int:
    """Return the maximum number of skipped images: the largest s <= max(2, share * (count + s))."""
    return sys.maxsize if share >= 1 else max(_ALWAYS_FORGIVEN, int(share * count / (1 - share) + 1e-6))


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    """Write the header of a .npy file, always 128 bytes, so that it can be overwritten later.

    The number of crops is known only at the end. A memory-mapped file would also allow that, but a full
    disk would kill the process. Format version 1.0:
    https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html.
    """
    text = str({"descr": "|u1", "fortran_order": False, "shape": shape}).ljust(117) + "\n"
    file.write(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode("ascii"))


@dataclass(frozen=True, slots=True)
class _Tried:
    """Result for one image: cropped `pixels`, a `reason` why it is unusable, or neither if excluded.

    `changed`: its content is not that of the fingerprint.
    """

    item: ImageItem
    digest: str = ""
    pixels: bytes = b""
    reason: str = ""
    changed: bool = False


def _attempt(
    item: ImageItem,
    *,
    preprocessing: Preprocessing,
    shape: tuple[int, int, int],
    exclude: frozenset[str],
    found: Mapping[str, str] | None,
) -> _Tried:
    before = _digest(item)[1] if found is None else found.get(item.id)
    pixels, reason = b"", ""
    if before not in exclude:
        try:
            pixels = crop(item.load(), preprocessing, shape).tobytes()
        except ImageError as error:
            reason = error.what
    # The digest is taken after the pixels: if it has not changed, the pixels are those of this digest.
    try:
        digest = item.digest()
    except ImageError as error:
        digest, pixels, reason = error.what, b"", error.what
    return _Tried(item, digest, pixels, reason, changed=digest != before)


def _changed(item: ImageItem, images: ImageSet) -> ImageError:
    return ImageError(
        f"{printable(item.id)} was changed while the images were read",
        where=images.name,
        hint="run again when nothing writes to them",
    )


@dataclass(slots=True)
class _Tally:
    """Results of the images tried so far. `kept` contains id, digest and label of each crop."""

    kept: list[tuple[str, str, int | None]] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    excluded: int = 0

    def take(self, tried: _Tried) -> bytes:
        """Count one image and return its pixels, or b"" if it is not kept."""
        if tried.pixels:
            self.kept.append((printable(tried.item.id), tried.digest, tried.item.label))
        elif tried.reason:
            self.skipped.append(Skipped(printable(tried.item.id), tried.reason))
        else:
            self.excluded += 1
        return tried.pixels

    def judge(self, images: ImageSet, share: float) -> None:
        """Refuse a set with no usable image, or with too many unusable ones."""
        tried = len(self.kept) + len(self.skipped)
        if self.kept and len(self.skipped) <= max(_ALWAYS_FORGIVEN, share * tried):
            return
        named = "; ".join(f"{each.id} {each.reason}" for each in self.skipped[:_SHOWN])
        if self.skipped:
            what = f"{len(self.skipped)} of {tried} images cannot be used: {named}"
            raise ImageError(
                what,
                where=images.name,
                hint="repair or remove these files, or list the good ones in a text file",
            )
        raise ImageError(
            f"no image is left: another set contains all {self.excluded}",
            where=images.name,
            hint="give different images for calibration and validation",
        )

    def note(self) -> str:
        """Return a message for the user if labels are ignored because some images have none, else ""."""
        without = sum(label is None for *_, label in self.kept)
        return (
            f"{without} of {len(self.kept)} images have no label: labels unused"
            if 0 < without < len(self.kept)
            else ""
        )

    def facts(self) -> dict[str, Any]:
        """Return the fields of crops.json that describe the images."""
        ids, digests, labels = zip(*self.kept, strict=True)
        return {
            "ids": ids,
            "digests": digests,
            "labels": labels,
            "skipped": [dataclasses.asdict(each) for each in self.skipped],
            "excluded": self.excluded,
            "list_digest": _list_digest(self.kept),
        }
