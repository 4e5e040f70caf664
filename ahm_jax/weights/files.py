"""Flat dicts of arrays as .safetensors or .npz.

Formats that can run code when they are opened are refused.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ahm_jax.errors import UserError

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
  """The arrays in a file, by name, as they are.

  Raises:
    UserError: there is no such file, it is of another format or damaged, or a package is missing.
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
  try:
    return _read_safetensors(path) if suffix == '.safetensors' else _read_npz(path)
  except (OSError, ValueError, EOFError, KeyError, TypeError, zipfile.BadZipFile) as error:
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    raise UserError(f'{path} cannot be read ({line[:120]}); save it again') from error


def write(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
  """Writes a new file; `metadata`, texts, goes into the header of .safetensors."""
  arrays = {name: np.array(array, order='C') for name, array in arrays.items()}
  if path.suffix == '.npz':
    np.savez(path, allow_pickle=False, **arrays)
  else:
    safetensors_numpy().save_file(arrays, path, metadata=dict(metadata))


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


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
  numpy = safetensors_numpy()
  import safetensors

  try:
    return numpy.load_file(path)
  except safetensors.SafetensorError as error:
    raise ValueError(str(error)) from error


def _read_npz(path: Path) -> dict[str, np.ndarray]:
  with path.open('rb') as file:
    stored = np.load(file, allow_pickle=False)
    if not isinstance(stored, np.lib.npyio.NpzFile):
      raise ValueError('it is a single array')
    found = {name: stored[name] for name in stored.files}
  for name, array in found.items():
    if not isinstance(array, np.ndarray):  # Of what is no array, NumPy gives the bytes.
      raise ValueError(f'{name} is no array')
  return found
