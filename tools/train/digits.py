"""Write calibration/digits/digits.npz from scikit-learn's copy of the UCI digits.

Every run gives the same bytes: members are stored uncompressed with a fixed date.
"""

from __future__ import annotations

import argparse
import io
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits  # type: ignore[import-untyped]

from tools import ROOT

VALIDATION = 800
SEED = 1998
DEFAULT = ROOT / "calibration" / "digits" / "digits.npz"


def held_out(labels: NDArray[np.int64], count: int) -> NDArray[np.bool_]:
    """Mark `count` images, stratified by class (largest remainders rounded up)."""
    share = np.bincount(labels) * count / len(labels)
    quota = np.floor(share).astype(int)
    quota[np.argsort(quota - share, kind="stable")[: count - quota.sum()]] += 1
    # Sort raw uniform doubles: unlike `permutation`, their stream is stable across NumPy versions.
    order = np.argsort(np.random.Generator(np.random.PCG64(SEED)).random(len(labels)), kind="stable")
    marks = np.zeros(len(labels), dtype=bool)
    for label, quantity in enumerate(quota):
        marks[order[labels[order] == label][:quantity]] = True
    return marks


def write_npz(path: Path, arrays: dict[str, NDArray[np.generic]]) -> None:
    """Write a file for `numpy.load` that is identical in every run."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, array, version=(1, 0), allow_pickle=False)
            member = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            member.create_system = 3
            archive.writestr(member, buffer.getvalue())


def main() -> None:
    """Read, scale, split, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=DEFAULT, help="file to write")
    out: Path = parser.parse_args().out
    source = load_digits()
    # 0..16 to 0..255; invert with (pixels * 16 + 127) // 255, as neighbours stay 15 or 16 apart.
    pixels = np.rint(source.images * 255 / 16).astype(np.uint8)
    labels = source.target.astype(np.uint8)
    write_npz(out, {"pixels": pixels, "labels": labels, "validation": held_out(source.target, VALIDATION)})
    print(f"{out}: {len(pixels)} digits, {VALIDATION} held out")


if __name__ == "__main__":
    main()
