import importlib
import pkgutil
from importlib import metadata

import cnnx


def test_no_module_takes_the_name_of_a_verb():
    """Importing cnnx.x would replace the function cnnx.x by the module, from then on."""
    modules = {module.name for module in pkgutil.iter_modules(cnnx.__path__)}
    assert modules.isdisjoint(cnnx.__all__)


def test_every_public_name_is_there_and_documented():
    for name in cnnx.__all__:
        assert getattr(cnnx, name).__doc__, name
    assert set(cnnx.__all__) <= set(dir(cnnx))
    assert cnnx.__version__ == metadata.version("cnnx") and "__version__" in dir(cnnx)
    importlib.import_module("cnnx.cli")
