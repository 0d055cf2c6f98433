"""Write docs/licenses.md: what is installed with cnnx and each of its extras, and under which license.

python -m tools.docs.licenses_page [--check]

Licenses are those that the installed packages state. With --check, compares the page and writes nothing.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools import ROOT
from tools.markdown import table, wrapped

PAGE = ROOT / "docs" / "licenses.md"
_EXTRAS = ("", "export", "cpu", "rtx", "opencv", "report", "sign", "fleet")
_NOT_HERE = (
    ("gpu", "onnxruntime-gpu", "MIT"),
    ("rtx-cu12", "onnxruntime-ep-nv-tensorrt-rtx-cu12", "Apache-2.0"),
    ("rtx-cu12", "tensorrt-rtx-cu12-bindings", "Proprietary"),
    ("tensorrt", "tensorrt", "Proprietary"),
    ("tensorrt-cu12", "tensorrt-cu12", "Proprietary"),
    ("pycuda", "pycuda", "MIT"),
)
"""Extra, package and license as its page on PyPI states it, of what needs an NVIDIA GPU."""
_SPDX = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Other/Proprietary License": "Proprietary",
    "The Unlicense (Unlicense)": "Unlicense",
}
_TEXT = """# Licenses

cnnx is under the Apache License 2.0. This page lists the licenses of what it contains
and installs. `make docs` writes it from the metadata of the installed packages.

## In cnnx itself

| part | license |
|---|---|
| code, recipes, documentation | Apache-2.0 |
| the trained small networks in recipes/weights, and their images, which cnnx draws | Apache-2.0 |
| the images of handwritten digits in calibration/digits | CC BY 4.0 (E. Alpaydin, C. Kaynak, UCI) |
| the names of ImageNet's classes in recipes/labels | WordNet 3.0's (Princeton University) |

A recipe's `licence` is that of the weights it names. Weights that cnnx downloads stay under their
publisher's license, and `cnnx bom` writes it into a bundle's bill of materials.

The C++ program that `cnnx package --for cpp` writes is Apache-2.0, and needs nlohmann/json (MIT)
and stb_image (MIT or public domain) from the system. A report contains Vega, Vega-Lite and
Vega-Embed (BSD-3-Clause).

## Packages

Each package is listed once, under the first extra that installs it.

{packages}

Packages marked Proprietary are NVIDIA's: read their terms before you ship them. The next ones need an
NVIDIA GPU and were not installed where this page was made, so their licenses are those that PyPI
states:

{elsewhere}

Packages for development (`.[dev]`) are not installed for users, and not listed.
"""


def text() -> str:
    """The page.

    Raises:
        PackageNotFoundError: an extra is not installed.
    """
    packages = table(("extra", "package", "license"), _packages(), left=(0, 1, 2))
    elsewhere = table(("extra", "package", "license"), _NOT_HERE, left=(0, 1, 2))
    return wrapped(_TEXT.format(packages=packages, elsewhere=elsewhere))


def _packages() -> Iterator[tuple[str, str, str]]:
    listed: set[str] = set()
    for extra in _EXTRAS:
        brought = {canonicalize_name(each.name): each for each in _closure(distribution("cnnx"), extra)}
        for name in sorted(brought.keys() - listed):
            yield extra or "core", name, license_of(brought[name])
        listed |= brought.keys()


def _closure(of: Distribution, *extras: str) -> Iterator[Distribution]:
    """What a distribution asks for with these extras, directly or indirectly."""
    pending, seen = [(of, frozenset(extras))], set()
    while pending:
        asking, wanted = pending.pop()
        for text in asking.requires or ():
            requirement = Requirement(text)
            marker = requirement.marker
            if marker is not None and not any(marker.evaluate({"extra": each}) for each in wanted or {""}):
                continue
            key = (requirement.name, frozenset(requirement.extras))
            if key not in seen:
                seen.add(key)
                found = distribution(requirement.name)
                yield found
                pending.append((found, frozenset(requirement.extras)))


def license_of(package: Distribution) -> str:
    """The license that a package's metadata states: as an expression, a classifier or a short text."""
    stated = package.metadata
    if "License-Expression" in stated:
        return stated["License-Expression"]
    classifiers = [
        each.split(" :: ")[-1] for each in stated.get_all("Classifier") or () if "License ::" in each
    ]
    if classifiers:
        return " and ".join(_SPDX.get(each, each) for each in classifiers)
    if "License" in stated and "\n" not in (short := stated["License"].strip()):
        return _SPDX.get(short, short)
    for file in package.files or ():
        if re.search(r"LICEN[CS]E", file.name):
            return f"see its {file.name}"
    return "not stated"


def main() -> int:
    """Write the page, or compare it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true")
    if not parser.parse_args().check:
        PAGE.write_text(text(), encoding="utf-8")
    elif not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != text():
        print(f"{PAGE.relative_to(ROOT)} differs from what is installed: run make docs", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
