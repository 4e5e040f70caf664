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
_LOOKS = 42  # Seven colours and six patterns: only then do pairs repeat.
_OPAQUE = 0.65  # Share of a class's colour; the rest is the image in grey.
_LUMINANCE = np.array((0.299, 0.587, 0.114), np.float32)


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
  for k in np.unique(mask[mask > 0]):
    inside = mask == k
    lines = _pattern(int(k), mask.shape) | ~ndimage.binary_erosion(inside, border_value=1)
    drawn[inside] = (1 + 2 * ((k - 1) % _LOOKS) + lines)[inside]
  colours = [(0.0, 0.0, 0.0, 0.0)]
  for k in range(1, _LOOKS + 1):
    colours += [(*_colour(k), 255 * _OPAQUE), (*_ink(k), 255)]
  return drawn, np.round(colours).astype(np.uint8)


def class_swatch(k: int, height: int = 24, width: int = 40) -> np.ndarray:
  """What class k, from 1, looks like over mid-grey: uint8 [height, width, 3]."""
  return class_overlay(
    np.full((height, width, 3), 128, np.uint8), np.full((height, width), k, np.uint8)
  )


def _painted(k: int, grey: np.ndarray) -> np.ndarray:
  """Colour and pattern of a class over all of an image in grey, [H, W, 1] -> [H, W, 3]."""
  fill = _OPAQUE * _colour(k) + (1 - _OPAQUE) * grey
  return np.where(_pattern(k, grey.shape[:2])[..., None], _ink(k), fill)


def _pattern(k: int, shape: tuple[int, int]) -> np.ndarray:
  """Where the pattern of class k, from 1, has ink: bool [H, W]."""
  y, x = np.indices(shape)

  def lines(across: np.ndarray) -> np.ndarray:
    return across % _STEP < _LINE

  match (k - 1) % 6:
    case 0:
      return lines(x + y)
    case 1:
      return lines(x - y)
    case 2:
      return lines(y)
    case 3:
      return lines(x)
    case 4:
      return lines(x + y) | lines(x - y)
    case _:
      return (y % _STEP < 4) & (x % _STEP < 4)


def _colour(k: int) -> np.ndarray:
  return COLOURS[(k - 1) % len(COLOURS)]


def _ink(k: int) -> np.ndarray:
  """Of the lines and borders: black on light colours, white on dark ones, to be seen over light
  and dark images alike.
  """
  return np.full(3, 0.0 if _colour(k) @ _LUMINANCE > 140 else 255.0, np.float32)
