"""Writes docs/reliability.md from records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from tools import ROOT
from tools.bench.measured import where_measured
from tools.markdown import table, write_page
from tools.resumable import Record

PAGE = ROOT / "docs" / "reliability.md"

Found = Mapping[str, Record]

_INTRO = """# Reliability

Written by `python -m tools.check.faults`; do not edit.

cnnx promises: whatever happens to a process or a disk, nothing is lost, nothing half-written looks
complete, and the same command gives the same result afterwards. The trials on this page test that. Each
starts from the same files: a network, two bundles, images, a survey, a warm cache, and files of the user in
each of these folders. One command runs in a process of its own and meets one fault. The trial is wrong if

- a file in the working folder is neither the old nor the new one, byte for byte (files with dates or
  measurements: complete, with the same keys),
- a bundle does not open, a cached step is damaged, or a file of the user is gone,
- the exit code is not a documented one, an error has no hint, or there is a traceback,
- the command reports success and its files are not there,
- a draft or a temporary file is left, other than by SIGKILL or on a read-only disk, or
- the same command, run again without a fault, does not give what it gives undisturbed.

A preloaded library (`tools/check/faults/calls.c`) makes system calls fail, so faults also reach what NumPy
and ONNX Runtime write. A *place* is one kind of call on one file; what all files have in common counts
once. In the tables, files are as *before* the command, as *after* it, or *between*: some are new, and each
is whole."""

_BEFORE = """On commit 0cb60d9, before the work on files and the cache, 87 kills, 440 flipped bytes and 60
other faults had been tried by hand. Kills and flips held; what did not hold is in CHANGELOG.md. Flipped
bytes are now tested by `test_any_byte_changed_anywhere_is_refused` in tests/bundle/test_bundle.py. Nobody
had tried a clock that jumps, images that change during a run, sensors that vanish, real Ghostscript, or a
calibration.json under a fresh seal."""

_FOUND = """## What the trials found

All of it is fixed.

- An image that changed between hashing and decoding left its pixels in the cache under the digest of
  another.
- `cnnx cache --prune` removed what another process was using.
- A disk that filled up while a file was copied into a bundle, and errors of temporary files, were exit code
  70.
- An export that was killed after its verdict left a bundle without latency, and the next export found that
  bundle unchanged and did not measure it.
- SIGTERM and SIGHUP left temporary folders and drafts; a signal at the moment a draft was created left it.
- A killed `cnnx bom --modelpack` left one of three files, and the next run refused the folder.
- A disk error in a cell of a survey or a proof marked the cell as failed, and the same command did not try
  it again.
- Energy was lost if the sensor vanished while the cost of sampling was measured.
- With standard input closed, in a folder that was removed, or without a home folder, exit code 70.
- Output that nobody reads, and errors that cannot be written, were exit code 1: "a gate failed".
- ONNX Runtime 1.29 and later kept an identifier in the home folder."""

_GROUPS = {
    "kills": "SIGKILL at calls that change files, spread evenly over the run; in the middle of those "
    "that write. Exports start with an empty cache. They replace an existing bundle or write a new one.",
    "disk full": "ENOSPC from one call on.",
    "over quota": "EDQUOT from one call on.",
    "read-only": "EROFS from one call on. Nothing can be removed either.",
    "no permission": "EACCES from one call on.",
    "device error": "EIO at one call.",
    "file-size limit": "RLIMIT_FSIZE of 0 to 40,000 bytes, set for the process.",
    "small disk for work": "A disk (tmpfs) that really is too small for the working folder.",
    "small disk for cache": "A disk (tmpfs) that really is too small for the cache.",
    "SIGINT": "Ctrl-C: exit code 130, and nothing is left.",
    "SIGTERM": "What `kill` and `timeout` send: exit code 143, and nothing is left.",
    "SIGHUP": "What a terminal sends when it is closed: exit code 129, and nothing is left.",
    "unread output": "Standard streams that are closed, a pipe that nobody reads (exit code 141), and a "
    "full disk for standard output (4) or standard error.",
    "two at once": "The first command is stopped at a call, the second runs on the same output and "
    "cache, and then the first continues.",
    "images": "A folder of images that changes while an export reads it for calibration and validation. "
    "The bundle must be that of the images before or after the change, or cnnx refuses it. Later exports "
    "with the same cache must not differ.",
    "PostScript": "An EPS file named .jpg. Pillow alone starts Ghostscript for it (the first trial, as "
    "a control); cnnx refuses it and starts nothing.",
    "sensors": "Sensors that vanish, hang or lie while energy is measured (for 2.5 s instead of 30), or "
    "afterwards, while the cost of sampling is. Latency must be there, and energy or the reason for its "
    "absence.",
    "clock": "The wall clock jumps before or in the middle of a command: by an hour, by years, to 1970, "
    "1979, 2039 and 2120. Records dated in the future do not count, so verdicts may be missing until the "
    "clock is right again.",
    "dates of files": "All files dated 1969, 1970 or 2120. ZIP can store 1980 to 2107.",
}
"""What each group is, in the order of the page."""

_OUTRO = """## What stays

- After SIGKILL or a power cut, a draft may stay: a folder `.cnnx-XXXXXXXX.draft` in the folder that was
  written. The next command that writes there removes it, and the next one that opens the bundle finishes
  what was committed. A draft is not part of the folder's content.
- Temporary folders of a killed process stay in TMPDIR, with `cnnx-` in their names. The system clears them.
- On a disk that becomes read-only, drafts stay until it can be written again.
- `cnnx cache --prune` keeps what was used within a day if another process uses the cache. If you remove the
  cache with `rm`, commands that use it end with exit code 4.
- A killed `cnnx cache --prune` leaves steps with missing files. Whatever wants such a step sees that and
  makes it again.
- An image that changes while it is read ends an export with exit code 3. Images that were added are used by
  the next export.
- Records have the date of the machine. On a device whose clock has no battery, set it before you measure:
  records dated in the future do not count, and the newest verdict is the one with the latest date.
- A calibration.json that was changed under a fresh seal is read by `cnnx diagnose` alone, which refuses it
  unless the change has no effect (tests/pipeline/test_source.py). Only a signature tells who sealed a
  bundle ([trust.md](trust.md)).
- A signal ends a command within 5 s, even if a library does not return. A second signal ends it at once.

## Run it yourself

    python -m tools.check.faults --share 0.25

It needs a C compiler, PyTorch, and the right to mount (root, or user namespaces) for small disks. A stopped
run resumes; `--names "kills/*"` runs one group. The exit code is 1 if a trial is wrong. A small sample runs
in the test suite (tests/tools/check/test_faults.py)."""

_COLUMNS: Mapping[str, Callable[[Sequence[Record]], str]] = {
    "exit codes": lambda trials: _tally(each for trial in trials for each in _listed(trial["exit"])),
    "files as": lambda trials: _tally(trial["state"] for trial in trials if "state" in trial) or "-",
    "drafts left": lambda trials: _drafts(trials, "left"),
    "after the next run": lambda trials: _drafts(trials, "still_left"),
}


def in_words(record: Record) -> str:
    """A line about a new record."""
    wrong = [each for each in record["trials"] if each["wrong"]]
    first = f": {wrong[0]['at']} {wrong[0]['wrong'][0]}" if wrong else ""
    return f"{len(record['trials'])} trials, {len(wrong)} wrong{first}"[:240]


def write(found: Found) -> None:
    """Write the page."""
    groups = _groups(found)
    parts = [_INTRO, f"## Summary\n\n{_summary(groups, found)}", _effort(found), _BEFORE, _FOUND]
    parts += [_section(group, found) for group in groups]
    write_page(PAGE, "\n\n".join([*parts, _OUTRO, where_measured(found.values())]) + "\n")


def tables(found: Found) -> str:
    """The tables of all groups."""
    return "\n\n".join(f"{group}\n{_table(group, found)}" for group in _groups(found))


def _groups(found: Found) -> list[str]:
    return [group for group in _GROUPS if _counts(found, group)[0]]


def _of(found: Found, group: str) -> dict[str, Record]:
    return {name.split("/", 1)[1]: each for name, each in found.items() if name.split("/", 1)[0] == group}


def _counts(found: Found, group: str) -> list[int]:
    trials = [trial for record in _of(found, group).values() for trial in record["trials"]]
    return [len(trials), sum(bool(trial["wrong"]) for trial in trials)]


def _summary(groups: Sequence[str], found: Found) -> str:
    rows = [[group, *map(str, _counts(found, group))] for group in groups]
    return table(["fault", "trials", "wrong"], rows)


def _effort(found: Found) -> str:
    minutes = sum(record["cpu_seconds"] for record in found.values()) / 60
    sampled = sorted({record["share"] for record in found.values() if record["share"] < 1})
    share = (
        f" Where trials were sampled (`--share {sampled[0]:g}`), places are spread evenly over a run."
        if sampled
        else ""
    )
    return (
        f"All trials together took {minutes:.0f} minutes of processor time.{share} A command that is missing "
        "in a table was not tried with that fault."
    )


def _section(group: str, found: Found) -> str:
    return f"## {group[0].upper()}{group[1:]}\n\n{_GROUPS[group]}\n\n{_table(group, found)}"


def _table(group: str, found: Found) -> str:
    shown = _COLUMNS if group == "kills" else {key: _COLUMNS[key] for key in ("exit codes", "files as")}
    rows = [
        [
            f"`{name}`",
            str(len(record["trials"])),
            *(cell(record["trials"]) for cell in shown.values()),
            str(sum(bool(trial["wrong"]) for trial in record["trials"])),
        ]
        for name, record in _of(found, group).items()
    ]
    return table(["", "trials", *shown, "wrong"], rows, left=(0, 2, 3))


def _tally(values: Iterable[object]) -> str:
    counted = Counter(map(str, values))
    return ", ".join(f"{value} ({count})" for value, count in sorted(counted.items()))


def _drafts(trials: Sequence[Record], key: str) -> str:
    return str(sum(trial[key]["drafts"] + trial[key]["decided"] for trial in trials))


def _listed(value: object) -> Sequence[object]:
    return value if isinstance(value, list) else [value]
