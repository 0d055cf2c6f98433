"""What subjects of one result are called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from cnnx.record import Subject


def names_of(subjects: Iterable[Subject], *, network: bool = False) -> dict[Subject, str]:
    """What to call each beside all the others of a result: as short as tells them apart.

    Args:
        subjects: that stand side by side, those without figures, too.
        network: say the network, too, where all are of one.
    """
    among = set(subjects)
    network = network or len({subject.network for subject in among}) > 1
    forms = {subject: _forms(subject, network=network) for subject in among}
    taken = Counter(form for several in forms.values() for form in several)
    return {
        subject: next((form for form in several if taken[form] == 1), several[-1])
        for subject, several in forms.items()
    }


def _forms(subject: Subject, *, network: bool) -> tuple[str, ...]:
    """From the shortest: artefact and precision, with the engine's identity, with the digest."""
    short = f"{f'{subject.network} ' if network else ''}{subject.artefact} {subject.precision}"
    engine = (f"{short} {subject.engine}",) if subject.engine else ()
    return short, *engine, f"{short} {subject.digest[:12]}"
