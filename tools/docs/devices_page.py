"""Write docs/devices.md: the devices that cnnx has run on, from submitted archives.

python -m tools.docs.devices_page [--archives FOLDER] [--check]

Archives come from `cnnx doctor --proof FILE.tar.gz` and are stored in docs/devices/. Hardware without an
archive is listed as never run. With --check, compares the page and writes nothing.
"""

from __future__ import annotations

import argparse
import gzip
import io
import re
import sys
import tarfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict

from cnnx.errors import InputRefused
from cnnx.limits import JSON_BYTES
from cnnx.machine.environment import Environment
from cnnx.measure.power.sensors.boards import BOARDS
from cnnx.pipeline.records.energy import Energy
from cnnx.pipeline.survey.journal import row_of
from cnnx.record import Record
from cnnx.schema import Date, from_plain, plain_of, read_json
from tools import ROOT
from tools.docs import device_findings
from tools.markdown import table, wrapped

PAGE = ROOT / "docs" / "devices.md"
ARCHIVES = ROOT / "docs" / "devices"
NEVER = "never run on hardware"
# Sensors and chips that cnnx reads, by kernel driver or by sensor name.
SENSORS = {
    "ina3221": "INA3221 of Jetson boards, by hwmon (JetPack 5 and newer)",
    "ina3221x": "INA3221 of Jetson boards, by iio (JetPack 4)",
    "ina238": "INA238 of Jetson AGX Thor",
    "nvml-instant": "NVML, power at the moment",
    "nvml-average": "NVML, mean power of a second",
    "nvml-usage": "NVML, power usage",
    "nvml-energy": "NVML, counter of energy",
    "intel-rapl": "RAPL of x86 CPUs",
    "tegrastats": "tegrastats, beside the INA monitors",
}
# TensorRT releases that tests cover, and the JetPack releases that include them.
TENSORRT = ("10.3", "10.16", "11.4")
JETPACK = ("6.1", "6.2", "7.0", "7.1", "7.2")

_HINT = "ask for a new one: cnnx doctor --proof FILE.tar.gz"


class _Proof(TypedDict):
    """proof.json of an archive."""

    schema: Literal[1]
    date: Date
    diagnosis: dict[str, Any]
    rows: list[dict[str, Any]]


_HEAD = """# Devices seen so far

Written by tools/docs/devices_page.py from archives that owners of devices send in. To add yours:

<!-- not run: takes minutes, and is meant for a device -->
```sh
cnnx doctor --proof proof.tar.gz
```

The command builds, validates and measures LeNet-5, ResNet-20 and ResNet-50 in FP16 and INT8. If a
sensor covers the device, it also measures energy, 1 to 4 minutes each. The archive holds records
and what builders reported: no engine, no image. On a device without PyTorch, pass finished
bundles: [Devices](jetson.md).

A board counts as seen if doctor ran on it, a sensor if it measured energy, and a TensorRT release if
it built and ran an engine.
"""
_DRIVERS = """
## Drivers

Packages for a CUDA release need a driver of that release or newer. `cnnx doctor` shows the CUDA
release that the driver supports, and the command that installs the matching packages.

| driver | CUDA | TensorRT | TensorRT for RTX |
|---|---|---|---|
| 580 and newer | 13 | `.[tensorrt]` | `.[rtx]` |
| 525 to 575 | 12 | `.[tensorrt-cu12]` | `.[rtx-cu12]` |
| older | 11 and older | update the driver | update the driver |
| Jetson | JetPack's | JetPack's | none |

Both releases of a package have the same module, so uninstall one before you install the other.
`.[rtx-cu12]` was tried without a GPU: it builds as `.[rtx]` does. `.[tensorrt-cu12]` was not tried.
"""
_UNKNOWN = """
## Not known until it runs

- A container without the capability `utility` has CUDA, and no NVML: cnnx then reports no GPU in
  `doctor`, no clocks and no power. Start it with `NVIDIA_DRIVER_CAPABILITIES=compute,utility`.
- `--version-compatible`: such an engine contains the lean runtime, which packages from pip may lack.
- Whether 1 % of throttled time, and 10 % of a power limit, are the right bounds.
- Times of kernels from an ONNX Runtime built with CUDA profiling.
- What the inspector of TensorRT 10 and 11 reports about constants of Myelin's kernels, and about the
  format of tensors that `diagnose --target` reads.
"""


def read_proof(archive: Path) -> dict[str, Any]:
    """proof.json of an archive; the key "energies" holds the results of energy records made on its machine.

    Nothing is unpacked. Records of other machines, in bundles that were moved, are skipped.

    Raises:
        InputRefused: it is no such archive, or its content is not what cnnx writes.
    """
    try:
        with gzip.open(archive) as unpacked:
            content = unpacked.read(JSON_BYTES + 1)
        if len(content) > JSON_BYTES:
            raise ValueError(f"it unpacks to more than {JSON_BYTES:,} bytes")
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            names = [each.name for each in tar.getmembers() if each.isreg()]
            files = {name: _content(tar, name) for name in names if name.endswith(".json")}
    except (tarfile.TarError, OSError, EOFError, ValueError, zlib.error) as error:
        raise InputRefused(f"the archive cannot be read: {error}", where=archive, hint=_HINT) from None
    if "proof.json" not in files:
        raise InputRefused("the archive does not contain proof.json", where=archive, hint=_HINT)
    proof = _plain(files, "proof.json", _Proof, archive)
    records = [_plain(files, name, Record, archive) for name in files if re.match(r"runs/.*-energy-", name)]
    environment = _environment(proof["diagnosis"].get("environment"), archive)
    proof["diagnosis"]["environment"] = environment
    machine = _machine(environment)
    proof["rows"] = [row_of(row, where=archive) for row in proof["rows"]]
    proof["energies"] = [
        plain_of(from_plain(Energy, each["result"], where=archive, error=InputRefused, hint=_HINT))
        for each in records
        if _machine(_environment(each["environment"], archive)) == machine
    ]
    return proof


def _content(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    if file is None:
        raise ValueError(f"{name} has no content")
    return file.read()


def _plain(files: Mapping[str, bytes], name: str, kind: Any, archive: Path) -> dict[str, Any]:
    """A JSON file of the archive, checked against a type."""
    data = read_json(files[name], where=archive, error=InputRefused, hint=_HINT)
    found: dict[str, Any] = plain_of(from_plain(kind, data, where=archive, error=InputRefused, hint=_HINT))
    return found


def _environment(data: Any, archive: Path) -> dict[str, Any]:
    found: dict[str, Any] = plain_of(
        from_plain(Environment, data, where=archive, error=InputRefused, hint=_HINT)
    )
    return found


def _machine(environment: Mapping[str, Any]) -> tuple[Any, ...]:
    return (environment["board"], environment["cpu"], environment["gpu"] and environment["gpu"]["name"])


def page(proofs: Sequence[Mapping[str, Any]]) -> str:
    """The text of the page."""
    parts = [_HEAD]
    environments = [proof["diagnosis"]["environment"] for proof in proofs]
    names = [f"Jetson {name.removeprefix('Jetson ')}" for board in BOARDS for name in board.name.split(", ")]

    def where(holds: Callable[[Mapping[str, Any]], bool]) -> list[Mapping[str, Any]]:
        """Proofs from machines that match a condition."""
        return [proof for proof, e in zip(proofs, environments, strict=True) if holds(e)]

    boards = {name: where(lambda e, name=name: name in (e["board"] or "")) for name in names}
    cards = sorted({e["gpu"]["name"] for e in environments if e["gpu"] and not e["l4t"]})
    for card in cards or ["NVIDIA cards"]:
        boards[card] = where(lambda e, card=card: e["gpu"] and e["gpu"]["name"] == card)
    parts.append(_section("Boards and cards", "board", boards))
    sensors = {what: [p for p in proofs if sensor in _read_by(p)] for sensor, what in SENSORS.items()}
    parts.append(_section("Power sensors", "sensor", sensors))
    releases = {
        f"TensorRT {release}": [p for p in proofs if _ran_on(p, f"tensorrt {release}.")]
        for release in TENSORRT
    }
    releases["TensorRT for RTX"] = [p for p in proofs if _ran_on(p, "rtx ")]
    parts.append(_section("TensorRT", "release", releases))
    jetpacks = {
        f"JetPack {r}": where(lambda e, r=r: e["jetpack"] and f"{e['jetpack']}.".startswith(f"{r}."))
        for r in JETPACK
    }
    parts.append(_section("JetPack", "release", jetpacks))
    if proofs:
        parts.append(_figures(proofs))
    return "\n".join(parts)


def _section(title: str, what: str, seen: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    rows = [
        (name, ", ".join(sorted({p["date"][:10] for p in found})) or NEVER) for name, found in seen.items()
    ]
    return f"## {title}\n\n{table((what, 'seen'), rows, left=(0, 1))}\n"


def _read_by(proof: Mapping[str, Any]) -> set[str]:
    """Sensors that measured energy. A single reading by doctor does not count."""
    found: set[str] = set()
    for result in proof["energies"]:
        found |= {result["sensor"], *result.get("drivers", ())}
        if (result.get("tegrastats") or {}).get("deviations"):
            found.add("tegrastats")
    return found


def _ran_on(proof: Mapping[str, Any], runtime: str) -> bool:
    done = [row for row in proof["rows"] if row["status"] == "done"]
    return any(f"{row['subject']['runtime']}.".startswith(runtime) for row in done)


def _figures(proofs: Iterable[Mapping[str, Any]]) -> str:
    figures = ("p50 ms", "images/s", "gross mJ", "net mJ")
    columns = ("device", "runtime", "network", "precision", "batch", "verdict", *figures, "valid")
    rows = []
    for proof in proofs:
        board = proof["diagnosis"]["environment"]["board"]
        for row in proof["rows"]:
            head = (row["model"], row["precision"], str(row["batch"]), row["verdict"] or "-")
            if row["status"] != "done":
                rows.append((board or "-", "-", *head, *["-"] * len(figures), f"failed: {row['reason']}"))
                continue
            p50 = "-" if row["p50_ns"] is None else f"{row['p50_ns'] / 1e6:.3f}"
            valid = "yes" if row["valid"] else "; ".join(row["findings"])
            subject = row["subject"]
            rate = f"{row['images_per_second']:.1f}"
            energy = ("-" if (mj := row.get(key)) is None else f"{mj:.2f}" for key in ("gross_mj", "net_mj"))
            rows.append((board or subject["device"], subject["runtime"], *head, p50, rate, *energy, valid))
    rows = [tuple(cell.replace("|", "\\|") for cell in row) for row in rows]
    return f"## Figures\n\n{table(columns, rows, left=(0, 1, 2, 3, 5, 10))}\n"


def text_of(archives: Path) -> str:
    """The whole page, from the archives in a folder."""
    seen = page([read_proof(file) for file in sorted(archives.glob("*.tar.gz"))])
    return wrapped(seen + _DRIVERS + device_findings.section() + _UNKNOWN)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--archives", type=Path, default=ARCHIVES, help="folder of the archives")
    parser.add_argument("--check", action="store_true", help="fail if the page is stale")
    options = parser.parse_args()
    try:
        text = text_of(options.archives)
    except InputRefused as error:
        raise SystemExit(str(error)) from None
    if options.check:
        return int(PAGE.read_text(encoding="utf-8") != text)
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
