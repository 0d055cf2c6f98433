"""Report words that a native reader would not expect. Exits with 1 if there are any.

python -m tools.check.vocabulary [PATH...]

Checks strings, docstrings and comments of Python files, and the text of Markdown and TOML files. Skips code
between backticks, fenced code, command-line flags, and this file.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOOKED_AT = ("exporter", "tests", "tools", "recipes", "calibration", "docs", "README.md", "CONTRIBUTING.md")

# Pattern -> what to write.
WORDS = {
    r"pictures?": "image",
    r"mend(s|ed|ing)?": "hint, or fix",
    r"multiply-adds?": "MACs",
    r"thousand millions?": "G, as in GMACs",
    r"(is|are|was|were|be|been|being) told": "reported, or shown",
    r"(is|are|was|were|be) said": "reported",
    r"says? of": "reports about, or describes",
    r"so many": "a number, or this many",
    r"at most so": "a maximum",
    r"goes? on where": "resumes",
    r"goes? on with": "resumes",
    r"likewise": "repeat the noun",
    r"of before": "previous, or older",
    r"who(ever)? (waits|asked|asks)": "the user, or the caller",
    r"beside that": "also",
    r"(at|in|to) its place": "its path, or its folder",
    r"a place": "a path, or a folder",
    r"cruel": "hard to quantize",
    r"(anew)": "again",
    r"is no (bundle|folder|file|list|number|method|image|size|age|text|row|class|candidate)": "is not a ...",
    r"makes no sense": "what is expected instead",
}
_FAULTS = {re.compile(rf"\b{pattern}\b", re.IGNORECASE): better for pattern, better in WORDS.items()}
_OWN = Path(__file__).name


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("paths", nargs="*", type=Path, default=[ROOT / name for name in LOOKED_AT])
    parser.add_argument(
        "--count", action="store_true", help="print only the number of findings, by folder and by word"
    )
    options = parser.parse_args()
    findings = [
        (path.resolve().relative_to(ROOT), line + text.count("\n", 0, found.start()), found[0], better)
        for path in sorted(file for given in options.paths for file in _files(given))
        for line, text in _texts(path)
        for fault, better in _FAULTS.items()
        for found in fault.finditer(text)
    ]
    if options.count:
        by_folder = Counter("/".join(path.parts[:-1][:3]) for path, *_ in findings)
        by_word = Counter(word.lower() for _, _, word, _ in findings)
        for counter in (by_folder, by_word):
            for name, count in counter.most_common():
                print(f"{count:6} {name}")
    else:
        for path, line, word, better in findings:
            print(f"{path}:{line}: {word!r}: {better}")
    return 1 if findings else 0


def _files(given: Path) -> Iterator[Path]:
    found = [given] if given.is_file() else given.rglob("*")
    for path in found:
        if path.suffix in (".py", ".md", ".toml") and path.name != _OWN:
            yield path


def _texts(path: Path) -> Iterator[tuple[int, str]]:
    """(line, text) of the prose in a file."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        yield (
            1,
            re.sub(r"```.*?```|`[^`]*`", lambda code: re.sub(r"[^\n]", " ", code[0]), text, flags=re.DOTALL),
        )
    elif path.suffix == ".toml":
        yield 1, text
    else:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT:
                yield token.start[0], token.string
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
                yield node.lineno, re.sub(r"`[^`]*`|--[a-z-]+", lambda code: " " * len(code[0]), node.value)


if __name__ == "__main__":
    sys.exit(main())
