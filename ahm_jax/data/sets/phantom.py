"""Dermoscopy phantoms: skin lesions drawn from a seed, with exact masks and classes.

An image is built as light meets skin (Beer-Lambert law): each pigment adds optical density to what
lies below it, and the picture is exp(-density). First comes a lesion on bare skin, of which the
mask is exact, then what else a dermatoscope sees: hairs, a ruler, bubbles, a vignette.

The classes differ as clinicians read them (ABCD rule: Asymmetry, Border, Colours, Diameter; Stolz
et al. 1994) and by their structures: nevi are round, even, of one or two colours, with a regular
network or globules; melanomas are lopsided, ragged, of many colours, with an uneven network,
streaks, a veil or regression; seborrheic keratoses are sharply cut, waxy, with milia-like cysts
(bright dots), comedo-like openings (dark dots) and ridges. The traits overlap: there are odd nevi
and early melanomas.
"""

from typing import Any, NamedTuple

import numpy as np

from ahm_jax.config import DataConfig
from ahm_jax.data.drawing.camera import lay_over, photograph
from ahm_jax.data.drawing.lesion import (
  draw_outline,
  draw_traits,
  paint_keratosis,
  paint_melanoma,
  paint_nevus,
)
from ahm_jax.data.drawing.skin import draw_skin
from ahm_jax.data.sets.items import SPLITS, Item, Listing
from ahm_jax.data.sets.source import DatasetSource

VERSION = 1  # See `DatasetSource.version`.
CLASS_NAMES = ('nevus', 'melanoma', 'seborrheic_keratosis')
CLASS_SHARES = (0.5, 0.3, 0.2)
SPLIT_CODES = {'train': 0, 'validation': 1, 'test': 2}

LUMA = np.array([0.299, 0.587, 0.114], np.float32)


class Layers(NamedTuple):
  """A lesion on bare skin."""

  skin: np.ndarray  # Optical density of the skin, float32 [3, S, S].
  lesion: np.ndarray  # Optical density that the lesion adds, per unit of alpha, float32 [3, S, S].
  alpha: np.ndarray  # float32 [S, S] in [0, 1].
  label: int


def list_items(config: DataConfig) -> Listing:
  """The phantoms of a config, split by split; none is drawn before it is asked for."""
  items = [
    _item(config, split, index)
    for split in SPLITS
    for index in range(getattr(config.phantom, split))
  ]
  return Listing(items, [], [], [])


def depends_on(config: DataConfig) -> dict[str, Any]:
  return {'counts': [getattr(config.phantom, split) for split in SPLITS]}


SOURCE = DatasetSource(
  name='phantom',
  version=VERSION,
  list_items=list_items,
  depends_on=depends_on,
  class_names=CLASS_NAMES,
)


def _item(config: DataConfig, split: str, index: int) -> Item:
  name = f'{split}_{index:06d}'
  label = CLASS_NAMES[_draw_label(generator(config.split_seed, split, index))]

  def draw_pair() -> tuple[np.ndarray, np.ndarray]:
    rng = generator(config.split_seed, split, index)
    image, mask, _ = draw(rng, config.image_size, config.channels)
    return image, mask.astype(bool)

  return Item(name, split, label, name, draw=draw_pair)


def generator(seed: int, split: str, index: int) -> np.random.Generator:
  """The source of randomness of phantom `index` of a split; a function of its arguments alone."""
  return np.random.Generator(
    np.random.Philox(np.random.SeedSequence([seed, SPLIT_CODES[split], index]))
  )


def draw(
  rng: np.random.Generator, size: int, channels: int = 3
) -> tuple[np.ndarray, np.ndarray, int]:
  """Draws one phantom.

  Args:
    rng: source of all its randomness.
    size: side in pixels, at least 16.
    channels: 3 for RGB, 1 for grey.

  Returns:
    image: uint8 [size, size, channels].
    mask: uint8 [size, size], 1 where the lesion was laid on the skin with an alpha of at least 0.5.
    label: index into `CLASS_NAMES`.
  """
  layers = draw_layers(rng, size)
  picture = photograph(rng, np.exp(-lay_over(rng, layers.skin + layers.alpha * layers.lesion)))
  if channels == 1:
    picture = np.tensordot(LUMA, picture, 1)[None]
  image = np.clip(picture * 255 + 0.5, 0, 255).astype(np.uint8)
  mask = (layers.alpha >= 0.5).astype(np.uint8)
  return np.ascontiguousarray(image.transpose(1, 2, 0)), mask, layers.label


def draw_layers(rng: np.random.Generator, size: int) -> Layers:
  """Draws the skin and the lesion of one phantom; `draw` continues from here."""
  label = _draw_label(rng)
  traits = draw_traits(rng, label)
  skin = draw_skin(rng, size)
  outline = draw_outline(rng, size, traits)
  paint = (paint_nevus, paint_melanoma, paint_keratosis)[label]
  return Layers(skin, paint(rng, traits, outline), outline.alpha, label)


def _draw_label(rng: np.random.Generator) -> int:
  return int(rng.choice(len(CLASS_NAMES), p=CLASS_SHARES))
