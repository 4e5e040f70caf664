"""Batch normalisation that another network has and ours has not, or the other way round, without a
change of what is computed in use.
"""

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ahm_jax.models.layers import EPSILON
from ahm_jax.runtime.npz import Stored


def without_biases(weights: Mapping[str, Stored]) -> dict[str, Stored]:
  """A PyTorch state dict without biases of convolutions before batch norms, as vgg16_bn and older
  U-Nets of milesial have them: they go off the running means, since the norm takes them out.
  """
  kept = dict(weights)
  for name in weights:
    if not (found := re.fullmatch(r'(.+)\.(\d+)\.bias', name)):
      continue
    sequence, place = found.groups()
    mean = f'{sequence}.{int(place) + 1}.running_mean'
    if mean in kept and kept[mean].shape == kept[name].shape:
      reads = kept[mean].read, kept.pop(name).read
      kept[mean] = kept[mean]._replace(read=functools.partial(_difference, *reads))
  return kept


def _difference(mean: Callable[[], np.ndarray], bias: Callable[[], np.ndarray]) -> np.ndarray:
  return mean() - bias()


def with_zero_biases(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """A PyTorch state dict of a VGG16 with the biases, zeros, that its convolutions before norms have
  in torchvision and not here.
  """
  biases = {
    name.replace('weight', 'bias'): np.zeros(len(array), np.float32)
    for name, array in arrays.items()
    if array.ndim == 4
  }
  return {**arrays, **biases}


def folded(variables: Mapping[str, Any]) -> dict[str, Any]:
  """Variables of a trunk {'params': {'trunk'}, 'batch_stats': {'trunk'}} without norms: these, by
  their running statistics, are folded into the convolutions before them.
  """
  convolutions = {}
  for name, layer in variables['params']['trunk'].items():
    statistics = variables['batch_stats']['trunk'][name]['norm']
    factor = layer['norm']['scale'] / np.sqrt(statistics['var'] + EPSILON)
    convolutions[name] = {
      'kernel': layer['convolution']['kernel'] * factor,
      'bias': layer['norm']['bias'] - statistics['mean'] * factor,
    }
  return {'params': {'trunk': convolutions}}
