"""Flat dicts of arrays as .safetensors or .npz.

Formats that can run code when they are opened are refused.
"""

import contextlib
import functools
import json
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ahm_jax.errors import UserError, cannot_read
from ahm_jax.runtime import json_files, npz
from ahm_jax.runtime.npz import Stored
from ahm_jax.weights import headers

_BROKEN = (zipfile.BadZipFile, zlib.error, struct.error, OverflowError)
SUFFIXES = ('.safetensors', '.npz')
_PYTORCH = (
  'in Python with PyTorch: import torch; from safetensors.torch import save_file; '
  "w = torch.load('FILE', weights_only=True); "
  "save_file({k: v.contiguous() for k, v in w.items() if hasattr(v, 'shape')}, 'FILE.safetensors')"
)
_KERAS = (
  'in Python with Keras and the model: import numpy; '
  "numpy.savez('FILE.npz', **{f'{w.path}': w.numpy() for w in model.weights})"
)
_OTHERS = {
  '.pt': _PYTORCH,
  '.pth': _PYTORCH,
  '.bin': _PYTORCH,
  '.ckpt': _PYTORCH,
  '.h5': _KERAS,
  '.keras': _KERAS,
}
# By launch/with_env, or by hand; jax2onnx by itself, since it asks for an Orbax older than ours.
_INSTALL = (
  "EXTRAS=interop launch/with_env ... installs it, or pip install -e '.[interop]'"
  ' and then, by itself, pip install --no-deps jax2onnx'
)


def is_weights(path: str) -> bool:
  """Whether a path names a file of weights, of a format that we read or not, and not a run."""
  return Path(path).suffix.lower() in (*SUFFIXES, *_OTHERS) and not Path(path).expanduser().is_dir()


def read(path: Path) -> dict[str, np.ndarray]:
  """The arrays in a file that we wrote, by name, as they are; raises as `opened` does."""
  with opened(path) as held:
    return {name: array.read() for name, array in held.items()}


@contextlib.contextmanager
def opened(path: Path) -> Iterator[dict[str, Stored]]:
  """The arrays in a file, by name, each of which can be read as long as the context lasts.

  Raises:
    UserError: there is no such file, it is of another format or damaged, or cannot be read.
  """
  path = Path(path).expanduser()
  suffix = path.suffix.lower()
  if suffix not in SUFFIXES:
    how = _OTHERS.get(suffix, '').replace(
      'FILE', path.stem if suffix in ('.h5', '.keras') else str(path)
    )
    raise UserError(f'{path} is neither .safetensors nor .npz; convert it{how and ", "}{how}')
  if not path.is_file():
    raise UserError(f'{path}: there is no such file; give weights as .safetensors or .npz')
  with contextlib.ExitStack() as stack:
    with _told(path):
      file = stack.enter_context(path.open('rb'))
      found = headers.safetensors(file) if suffix == '.safetensors' else npz.arrays(file)
    yield {
      name: stored._replace(read=functools.partial(_read, path, stored))
      for name, stored in found.items()
    }


def metadata(path: Path) -> dict[str, str]:
  """The texts that a file holds beside its arrays, as `write` puts them there; empty where it holds
  none, or something else. Raises as `opened` does.
  """
  path = Path(path).expanduser()
  with _told(path), path.open('rb') as file:
    if path.suffix.lower() == '.safetensors':
      told = headers.metadata(file)
    else:
      try:
        told = json_files.parse(npz.comment(file))
      except ValueError:  # A comment may be any text.
        told = None
  return told if _are_texts(told) else {}


def _are_texts(told: Any) -> bool:
  return isinstance(told, dict) and all(isinstance(value, str) for value in told.values())


def _read(path: Path, stored: Stored) -> np.ndarray:
  with _told(path):
    return stored.read()


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
  try:
    yield
  except OSError as error:
    raise UserError(cannot_read(path, error)) from error
  # What a damaged archive sets off; RuntimeErrors are of encryption.
  except (ValueError, EOFError, LookupError, RuntimeError, *_BROKEN) as error:
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    raise UserError(f'{path} cannot be read ({line[:120]}); save it again') from error


def write(path: Path, arrays: Mapping[str, np.ndarray], texts: Mapping[str, str]) -> None:
  """Writes a new file, and reads it back.

  Args:
    texts: go into the header of .safetensors, or the comment of .npz, an archive, which NumPy does
      not look at.

  Raises:
    UserError: a package is missing, or the file does not hold what was written.
  """
  arrays = {name: np.array(array, order='C') for name, array in arrays.items()}
  if path.suffix == '.npz':
    np.savez(path, allow_pickle=False, **arrays)
    if texts:
      with zipfile.ZipFile(path, 'a') as archive:
        archive.comment = json.dumps(dict(texts)).encode()
  else:
    safetensors_numpy().save_file(arrays, path, metadata=dict(texts))
  held = read(path)
  alike = held.keys() == arrays.keys() and all(
    _same(held[name], array) for name, array in arrays.items()
  )
  if not alike or metadata(path) != texts:
    raise UserError(f'{path} does not hold what was written; write it to another disk')


def _same(one: np.ndarray, other: np.ndarray) -> bool:
  alike = (one.shape, one.dtype) == (other.shape, other.dtype)
  return alike and one.tobytes() == other.tobytes()  # NaN too.


def safetensors_numpy():
  """The module `safetensors.numpy`; raises a UserError where it is not installed."""
  try:
    import safetensors.numpy
  except ImportError as error:
    raise missing('.safetensors', 'safetensors') from error
  return safetensors.numpy


def missing(what: str, package: str) -> UserError:
  """Says that `what` needs a package, and how to install it."""
  return UserError(f'{what} needs the package {package}, which is not installed; {_INSTALL}')
