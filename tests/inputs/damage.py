"""Mutations of plain data: every key path of a file, with each way a value can be wrong."""

UNKNOWN = "strange_key"
WRONG = (
    None, True, -1, 2**62, 10**30, 1.5, float("nan"), "", "x" * 10_000,
    "../a\x00b", "\ud800", [[]], {"x": {}},
)  # fmt: skip
"""Values that stand where others should."""


def paths(data, above=()):
    """Every key and place in plain data, as the way to it; of long lists the ends."""
    if isinstance(data, dict):
        items = list(data.items())
    elif isinstance(data, list):
        items = [(place, data[place]) for place in sorted({0, len(data) - 1}) if data]
    else:
        return
    for key, value in items:
        yield (*above, key)
        yield from paths(value, (*above, key))


def mutations(data, wrong=WRONG):
    """(path, what was done, data so mutated): a key deleted, a value replaced, an unknown key added.

    It is the same data each time, mutated in place and put right again afterwards.
    """
    for path in list(paths(data)):
        table, key = _at(data, path[:-1]), path[-1]
        before = table[key]
        for value in wrong:
            table[key] = value
            yield path, f"{value!r:.30}", data
        if isinstance(table, dict):
            order = dict(table)
            del table[key]
            yield path, "deleted", data
            table.clear()
            table.update(order)
        table[key] = before
    for path in [(), *paths(data)]:
        if isinstance(table := _at(data, path), dict):
            table[UNKNOWN] = 1
            yield (*path, UNKNOWN), "added", data
            del table[UNKNOWN]


def _at(data, path):
    for key in path:
        data = data[key]
    return data
