"""What a checkpoint of strangers claims, which is held against its files and against the network
before anything is allocated for it. All raise a ValueError that says what is wrong.
"""

import math
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ahm_jax.runs import array_headers
from ahm_jax.runtime import json_files, trees
from ahm_jax.weights import headers

MOST = 2**16  # Of a number in config.json.
_RATIO = 4  # Bytes that a network may take for each in its files, which may be of half precision.
_REPEATED = ('num_hidden_layers', 'iou_head_depth', 'num_multimask_outputs', 'num_pos_feats')


def config(path: Path) -> Any:
  """What a config.json holds."""
  held = json_files.parse(json_files.read_bytes(path) or b'')
  for name, value in _numbers(held):
    if abs(value) > MOST:
      raise ValueError(f'{path.name} has {name} = {value:.3g}, more than {MOST}')
  return held


def _numbers(held: Any, name: str = '') -> Iterator[tuple[str, float]]:
  if isinstance(held, dict):
    for inner, value in held.items():
      yield from _numbers(value, inner)
  elif isinstance(held, list):
    for value in held:
      yield from _numbers(value, name)
  elif isinstance(held, int | float):
    yield name, held


def check_folder(path: Path, wanted: Callable[[Any], Mapping[str, tuple[int, ...]]]) -> None:
  """Checks the .safetensors in a folder against its config.json, and these against each other.

  Args:
    wanted: (config) -> shapes of a network of that config, by name.
  """
  held: dict[str, tuple[int, ...]] = {}
  total = 0
  for place in sorted(path.glob('*.safetensors')):
    total += place.stat().st_size
    with place.open('rb') as file:
      held |= {name: stored.shape for name, stored in headers.safetensors(file).items()}
  told = config(path / 'config.json')
  for name, value in _numbers(told):
    if name in _REPEATED and value > max(len(held), 256):
      raise ValueError(f'config.json has {name} = {value:.3g}, and there are {len(held)} arrays')
  shapes = wanted(told)
  claimed = sum(4 * math.prod(shape) for shape in shapes.values())
  array_headers.check_total(claimed, total, _RATIO, 'its config.json asks for')


def check_archive(path: Path) -> None:
  """Makes sure that a .pth, if it is an archive, does not inflate: PyTorch compresses nothing."""
  if not zipfile.is_zipfile(path):
    return
  with zipfile.ZipFile(path) as archive:
    inflated = sum(member.file_size for member in archive.infolist())
  if inflated > path.stat().st_size:
    raise ValueError(f'it is an archive that inflates to {inflated:.1e} bytes')


def check_tensors(
  tensors: Mapping[str, Any], wanted: Mapping[str, tuple[int, ...]] | None = None
) -> None:
  """Makes sure that tensors have the numbers that their shapes promise, and the wanted shapes."""
  for name, tensor in tensors.items():
    if str(tensor.layout) != 'torch.strided':
      raise ValueError(f'{name} is not a dense tensor')
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
      raise ValueError(f'{name} has fewer numbers than its shape says')
  for name, shape in (wanted or {}).items():
    if name not in tensors:
      raise ValueError(f'{name} is missing')
    if tuple(tensors[name].shape) != shape:
      found = trees.shape_text(tensors[name].shape)
      raise ValueError(f'{name} is {found}, not {trees.shape_text(shape)}')
