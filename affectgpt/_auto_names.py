"""Let transformers' Auto classes find this package's classes once it is imported, without importing torch for that.

transformers keeps the names of its own classes in tables and imports the module of a class when it is asked for. This package's
names are put beside them, and `transformers.models.affectgpt` leads here: the first look-up imports the class from this package,
whose `registration` then tells the Auto classes everything. The tables are filled as soon as transformers has loaded them,
whichever of the two packages is imported first.
"""

import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import PathFinder

_AUTO = "transformers.models.auto"
_TABLES_MODULE = f"{_AUTO}.auto_mappings"
# Modules that have a table, or a copy of it.
_MODULES = [
    f"{_AUTO}.{name}"
    for name in ("auto_mappings", "configuration_auto", "processing_auto", "image_processing_auto", "feature_extraction_auto")
]
_TABLES = {
    "SPECIAL_MODEL_TYPE_TO_MODULE_NAME": {"affectgpt_pooling": "affectgpt", "imagebind_audio": "affectgpt"},
    "CONFIG_MAPPING_NAMES": {
        "affectgpt": "AffectGPTConfig",
        "affectgpt_pooling": "AffectGPTPoolingConfig",
        "imagebind_audio": "ImageBindAudioConfig",
    },
    "PROCESSOR_MAPPING_NAMES": {"affectgpt": "AffectGPTProcessor"},
    "IMAGE_PROCESSOR_MAPPING_NAMES": {"affectgpt": {"pil": "AffectGPTImageProcessor"}},
    "FEATURE_EXTRACTOR_MAPPING_NAMES": {
        "affectgpt": "WaveformClipFeatureExtractor",
        "imagebind_audio": "ImageBindAudioFeatureExtractor",
    },
}


def _add_names(module) -> None:
    for table, names in _TABLES.items():
        if hasattr(module, table):
            getattr(module, table).update(names)


class _TablesLoader(Loader):
    """Runs the loader of transformers' tables, then adds to them."""

    def __init__(self, loader: Loader):
        self.loader = loader

    def create_module(self, spec):
        return self.loader.create_module(spec)

    def exec_module(self, module):
        self.loader.exec_module(module)
        _add_names(module)


class _TablesFinder(MetaPathFinder):
    def find_spec(self, fullname, path=None, target=None):
        if fullname != _TABLES_MODULE:
            return None
        spec = PathFinder.find_spec(fullname, path)
        if spec is not None:
            spec.loader = _TablesLoader(spec.loader)
        return spec


def announce(package: str) -> None:
    """Make the classes of `package` known by name, now or when transformers is imported. Calling it twice does nothing more."""
    sys.modules.setdefault("transformers.models.affectgpt", sys.modules[package])
    if _TABLES_MODULE in sys.modules:
        for name in _MODULES:
            if name in sys.modules:
                _add_names(sys.modules[name])
    elif not any(isinstance(finder, _TablesFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _TablesFinder())
