"""Images and masks at the size that networks see."""

from collections.abc import Sequence

import numpy as np
from PIL import Image


def squashed(
  pixels: np.ndarray, side: int, method: Image.Resampling = Image.Resampling.BICUBIC
) -> np.ndarray:
  """An image uint8 [H, W, C] as networks see it, resized with antialiasing to a square: uint8
  [side, side, C].
  """
  if pixels.shape[-1] == 3:
    return np.asarray(Image.fromarray(pixels).resize((side, side), method))
  planes = (
    Image.fromarray(np.ascontiguousarray(pixels[..., c])).resize((side, side), method)
    for c in range(pixels.shape[-1])
  )
  return np.stack([np.asarray(plane) for plane in planes], -1)


def picture(pixels: np.ndarray) -> Image.Image:
  """An image uint8 [H, W, C] as one looks at it, in the mode RGB: three channels, of which
  modalities are false colours, or the first one of any other number, in grey.
  """
  shown = pixels if pixels.shape[-1] == 3 else pixels[..., 0]
  return Image.fromarray(np.ascontiguousarray(shown)).convert('RGB')


def colours_of(modalities: Sequence[str]) -> str:
  """What `picture` shows of an image with these modalities, in a sentence; '' of one without."""
  if not modalities:
    return ''
  if len(modalities) == 3:
    red, green, blue = modalities
    return f'Pictures are in false colours: {red} red, {green} green, {blue} blue.'
  more = len(modalities) > 1
  return f'Pictures show {modalities[0]}{f", one of {len(modalities)} modalities" if more else ""}.'


def squashed_mask(mask: np.ndarray, side: int) -> np.ndarray:
  """A mask resized to a square: uint8 [side, side].

  Args:
    mask: bool [h, w], which gives 1 where it covers at least half of the pixel's area; or class
      indices, uint8 [h, w], of which the one with the largest area in the pixel is taken, the
      lowest of equals.
  """
  if mask.dtype == bool:
    grey = Image.fromarray(mask.astype(np.uint8) * 255)
    share = np.asarray(grey.resize((side, side), Image.Resampling.BOX))
    return (share >= 128).astype(np.uint8)
  classes = np.unique(mask)
  areas = np.stack([_pool(_pool(mask == index, side).T, side).T for index in classes])
  return classes[areas.argmax(axis=0)]


def _pool(values: np.ndarray, size: int) -> np.ndarray:
  """Sums of the rows [h, w] that lie in each of `size` equal parts of the height, times `size`,
  exactly: int64 [size, w].

  Pillow's box takes a pixel as a whole or not at all.
  """
  # The parts' edges, in rows and in shares of a row.
  whole, rest = np.divmod(np.arange(size + 1) * len(values), size)
  sums = np.cumsum(values, axis=0, dtype=np.int32)  # At most the mask's number of pixels.
  before = sums[whole - 1].astype(np.int64) * (whole > 0)[:, None]
  # At the last edge nothing is cut: rest is 0.
  cut = values[np.minimum(whole, len(values) - 1)].astype(np.int64)
  return np.diff(before * size + cut * rest[:, None], axis=0)
