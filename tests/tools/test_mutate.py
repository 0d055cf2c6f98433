"""The table of mutation testing names every module of its packages, and only lines that exist."""

import sys

from tools import ROOT
from tools.check.mutations import mutations

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PACKAGE = ROOT / "exporter" / "cnnx"
TABLE = tomllib.loads((ROOT / "tools" / "check" / "mutate.toml").read_text(encoding="utf-8"))
HELD = ("agreement", "bundle", "graph", "measure", "quant", "runtimes", "store")


def test_every_module_is_held_by_tests_that_exist_or_left_out_with_a_reason():
    files = [PACKAGE / "gates.py", PACKAGE / "stats.py"]
    files += [file for folder in HELD for file in (PACKAGE / folder).rglob("*.py")]
    changeable = {file.relative_to(PACKAGE).as_posix() for file in files if mutations(file.read_bytes())}
    tests, left_out = TABLE["tests"], TABLE["left_out"]
    assert changeable - tests.keys() == left_out.keys() and all(left_out.values())
    named = {test.partition("::")[0] for each in tests.values() for test in each}
    missing = [
        name for name in (*named, *(f"exporter/cnnx/{name}" for name in tests)) if not (ROOT / name).is_file()
    ]
    assert not missing


def test_what_is_equivalent_is_still_there():
    for each in TABLE["equivalent"]:
        lines = (PACKAGE / each["module"]).read_text(encoding="utf-8").splitlines()
        assert each["line"] in map(str.strip, lines) and each["reason"], each
