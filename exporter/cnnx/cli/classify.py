"""The command `cnnx classify`. Heavy imports happen when it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cnnx.cli.options import BundlePath, command_of
from cnnx.options.bundles import ClassifyOptions

if TYPE_CHECKING:
    from cnnx.cli.ui import Ui

Images = Annotated[
    list[str],
    typer.Argument(metavar="IMAGE...", help="Images, folders of images, videos, or camera:0."),
]


@command_of(ClassifyOptions)
def classify_command(ui: Ui, bundle: BundlePath, images: Images, options: ClassifyOptions) -> None:
    """Classify images with a bundle, on whichever runtime is available here."""
    import cnnx

    ui.show(cnnx.classify(bundle, images, options, listener=ui.listen), command="classify")
