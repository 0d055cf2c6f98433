"""Says what a remedy is, and which command and recipe give a bundle with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cnnx.bundle import Bundle
from cnnx.options.shared import SourceOptions
from cnnx.pipeline.diagnose.command import export_command
from cnnx.pipeline.diagnose.findings import Advised, RemedyTrial
from cnnx.pipeline.search.changes import described, with_changes
from cnnx.pipeline.search.repair import unsearched
from cnnx.quant.remedies import Remedies
from cnnx.recipe import Recipe


def advised(
    trials: Sequence[RemedyTrial],
    place: int,
    *,
    reaches: bool,
    bundle: Bundle,
    recipe: Recipe,
    method: str,
    options: SourceOptions,
    images: int,
) -> Advised:
    """The advice to make one of these changes.

    Args:
        trials: what was tried, the bundle as it is first.
        place: which one is advised.
        reaches: whether it reaches the goal.
        bundle: the bundle.
        recipe: its recipe.
        method: its range method.
        options: where its sources are.
        images: number of images that it was tried on.
    """
    before, after = trials[0].likeness, trials[place].likeness
    remedies = trials[place].remedies
    reason = (
        f"cnnx diagnose: divergence {before.divergence:.2g} -> {after.divergence:.2g} nats with "
        f"{described(remedies)}, on {images} held-out images"
    )
    changed = with_changes(recipe, remedies, reason=reason)
    chosen = next((each.method for each in remedies if each.kind == "method"), method)
    lines = tuple(_recipe_lines(recipe, changed, remedies, reason))
    return Advised(
        what=described(remedies),
        place=place,
        reaches=reaches,
        command=export_command(bundle, changed, options, method=chosen, by_recipe=bool(lines)),
        recipe=lines,
    )


def _recipe_lines(recipe: Recipe, changed: Recipe, remedies: Remedies, reason: str) -> Iterator[str]:
    """The lines to add to a recipe for changes that no option makes.

    Layers that a search put back are in them, too: the advice builds on what it left.
    """
    kinds = {each.kind for each in remedies}
    if kinds & {"center", "rounding"}:
        yield "[precision]"
        yield from [f"center = {str(changed.precision.center).lower()}"] if "center" in kinds else ()
        yield from ['first_rounding = "smooth"'] if "rounding" in kinds else ()
        yield ""
    if kinds & {"fp16", "shortcuts"}:
        searched = len(unsearched(recipe).precision.overrides)
        for each in changed.precision.overrides[searched:]:
            yield from ("[[precision.overrides]]", f"match = {_quoted(each.match)}")
            yield from (f"precision = {_quoted(each.precision)}", f"reason = {_quoted(each.reason)}", "")
    for ranged in changed.calibration.overrides[len(recipe.calibration.overrides) :]:
        yield from ("[[calibration.overrides]]", f"match = {_quoted(ranged.match)}")
        yield from (f"method = {_quoted(ranged.method)}", f"reason = {_quoted(reason)}", "")


def _quoted(text: str) -> str:
    """A TOML string."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
