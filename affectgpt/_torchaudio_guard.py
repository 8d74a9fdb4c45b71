"""Let a CPU build of torch live beside PyPI's torchaudio, which is a CUDA build.

transformers imports torchaudio wherever it finds it installed, and torchaudio 2.11 loads its compiled extension on import: beside
a torch without CUDA, or with another CUDA version, that raises `OSError` or `RuntimeError` and takes all of transformers with it.
What this project uses of torchaudio (`functional.resample`) is plain Python, so the extension is left out where it cannot load.
The guard costs nothing until torchaudio is imported, and must be in place before that: import `affectgpt` before `transformers`.
"""

import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import PathFinder


class _ExtensionLoader(Loader):
    """Runs torchaudio's own loader and, where the compiled part cannot load, leaves the names its Python part imports."""

    def __init__(self, loader: Loader):
        self.loader = loader

    def create_module(self, spec):
        return self.loader.create_module(spec)

    def exec_module(self, module):
        try:
            self.loader.exec_module(module)
        except (OSError, RuntimeError):
            module._IS_TORCHAUDIO_EXT_AVAILABLE = False
            module._IS_ALIGN_AVAILABLE = False
            module.fail_if_no_align = lambda function: function


class _ExtensionFinder(MetaPathFinder):
    def find_spec(self, fullname, path=None, target=None):
        if fullname != "torchaudio._extension":
            return None
        spec = PathFinder.find_spec(fullname, path)
        if spec is not None:
            spec.loader = _ExtensionLoader(spec.loader)
        return spec


def guard_torchaudio() -> None:
    """Make a later `import torchaudio` safe in this process. Calling it twice does nothing more."""
    if not any(isinstance(finder, _ExtensionFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _ExtensionFinder())
