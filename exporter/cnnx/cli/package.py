"""The command `cnnx package`. Heavy imports happen when it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnnx.cli.options import BundlePath, command_of
from cnnx.options.bundles import PackageOptions

if TYPE_CHECKING:
    from cnnx.cli.ui import Ui


@command_of(PackageOptions)
def package_command(ui: Ui, bundle: BundlePath, options: PackageOptions) -> None:
    """Write a folder in which a C++ program, Triton, DeepStream or another consumer can use a bundle."""
    import cnnx

    ui.show(cnnx.write_package(bundle, options), command="package")
