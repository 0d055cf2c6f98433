"""`cnnx build`. Nothing heavy is imported before the command runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnnx.cli.options import BundlePath, command_of
from cnnx.options import EngineOptions

if TYPE_CHECKING:
    from cnnx.cli.ui import Ui


@command_of(EngineOptions)
def build_command(ui: Ui, bundle: BundlePath, options: EngineOptions) -> None:
    """Build engines from a bundle's graph and keep them in the bundle."""
    import cnnx
    from cnnx.cli.tables import print_engines

    result = cnnx.build(bundle, options, listener=ui.listen)
    ui.show(result, command="build", render=lambda out, _: print_engines(out, result.engines))
