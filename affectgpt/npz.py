"""Reading .npz files that hold Python objects, as the authors' do, without letting a file run code.

`numpy.load` reads such arrays only with `allow_pickle`, and then a file may run anything.
"""

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np


def read_npz(path: str | Path) -> dict[str, np.ndarray]:
    """All arrays of an .npz by name; objects in them may be dictionaries, lists, tuples, strings and numbers, and nothing else.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: naming the file, if it is no .npz or holds other objects.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy"): _read_array(archive, name) for name in archive.namelist()}
    except (zipfile.BadZipFile, ValueError, EOFError, AttributeError, pickle.UnpicklingError) as error:
        raise ValueError(f"Expected an .npz of plain data in {path}, could not read it ({error}).") from error


def _read_array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    with archive.open(name) as file:
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        _, _, dtype = read_header(file)
        if dtype.hasobject:
            return np.asarray(_PlainUnpickler(file).load(), dtype=object)
    with archive.open(name) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


class _PlainUnpickler(pickle.Unpickler):
    """Reads plain containers, texts and numbers inside a numpy array; a pickle that asks for more is an error."""

    _ALLOWED = {
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy.core.multiarray", "scalar"),
        ("numpy._core.multiarray", "scalar"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
    }

    def find_class(self, module: str, name: str) -> Callable:
        if (module, name) in self._ALLOWED:
            return super().find_class(module.replace("numpy.core.", "numpy._core."), name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which plain data does not need")
