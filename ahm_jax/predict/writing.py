"""The files that are written for one image."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ahm_jax.evaluation.masks import at_own_size

OVERLAY_SIDE = 1024  # Longer side of an overlay in pixels, at most.
COMPRESSION = 3  # Of PNG: half the time of the usual 6, for files that are a third larger.


def write_mask(path: Path, mask: np.ndarray) -> None:
  """Writes a PNG of 8 bits: of bool [h, w] 0 and 255, of class indices uint8 [h, w] these."""
  values = mask.astype(np.uint8) * np.uint8(255) if mask.dtype == bool else mask
  Image.fromarray(values).save(path, 'PNG', compress_level=COMPRESSION)


def planes(
  probabilities: np.ndarray, mask_classes: Sequence[str]
) -> Iterator[tuple[str, np.ndarray]]:
  """Of probabilities [S, S], or with K classes [S, S, K + 1], each class's, with the folder it
  goes to ('' or 'NAME/').
  """
  if probabilities.ndim == 2:
    yield '', probabilities
  for k, name in enumerate(mask_classes, 1):
    yield f'{name}/', np.ascontiguousarray(probabilities[..., k])


def write_probabilities(path: Path, plane: np.ndarray, size: tuple[int, int]) -> None:
  """Writes a PNG of 16 bits and `size` (h, w), in which 65535 stands for a probability of 1."""
  own = at_own_size(plane, size)
  Image.fromarray((np.clip(own, 0, 1) * 65535 + 0.5).astype(np.uint16)).save(
    path, 'PNG', compress_level=COMPRESSION
  )


def shrunk(pixels: np.ndarray) -> np.ndarray:
  """An image uint8 [H, W, C] in RGB, its longer side at most OVERLAY_SIDE: uint8 [h, w, 3]."""
  picture = Image.fromarray(pixels if pixels.shape[-1] == 3 else pixels[..., 0]).convert('RGB')
  picture.thumbnail((OVERLAY_SIDE, OVERLAY_SIDE), Image.Resampling.BICUBIC)
  return np.asarray(picture)


def write_overlay(path: Path, image: np.ndarray, mask: np.ndarray) -> None:
  """Writes a JPEG of an image, uint8 [h, w, 3], with the border of its mask.

  With classes each in its colour and pattern.
  """
  from ahm_jax.report import class_pictures, pictures  # Here, since it imports Matplotlib.

  if mask.dtype == bool:
    picture = image.copy()
    pictures.draw_border(picture, mask, pictures.PREDICTION_COLOUR, 1)
  else:
    picture = class_pictures.class_overlay(image, mask)
  Image.fromarray(picture).save(path, 'JPEG', quality=90)
