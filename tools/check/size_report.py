"""Report lines per file and function. With --check, fail if one exceeds the limits.

python -m tools.check.size_report [--check]
"""

from __future__ import annotations

import argparse
import ast
import statistics
import sys

from tools import ROOT

FILE_LINES, FUNCTION_LINES = 450, 70


def functions(tree: ast.AST) -> list[tuple[str, int]]:
    """(name, lines of code) of every function, without docstring and signature."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            found.append((node.name, (node.end_lineno or 0) - body[0].lineno + 1 if body else 0))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="fail if a limit is exceeded")
    check = parser.parse_args().check
    files, lengths, over = [], [], []
    for path in sorted((ROOT / "exporter").rglob("*.py")):
        if path.parent.name == "program":  # what a package gives to its user is one file
            continue
        text = path.read_text(encoding="utf-8")
        name = str(path.relative_to(ROOT))
        files.append(text.count("\n"))
        if files[-1] > FILE_LINES:
            over.append(f"{name}: {files[-1]} lines, limit {FILE_LINES}")
        for function, lines in functions(ast.parse(text)):
            lengths.append(lines)
            if lines > FUNCTION_LINES:
                over.append(f"{name}: {function} has {lines} lines, limit {FUNCTION_LINES}")
    for what, values in (("file", files), ("function", lengths)):
        ordered = sorted(values)
        tail = ordered[int(0.9 * (len(ordered) - 1))]
        print(
            f"lines per {what}: median {statistics.median(ordered):g}, 90th percentile {tail}, "
            f"largest {ordered[-1]} ({len(ordered)} in total, {sum(ordered):,} lines)"
        )
    print("\n".join(over))
    return 1 if check and over else 0


if __name__ == "__main__":
    sys.exit(main())
