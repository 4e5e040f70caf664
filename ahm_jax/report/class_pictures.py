"""Masks of several classes over an image.

Each class has a colour and a pattern, so that it can be told without colour.
"""

import numpy as np
from PIL import Image
from scipy import ndimage

# The colour-blind-safe set of Okabe and Ito, "Color Universal Design" (2008), without black.
COLOURS = np.array(
  [
    (230, 159, 0),
    (0, 114, 178),
    (0, 158, 115),
    (204, 121, 167),
    (86, 180, 233),
    (213, 94, 0),
    (240, 228, 66),
  ],
  np.float32,
)
_STEP, _LINE = 10, 2  # Pixels from line to line, and of a line.
# Functions of a pixel's row and column. There are six of them and seven colours, so that pairs
# repeat after 42 classes only.
_PATTERNS = (
  lambda y, x: _line(x + y),
  lambda y, x: _line(x - y),
  lambda y, x: _line(y),
  lambda y, x: _line(x),
  lambda y, x: _line(x + y) | _line(x - y),
  lambda y, x: (y % _STEP < 4) & (x % _STEP < 4),
)
_OPAQUE = 0.65  # Share of a class's colour; the rest is the image in grey.
_LUMINANCE = np.array((0.299, 0.587, 0.114), np.float32)


def _line(position: np.ndarray) -> np.ndarray:
  return position % _STEP < _LINE


def class_overlay(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
  """The image with each class in its colour, its pattern and a border.

  Args:
    image: uint8 [H, W, 3].
    mask: uint8 [h, w], 0 for background and k for class k, from 1; it is stretched to the image.

  Returns:
    uint8 [H, W, 3]; background is as it was.
  """
  stretched = np.asarray(Image.fromarray(mask).resize(image.shape[1::-1], Image.Resampling.NEAREST))
  grey = (image @ _LUMINANCE)[..., None]
  picture = image.astype(np.float32)
  for k in np.unique(stretched[stretched > 0]):
    inside = stretched == k
    picture[inside] = _painted(int(k), grey)[inside]
    picture[inside & ~ndimage.binary_erosion(inside, border_value=1)] = _ink(int(k))
  return np.round(picture).astype(np.uint8)


def class_indices(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """The same as a transparent picture to lay over an image.

  Args:
    mask: uint8 [H, W], as for `class_overlay`.

  Returns:
    uint8 [H, W], for each pixel its place among the colours; uint8 [K, 4], colours with opacity,
    the first one clear.
  """
  drawn = np.zeros(mask.shape, np.uint8)
  place = np.indices(mask.shape)
  looks = len(_PATTERNS) * len(COLOURS)
  for k in np.unique(mask[mask > 0]):
    inside = mask == k
    lines = _PATTERNS[(k - 1) % len(_PATTERNS)](*place) | ~ndimage.binary_erosion(
      inside, border_value=1
    )
    drawn[inside] = (1 + 2 * ((k - 1) % looks) + lines)[inside]
  pairs = [((*_colour(k), 255 * _OPAQUE), (*_ink(k), 255)) for k in range(1, looks + 1)]
  return drawn, np.round([(0, 0, 0, 0), *(colour for pair in pairs for colour in pair)]).astype(
    np.uint8
  )


def class_swatch(k: int, height: int = 24, width: int = 40) -> np.ndarray:
  """What class k, from 1, looks like over mid-grey: uint8 [height, width, 3]."""
  return class_overlay(
    np.full((height, width, 3), 128, np.uint8), np.full((height, width), k, np.uint8)
  )


def _painted(k: int, grey: np.ndarray) -> np.ndarray:
  """Colour and pattern of a class over all of an image in grey, [H, W, 1] -> [H, W, 3]."""
  fill = _OPAQUE * _colour(k) + (1 - _OPAQUE) * grey
  drawn = _PATTERNS[(k - 1) % len(_PATTERNS)](*np.indices(grey.shape[:2]))
  return np.where(drawn[..., None], _ink(k), fill)


def _colour(k: int) -> np.ndarray:
  return COLOURS[(k - 1) % len(COLOURS)]


def _ink(k: int) -> np.ndarray:
  """Of the lines and borders: black on light colours, white on dark ones, to be seen over light
  and dark images alike.
  """
  return np.full(3, 0.0 if _colour(k) @ _LUMINANCE > 140 else 255.0, np.float32)
