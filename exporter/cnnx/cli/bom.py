"""The command `cnnx bom`. Heavy imports happen when it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnnx.cli.options import BundlePath, command_of
from cnnx.options.bundles import BomOptions

if TYPE_CHECKING:
    from cnnx.cli.ui import Ui


@command_of(BomOptions)
def bom_command(ui: Ui, bundle: BundlePath, options: BomOptions) -> None:
    """Write a bill of materials: CycloneDX 1.6, with a model card; also what a registry needs."""
    import cnnx

    ui.show(cnnx.bom(bundle, options), command="bom")
