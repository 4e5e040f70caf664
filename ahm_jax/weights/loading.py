"""Weights that others have trained, into our networks: all that must fit or nothing, with a
report.
"""

import contextlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ahm_jax.errors import UserError, first
from ahm_jax.models.layers import variable_shapes
from ahm_jax.models.unet import UNet
from ahm_jax.models.vgg16 import VGG16, VGG16Trunk
from ahm_jax.runtime import trees
from ahm_jax.runtime.npz import Stored
from ahm_jax.weights import files, inputs, names, norms
from ahm_jax.weights.headers import FLOATS
from ahm_jax.weights.names import Entry

SHOWN = 3  # Names in a message, of however many there are.

# Kernels that see images, ours [3, 3, channels, features]; those of other channels are taken too.
_FIRST = ('params/encoder1/first/convolution/kernel', 'params/trunk/conv1_1/kernel')

Weights = Mapping[str, Stored]  # By foreign names.


class LoadedWeights(NamedTuple):
  """What was found for a network in a file.

  Attributes:
    variables: {'params': ...} and where it has them 'batch_stats', of the layers that were taken
      alone.
    report: for JSON: 'file', its path; 'parameters', how many were taken; 'taken', foreign names;
      'at_random', those of layers that keep their random start, and why; 'unused', names of the
      file that nothing was taken of; 'adapted', what became of a first layer that sees other
      channels, '' where it sees ours; of a VGG16 also what `inputs.check` returns.
  """

  variables: dict[str, Any]
  report: dict[str, Any]


# Networks.


def unet(path: Path, network: UNet, shape: Sequence[int], adapt: bool = False) -> LoadedWeights:
  """A U-Net by the names of milesial/Pytorch-UNet, with its batch statistics; its head where it has
  as many outputs.

  Args:
    network: ours, for images of `shape` [1, S, S, C].
    adapt: take weights of a first layer that sees other channels too, as its sum over them.

  Raises:
    UserError: names are missing or shapes differ; the first are listed, and nothing is loaded.
  """
  with _opened(path) as weights:
    if 'up1.up.weight' not in weights and 'up1.conv.double_conv.0.weight' in weights:
      raise UserError(
        f'{path} is a U-Net that enlarges bilinearly; ours learns to: give weights of UNet(..., '
        'bilinear=False)'
      )
    return match(path, weights, names.unet(), variable_shapes(network, tuple(shape)), adapt)


def vgg16(path: Path, network: VGG16, shape: Sequence[int], adapt: bool = False) -> LoadedWeights:
  """A VGG16 by the names of torchvision or of Keras: its convolutions, and its dense layers up to
  the first that does not fit.

  Args:
    network, adapt: as for `unet`.

  Raises:
    UserError: as for `unet`; one of the file and the network has norms and the other has none; or
      they see images that are scaled in different ways.
  """
  with _opened(path) as weights:
    norm = _vgg16_norm(weights)
    if norm != network.norm and _is_vgg16(weights):
      own, other = ('with', 'without') if norm else ('without', 'with')
      raise UserError(
        f'{path} is a VGG16 {own} batch normalisation, and nothing is loaded; give '
        f'--config.model.vgg_norm={norm or repr(norm)}, or weights of a VGG16 {other} it'
      )
    return _vgg16(path, weights, network, variable_shapes(network, tuple(shape)), adapt)


def vgg16_trunk(
  path: Path, trunk: VGG16Trunk, shape: Sequence[int], adapt: bool = False
) -> LoadedWeights:
  """The first stages of a VGG16 by the names of torchvision or of Keras, under 'trunk'.

  Norms of the file are folded into the convolutions, which then compute what theirs do in use.

  Args:
    trunk: ours, without norms, for images of `shape` [1, S, S, C].
    adapt: as for `unet`.

  Raises:
    UserError: as for `vgg16`, norms aside.
  """
  with _opened(path) as weights:
    norm = _vgg16_norm(weights)
    trunk = trunk.clone(norm=norm)
    wanted = variable_shapes(trunk, tuple(shape))
    wanted = {part: {'trunk': shapes} for part, shapes in wanted.items()}
    loaded = _vgg16(path, weights, trunk, wanted, adapt)
  return loaded._replace(variables=norms.folded(loaded.variables)) if norm else loaded


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Weights]:
  with files.opened(path) as held:
    times = Counter(map(names.tidy, held))
    # Of several that would be called alike none is: which one is meant is not known.
    yield norms.without_biases(
      {
        tidied if times[tidied := names.tidy(name)] == 1 else name: stored
        for name, stored in held.items()
      }
    )


def _vgg16(
  path: Path, weights: Weights, network: VGG16 | VGG16Trunk, wanted: Any, adapt: bool
) -> LoadedWeights:
  seen = {}
  if _is_vgg16(weights):
    seen = inputs.check(path, weights, files.metadata(path), network.input)
  if names.FIRST_KERAS in weights:
    entries = names.keras_vgg16(network.input)
  else:
    entries = names.vgg16(network.width, network.norm, network.input)
  loaded = match(path, weights, entries, wanted, adapt)
  return loaded._replace(report={**loaded.report, **seen})


def _is_vgg16(weights: Weights) -> bool:
  return names.FIRST_KERAS in weights or names.FIRST_TORCHVISION in weights


def _vgg16_norm(weights: Weights) -> str:
  """As `VGG16.norm`."""
  return 'batch' if 'features.1.running_mean' in weights else ''


# Matching.


def match(
  path: Path, weights: Weights, entries: Sequence[Entry], wanted: Any, adapt: bool = False
) -> LoadedWeights:
  """Takes the entries that `wanted`, a tree of shapes, has from foreign weights.

  Raises:
    UserError: see `unet`.
  """
  shapes = {name: tuple(leaf.shape) for name, leaf in trees.flatten(wanted).items()}
  entries = [entry for entry in entries if entry.ours in shapes]
  adapted = {
    entry: _adapted(entry, weights, shapes[entry.ours])
    for entry in entries
    if adapt and entry.ours in _FIRST and entry.theirs in weights
  }
  problems = {
    entry: '' if adapted.get(entry) else _problem(entry, weights, shapes[entry.ours])
    for entry in entries
  }
  _refuse(path, [entry for entry in entries if problems[entry] and not entry.layer], problems)
  left = _left_layers(problems)
  taken = [entry for entry in entries if entry.layer not in left]
  flat = {entry.ours: _array(path, weights, entry) for entry in taken}
  for entry in filter(adapted.get, adapted):
    flat[entry.ours] = _of_channels(flat[entry.ours], shapes[entry.ours][2])
  at_random = {
    entry.theirs: problem or 'belongs to a layer that does not fit'
    for entry, problem in problems.items()
    if entry.layer in left
  }
  report = _report(path, weights, taken, at_random, flat)
  said = next(filter(None, adapted.values()), '')
  return LoadedWeights(trees.unflatten(flat), {**report, 'adapted': said})


def _problem(entry: Entry, weights: Weights, shape: tuple[int, ...]) -> str:
  """What is wrong with a foreign array, '' if nothing."""
  if entry.theirs not in weights:
    return 'is missing'
  theirs = entry.layout.outward(np.broadcast_to(np.float32(0), shape)).shape
  array = weights[entry.theirs]
  if array.shape != theirs:
    return f'is {trees.shape_text(array.shape)}, not {trees.shape_text(theirs)}'
  return '' if array.dtype in FLOATS else f'is of type {array.dtype}'


def _refuse(path: Path, wrong: Sequence[Entry], problems: Mapping[Entry, str]) -> None:
  """Raises a UserError if there are wrong entries that must fit."""
  if wrong:
    shown = '; '.join(f'{entry.theirs} {problems[entry]}' for entry in wrong[:SHOWN])
    more = '; ...' if len(wrong) > SHOWN else ''
    raise UserError(
      f'{path} does not fit, and nothing is loaded; of {len(problems)} arrays {len(wrong)} are '
      f'wrong: {shown}{more}; give weights of the same architecture, widths and channels as the '
      'config'
    )


def _left_layers(problems: Mapping[Entry, str]) -> set[str]:
  """The layers that keep their random start: of those that may, the first that does not fit, and
  all after it.
  """
  layers = list(dict.fromkeys(entry.layer for entry in problems if entry.layer))
  wrong = [layers.index(entry.layer) for entry, problem in problems.items() if problem]
  return set(layers[min(wrong) :]) if wrong else set()


def _adapted(entry: Entry, weights: Weights, shape: tuple[int, ...]) -> str:
  """What is to be said of a first layer that sees other channels than ours, of this shape; '' where
  it sees as many, or differs in more.
  """
  array = weights[entry.theirs]
  if len(array.shape) != 4 or array.dtype not in FLOATS:
    return ''
  found = entry.layout.inward(np.broadcast_to(np.float32(0), array.shape)).shape
  if found[2] in (0, shape[2]) or (*found[:2], found[3]) != (*shape[:2], shape[3]):
    return ''
  return (
    f'{entry.theirs} sees {found[2]} channels and ours {shape[2]}: each of ours gets the mean of '
    'its weights, scaled to the same sum'
  )


def _of_channels(kernel: np.ndarray, channels: int) -> np.ndarray:
  """A kernel [H, W, in, out] for so many channels, which gives for equal ones what it gave."""
  return np.repeat(kernel.sum(2, keepdims=True) / np.float32(channels), channels, axis=2)


def _array(path: Path, weights: Weights, entry: Entry) -> np.ndarray:
  with np.errstate(over='ignore'):  # What is too large for float32 is refused below.
    array = np.asarray(entry.layout.inward(weights[entry.theirs].read()), np.float32, order='C')
  if not np.isfinite(array).all():
    raise UserError(f'{path}: {entry.theirs} holds numbers that are not finite; nothing is loaded')
  return array


# Report.


def _report(
  path: Path,
  weights: Weights,
  taken: Sequence[Entry],
  at_random: Mapping[str, str],
  flat: Mapping[str, np.ndarray],
) -> dict[str, Any]:
  used = [entry.theirs for entry in taken]
  unused = {name for name in weights if not name.endswith(names.COUNTER)} - set(used)
  return {
    'file': str(path),
    'parameters': sum(
      math.prod(array.shape) for name, array in flat.items() if name.startswith('params/')
    ),
    'taken': used,
    'at_random': dict(at_random),
    'unused': sorted(unused),
  }


def lines(report: Mapping[str, Any]) -> list[str]:
  """A report for the user to read."""
  taken, at_random, unused = report['taken'], report['at_random'], report['unused']
  found = [f'{report["file"]}: {len(taken)} arrays loaded, {report["parameters"]:,} parameters']
  if adapted := report.get('adapted'):
    found.append(f'  {adapted}')
  if 'input' in report:
    found.append(f'  they see images scaled as {report["input"]}, by {report["input_known_by"]}')
  if at_random:
    name, why = next(iter(at_random.items()))
    found.append(f'  {len(at_random)} arrays stay at their random start ({name} {why})')
  if unused:
    found.append(f'  {len(unused)} arrays of the file are not used ({first(unused, SHOWN)})')
  return found
