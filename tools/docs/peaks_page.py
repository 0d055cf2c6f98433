"""Write the tables of peak rates in docs/roofline.md, from cnnx.measure.roofline.chips.

python -m tools.docs.peaks_page [--check]

With --check, compares the page and writes nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from cnnx.measure.roofline.chips import CHIPS, MODULES, Rates
from tools import ROOT
from tools.markdown import table, wrapped

PAGE = ROOT / "docs" / "roofline.md"
_START, _END = "<!-- peaks: written by make docs -->\n", "<!-- end of peaks -->\n"
_TYPES = ("int8", "fp16", "tf32", "fp32")


def text_of(page: str) -> str:
    """The page with its tables as the package has them."""
    before, _, rest = page.partition(_START)
    _, _, after = rest.partition(_END)
    return wrapped(f"{before}{_START}{_tables()}\n{_END}{after}")


def _tables() -> str:
    types = [kind.upper() for kind in _TYPES]
    gpus = table(("GPU", *types, "GB/s", "MHz", "source"), _gpus(), left=(0, 7))
    jetsons = table(("Jetson", "power mode", "SMs", "MHz", "INT8", "FP16", "GB/s"), _jetsons(), left=(0, 1))
    sources = "\n".join(f"- {module.words} {module.memory_gb} GB: {module.source}" for module in MODULES)
    return f"\n{gpus}\n\n{jetsons}\n\n{sources}\n"


def _gpus() -> Iterator[tuple[str, ...]]:
    for name, chip in CHIPS.items():
        rates = (_tops(chip.rates, kind, chip.sms, chip.clock_mhz) for kind in _TYPES)
        yield name, *rates, f"{chip.gigabytes:g}", f"{chip.clock_mhz:g}", chip.source


def _jetsons() -> Iterator[tuple[str, ...]]:
    for module in MODULES:
        for name, mode in module.modes.items():
            yield (
                f"{module.words} {module.memory_gb} GB",
                name,
                str(mode.sms),
                f"{mode.gpu_mhz:g}",
                *(_tops(module.rates, kind, mode.sms, mode.gpu_mhz) for kind in ("int8", "fp16")),
                f"{module.bandwidth(mode) / 1e9:.1f}",
            )


def _tops(rates: Rates, kind: str, sms: int, clock_mhz: float) -> str:
    rate = {str(name): rate for name, rate in rates.items()}.get(kind)
    return f"{rate * sms * clock_mhz / 1e6:.1f}" if rate else "-"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="fail if the page is stale")
    check = parser.parse_args().check
    page = PAGE.read_text(encoding="utf-8")
    if check:
        return int(page != text_of(page))
    PAGE.write_text(text_of(page), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
