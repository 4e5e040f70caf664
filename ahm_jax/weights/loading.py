"""Weights from elsewhere into our networks, and ours out by the names used there.

All or nothing, with a report.
"""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ahm_jax.errors import UserError
from ahm_jax.models.layers import EPSILON, variable_shapes
from ahm_jax.models.vgg16 import VGG16Trunk
from ahm_jax.runtime import trees
from ahm_jax.weights import files, names
from ahm_jax.weights.names import Entry

SHOWN = 3  # Names in a message, of however many there are.


class LoadedWeights(NamedTuple):
  """What was found for a network in a file."""

  variables: dict[
    str, Any
  ]  # {'params': ...} and where it has them 'batch_stats', of the layers that were taken alone.
  report: dict[
    str, Any
  ]  # For JSON: the file, the names taken, at_random, unused; and `parameters` taken.


def unet(path: Path, network: Any, shape: Sequence[int]) -> LoadedWeights:
  """A U-Net by the names of milesial/Pytorch-UNet, with its batch statistics; its head where it has
  as many outputs.

  Args:
    network: ours, for images of `shape` [1, S, S, C].

  Raises:
    UserError: names are missing or shapes differ; the first are listed, and nothing is loaded.
  """
  weights = _weights(path)
  if 'up1.up.weight' not in weights and 'up1.conv.double_conv.0.weight' in weights:
    raise UserError(
      f'{path} is a U-Net that enlarges bilinearly; ours learns to: give weights of UNet(..., bilinear=False)'
    )
  return match(path, _without_biases(weights), names.unet(), expected(network, shape))


def vgg16(path: Path, network: Any, shape: Sequence[int]) -> LoadedWeights:
  """A VGG16 by the names of torchvision or of Keras: its convolutions, and its dense layers up to
  the first that does not fit.

  Args:
    network: a VGG16 for images of `shape` [1, S, S, C], or a VGG16Trunk without norms, whose
      parameters are then found under 'trunk'. Norms of the file are folded into that one's
      convolutions, so that it computes what theirs does when in use.

  Raises:
    UserError: as for `unet`; or one of the file and the VGG16 has norms and the other has none.
  """
  weights = _without_biases(_weights(path))
  held, is_keras = (
    'batch' if 'features.1.running_mean' in weights else '',
    'block1_conv1/kernel' in weights,
  )
  if isinstance(network, VGG16Trunk):
    own = network.clone(norm=held)
    wanted = {part: {'trunk': arrays} for part, arrays in expected(own, shape).items()}
  else:
    if held != network.norm and (is_keras or 'features.0.weight' in weights):
      raise UserError(
        f'{path} is a VGG16 {"with" if held else "without"} batch normalisation, and nothing is loaded; '
        f'give --config.model.vgg_norm={held or repr(held)}, or weights of a VGG16 {"without" if held else "with"} it'
      )
    own, wanted = network, expected(network, shape)
  taken = match(
    path, weights, names.keras_vgg16() if is_keras else names.vgg16(own.width, own.norm), wanted
  )
  return taken if own.norm == network.norm else taken._replace(variables=_folded(taken.variables))


def expected(network: Any, shape: Sequence[int]) -> Any:
  """Shapes and dtypes of a network's variables, for images of `shape` [1, S, S, C]."""
  if isinstance(network, VGG16Trunk):
    return jax.eval_shape(lambda: network.init(jax.random.key(0), jnp.zeros(tuple(shape))))
  return variable_shapes(network, tuple(shape))


def match(
  path: Path, weights: Mapping[str, np.ndarray], entries: Sequence[Entry], wanted: Any
) -> LoadedWeights:
  """Takes the entries that `wanted`, a tree of shapes, has from foreign weights.

  Raises:
    UserError: see `unet`.
  """
  shapes = {name: tuple(leaf.shape) for name, leaf in trees.flatten(wanted).items()}
  entries = [entry for entry in entries if entry.ours in shapes]
  wrong = {entry.theirs: _problem(entry, weights, shapes[entry.ours]) for entry in entries}
  _refuse(
    path,
    [f'{name} {wrong[name]}' for name in (e.theirs for e in entries if not e.layer) if wrong[name]],
    len(entries),
  )
  unfit = _unfit_layers(entries, wrong)
  used = [entry for entry in entries if entry.layer not in unfit]
  flat = {}
  for entry in used:
    array = np.asarray(entry.layout.inward(weights[entry.theirs]), np.float32, order='C')
    if not np.isfinite(array).all():
      raise UserError(
        f'{path}: {entry.theirs} holds numbers that are not finite; nothing is loaded'
      )
    flat[entry.ours] = array
  left = [entry for entry in entries if entry.layer in unfit]
  at_random = {
    entry.theirs: wrong[entry.theirs] or 'belongs to a layer that does not fit' for entry in left
  }
  counted = {entry.theirs for entry in used}
  report = {
    'file': str(path),
    'parameters': sum(
      math.prod(shapes[entry.ours]) for entry in used if entry.ours.startswith('params/')
    ),
    'taken': [entry.theirs for entry in used],
    'at_random': at_random,
    'unused': sorted(
      name for name in weights if name not in counted and not name.endswith(names.COUNTER)
    ),
  }
  return LoadedWeights(trees.unflatten(flat), report)


def outward(variables: Any, entries: Sequence[Entry]) -> dict[str, np.ndarray]:
  """Our variables by foreign names.

  A network of fewer layers than `entries` has gives those it has.
  """
  flat = trees.flatten(variables)
  return {
    entry.theirs: entry.layout.outward(np.asarray(flat[entry.ours]))
    for entry in entries
    if entry.ours in flat
  }


def with_counters(arrays: Mapping[str, np.ndarray], step: int) -> dict[str, np.ndarray]:
  """With the counters that PyTorch's batch norms want, [] int64, each after its `running_var`."""
  found = {}
  for name, array in arrays.items():
    found[name] = array
    if name.endswith('.running_var'):
      found[name.replace('running_var', names.COUNTER)] = np.int64(step)
  return found


def with_zero_biases(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """With the biases, zeros, that convolutions before norms have in torchvision's VGG16 and not
  in ours.
  """
  kernels = {name: array for name, array in arrays.items() if array.ndim == 4}
  return {
    **arrays,
    **{
      name.replace('weight', 'bias'): np.zeros(len(kernel), np.float32)
      for name, kernel in kernels.items()
    },
  }


def lines(report: Mapping[str, Any]) -> list[str]:
  """A report for the user to read."""
  found = [
    f'{report["file"]}: {len(report["taken"])} arrays are taken, {report["parameters"]:,} parameters'
  ]
  if report['at_random']:
    name, why = next(iter(report['at_random'].items()))
    found.append(f'  at random as before: {len(report["at_random"])} arrays ({name} {why})')
  if report['unused']:
    shown = ', '.join(report['unused'][:SHOWN]) + (', ...' if len(report['unused']) > SHOWN else '')
    found.append(f'  of the file unused: {len(report["unused"])} arrays ({shown})')
  return found


def _weights(path: Path) -> dict[str, np.ndarray]:
  return {names.tidy(name): array for name, array in files.read(path).items()}


def _without_biases(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Biases before batch norms, as vgg16_bn and older U-Nets of milesial have, go off running
  means: the norm takes them out.
  """
  weights = dict(weights)
  for found in filter(None, [re.fullmatch(r'(.+)\.(\d+)\.bias', name) for name in weights]):
    mean = f'{found[1]}.{int(found[2]) + 1}.running_mean'
    if mean in weights and weights[mean].shape == weights[found[0]].shape:
      weights[mean] = weights[mean] - weights.pop(found[0])
  return weights


def _folded(variables: dict[str, Any]) -> dict[str, Any]:
  """A trunk's norms, by their running statistics, folded into the convolutions before them."""
  convolutions = {}
  for name, layer in variables['params']['trunk'].items():
    statistics = variables['batch_stats']['trunk'][name]['norm']
    factor = layer['norm']['scale'] / np.sqrt(statistics['var'] + EPSILON)
    convolutions[name] = {
      'kernel': layer['convolution']['kernel'] * factor,
      'bias': layer['norm']['bias'] - statistics['mean'] * factor,
    }
  return {'params': {'trunk': convolutions}}


def _problem(entry: Entry, weights: Mapping[str, np.ndarray], shape: tuple[int, ...]) -> str:
  """What is wrong with a foreign array, '' if nothing."""
  if entry.theirs not in weights:
    return 'is missing'
  theirs = entry.layout.outward(np.broadcast_to(np.float32(0), shape)).shape
  array = weights[entry.theirs]
  if array.shape != theirs:
    return f'is {trees.shape_text(array.shape)}, not {trees.shape_text(theirs)}'
  return '' if np.issubdtype(array.dtype, np.floating) else f'is of type {array.dtype}'


def _unfit_layers(entries: Sequence[Entry], wrong: Mapping[str, str]) -> set[str]:
  """The layers that stay as they are: the first of those that may be left out that does not fit,
  and all after it.
  """
  layers = list(dict.fromkeys(entry.layer for entry in entries if entry.layer))
  unfit = {entry.layer for entry in entries if entry.layer and wrong[entry.theirs]}
  first = next((index for index, layer in enumerate(layers) if layer in unfit), len(layers))
  return set(layers[first:])


def _refuse(path: Path, problems: Sequence[str], count: int) -> None:
  if problems:
    shown = '; '.join(problems[:SHOWN]) + ('; ...' if len(problems) > SHOWN else '')
    raise UserError(
      f'{path} does not fit, and nothing is loaded; of {count} arrays {len(problems)} are wrong: {shown}; '
      'give weights of the same architecture, widths and channels as the config'
    )
