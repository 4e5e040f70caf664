"""Brain phantoms in several MRI sequences, drawn from a seed: patients whose lesions no sequence
shows by itself.

In FLAIR and T1 a lesion looks like the islands of grey matter beside it, in T2 like the pockets of
fluid. They are drawn as grey levels of 8 bits: config.data.intensity does not matter.
"""

import numpy as np

from ahm_jax.config import DataConfig
from ahm_jax.data.drawing.brain import CONTRASTS, draw_anatomy, show
from ahm_jax.data.sets.items import SPLITS, Item, Listing
from ahm_jax.data.sets.phantom import depends_on, generator
from ahm_jax.data.sets.source import DatasetSource
from ahm_jax.errors import UserError

VERSION = 1  # See `DatasetSource.version`.


def list_items(config: DataConfig) -> Listing:
  """The phantoms of a config, split by split; none is drawn before it is asked for.

  Raises:
    UserError: a modality is none that is drawn, or there is none.
  """
  others = [name for name in config.modalities if name not in CONTRASTS]
  if others or not config.modalities:
    raise UserError(
      f'config.data.modalities is {config.modalities}, and data.name=phantom_mri draws '
      f'{", ".join(CONTRASTS)}; name some of these'
    )
  items = [
    _item(config, split, index)
    for split in SPLITS
    for index in range(getattr(config.phantom, split))
  ]
  return Listing(items, [], [], [])


SOURCE = DatasetSource(
  name='phantom_mri',
  version=VERSION,
  list_items=list_items,
  depends_on=depends_on,
  has_modalities=True,
)


def _item(config: DataConfig, split: str, index: int) -> Item:
  name = f'{split}_{index:06d}'

  def draw_pair() -> tuple[np.ndarray, np.ndarray]:
    rng = generator(config.split_seed, split, index)
    image, mask = draw(rng, config.image_size)
    chosen = [list(CONTRASTS).index(modality) for modality in config.modalities]
    return np.ascontiguousarray(image[..., chosen]), mask

  return Item(name, split, '', name, draw=draw_pair)


def draw(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
  """Draws one phantom.

  Args:
    rng: source of all its randomness.
    size: side in pixels, at least 16.

  Returns:
    image: uint8 [size, size, sequences], in the order of CONTRASTS.
    mask: bool [size, size], True where lesions cover at least half of the pixel.
  """
  anatomy = draw_anatomy(rng, size)
  shown = np.stack([show(rng, anatomy, sequence) for sequence in CONTRASTS], -1)
  image = np.clip(shown * 255 + 0.5, 0, 255).astype(np.uint8)
  return image, anatomy.lesion >= 0.5
