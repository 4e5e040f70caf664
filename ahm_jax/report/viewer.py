"""The report's viewer: held-out images with what each network made of them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ahm_jax.data import resize
from ahm_jax.report import overlays
from ahm_jax.report.pictures import PREDICTION_COLOUR, TRUTH_COLOUR, data_uri

# Name of a layer, its title, and whether it is there without a pre-training. Their order is that of
# the keys 1 to 7.
LAYERS = (
  ('image', 'Image', True),
  ('policy', 'Policy map', False),
  ('hidden', 'Masked patches', False),
  ('reconstruction', 'Reconstruction', False),
  ('prediction', 'Prediction', True),
  ('truth', 'Truth', True),
  ('error', 'Error', True),
)
START = 'error'


class Masking(NamedTuple):
  """What a pre-training made of an image, as `pictures.Example` has it."""

  policy: np.ndarray
  hidden: np.ndarray
  reconstruction: np.ndarray


@dataclass(frozen=True, eq=False)
class Made:
  """What one network made of an image.

  Attributes:
    prediction: bool [h, w] at the image's own resolution; with classes uint8 [h, w].
    dice: of prediction and truth; nan where both are empty.
    masking: what its pre-training made of the image; None without one.
  """

  prediction: np.ndarray
  dice: float
  masking: Masking | None = None


@dataclass(frozen=True)
class Viewer:
  """What the page shows.

  Attributes:
    runs: names of the networks, the one shown first last.
    labels: number of labelled images that they were trained with, 0 for all.
    seed: theirs.
    modalities: names of the channels, where images have them, each of which is a layer.
    entries: of `entry`, one an image, the likeliest to be wanted first.
    count: how many images the split has.
  """

  runs: Sequence[str]
  labels: int
  seed: int
  entries: Sequence[Mapping[str, Any]]
  count: int
  modalities: Sequence[str] = ()

  @property
  def layers(self) -> Sequence[tuple[str, str, bool]]:
    """As LAYERS, with those of modalities."""
    return *LAYERS, *((_modality(k), name, True) for k, name in enumerate(self.modalities))


def _modality(k: int) -> str:
  """Name of the layer of channel k."""
  return f'modality{k}'


def chosen(dice: Sequence[float], count: int, seed: int = 0) -> list[int]:
  """Places of `count` images: by turns the one of the lowest Dice and one at random, so that any
  first part is such a choice.

  Images without Dice (nan) are only drawn at random.
  """
  scored = [i for i in range(len(dice)) if math.isfinite(dice[i])]
  worst = iter(sorted(scored, key=lambda i: dice[i]))
  drawn = iter(np.random.default_rng(seed).permutation(len(dice)).tolist())
  taken: dict[int, None] = {}
  while len(taken) < min(count, len(dice)):
    source = drawn if len(taken) % 2 else worst
    new = next((i for i in source if i not in taken), None)
    if new is None:
      new = next(i for i in drawn if i not in taken)
    taken[new] = None
  return list(taken)


def entry(
  name: str,
  image: np.ndarray,
  truth: np.ndarray,
  made: Sequence[tuple[str, Made]],
  modalities: Sequence[str] = (),
) -> dict[str, Any]:
  """What the page holds of one image.

  Args:
    name: the image's.
    image: uint8 [S, S, C].
    truth: bool [h, w] at its own resolution; with classes uint8 [h, w].
    made: by the names of the networks, in the order of the viewer's runs.
    modalities: names of the channels, where they have them.

  Returns:
    'name', 'width', 'height'; 'image', a data URI; 'layers', those that all share; 'runs', for each
    'dice' (None: not defined) and 'layers'. A layer has 'alt', what one sees in words; 'over', a
    picture to lay over the image; 'base', another image.
  """
  height, width = truth.shape
  share = share_of(truth)
  return {
    'name': name,
    'width': width,
    'height': height,
    'image': _jpeg(image),
    'layers': {
      'image': {'alt': f'Image {name}, {width} by {height} pixels.'},
      'truth': {
        'alt': f'The true mask on image {name}: {share}.',
        'over': overlays.mask_layer(truth, TRUTH_COLOUR),
      },
      **{
        _modality(k): {'alt': f'{modality} of image {name}.', 'base': _jpeg(image[..., k : k + 1])}
        for k, modality in enumerate(modalities)
      },
    },
    'runs': [_run(name, run, truth, single) for run, single in made],
  }


def _run(name: str, run: str, truth: np.ndarray, made: Made) -> dict[str, Any]:
  layers = {} if made.masking is None else _masking_layers(name, run, made.masking)
  layers['prediction'] = {
    'alt': f'What {run} found in image {name}: {share_of(made.prediction)}.',
    'over': overlays.mask_layer(made.prediction, PREDICTION_COLOUR),
  }
  layers['error'] = {
    'alt': f'Where {run} is wrong in image {name}: {error_of(made.prediction, truth)}.',
    'over': overlays.error_layer(made.prediction, truth),
  }
  return {
    'dice': round(float(made.dice), 4) if math.isfinite(made.dice) else None,
    'layers': layers,
  }


def _masking_layers(name: str, run: str, masking: Masking) -> dict[str, Any]:
  policy, hidden, reconstruction = masking
  share = f'{100 * hidden.mean():.0f} % of the patches are masked (grey)'
  return {
    'policy': {
      'alt': (
        f'How likely {run} is to mask each patch of image {name}: '
        f'from {policy.min():.2f} to {policy.max():.2f}.'
      ),
      'over': overlays.policy_layer(policy),
    },
    'hidden': {
      'alt': f'One mask that {run} sampled for image {name}: {share}.',
      'over': overlays.hidden_layer(hidden),
    },
    'reconstruction': {
      'alt': f'Image {name} with the masked patches reconstructed by the U-Net of {run}.',
      'base': _jpeg(reconstruction),
    },
  }


def share_of(mask: np.ndarray) -> str:
  """How much of its image a mask [h, w] covers, in words."""
  return f'{_percent(mask > 0)} of it' if mask.any() else 'nothing'


def error_of(prediction: np.ndarray, truth: np.ndarray) -> str:
  """How a mask differs from the true one, in words; both as `Made` and `entry` have them."""
  found, there = prediction > 0, truth > 0
  if not (found | there).any():
    return 'nowhere, there is no lesion and none was found'
  parts = [
    f'{_percent(found & ~there)} of it found but not there',
    f'{_percent(there & ~found)} missed',
  ]
  if prediction.dtype != bool:
    parts.append(f'{_percent(found & there & (prediction != truth))} taken for another class')
  return ', '.join(parts)


def _percent(mask: np.ndarray) -> str:
  return f'{100 * mask.mean():.1f} %'


def _jpeg(image: np.ndarray) -> str:
  """An image of the network's size, [S, S, C]; the page stretches it to its own shape."""
  picture = resize.picture(image)
  picture.thumbnail((overlays.SIDE, overlays.SIDE))
  return data_uri(np.asarray(picture))
