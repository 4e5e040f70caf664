"""How a network that sees squares of S pixels looks at an image of any size: at the whole of it,
or window by window.
"""

from collections.abc import Iterator
from itertools import product

import numpy as np

from ahm_jax.data.resize import squashed
from ahm_jax.evaluation.masks import at_own_size


class Whole:
  """The whole image, squashed to S x S as the networks were trained on it.

  Args:
    seen: uint8 [S, S, C].
  """

  def __init__(self, seen: np.ndarray):
    self._seen = seen
    self._found: np.ndarray | None = None

  def windows(self) -> Iterator[np.ndarray]:
    yield self._seen

  def add(self, index: int, probabilities: np.ndarray) -> bool:  # noqa: ARG002
    """Takes what was found in window `index`; says whether it was the last one that was missing."""
    self._found = probabilities
    return True

  def result(self) -> np.ndarray:
    """Probabilities [S, S, ...], of the whole image."""
    assert self._found is not None
    return self._found


class Tiled:
  """Windows that overlap, each resized to S x S; what is found in them is resized back and averaged
  under smooth weights.

  A window's weight falls from its middle to its sides as a Hann window, sin^2(pi (i + 1/2) / side)
  along both axes, so that no seam shows; at every pixel the weights of all windows are divided by
  their sum.

  Args:
    pixels: uint8 [H, W, C].
    size: S.
    side: of a window, in pixels of the image; along an axis on which the image is shorter, the
      image's length.
    overlap: share of a window that the next one covers too, at least; in [0, 1).
  """

  def __init__(self, pixels: np.ndarray, size: int, side: int, overlap: float):
    self._pixels, self._size = pixels, size
    height, width = pixels.shape[:2]
    self._sides = min(side, height), min(side, width)
    down = _spans(height, self._sides[0], overlap)
    across = _spans(width, self._sides[1], overlap)
    self._windows = list(product(down, across))
    self._missing = len(self._windows)
    self._sum: np.ndarray | None = None

  def windows(self) -> Iterator[np.ndarray]:
    """Each uint8 [S, S, C], in the order of their indices."""
    for (rows, _), (columns, _) in self._windows:
      yield squashed(np.ascontiguousarray(self._pixels[rows, columns]), self._size)

  def add(self, index: int, probabilities: np.ndarray) -> bool:
    """As `Whole.add`."""
    (rows, down), (columns, across) = self._windows[index]
    if self._sum is None:
      self._sum = np.zeros((*self._pixels.shape[:2], *probabilities.shape[2:]), np.float32)
    weight = down[:, None] * across
    target = self._sum[rows, columns]
    if probabilities.ndim == 2:
      target += weight * at_own_size(probabilities, self._sides)
    else:
      for k in range(probabilities.shape[-1]):
        target[..., k] += weight * at_own_size(
          np.ascontiguousarray(probabilities[..., k]), self._sides
        )
    self._missing -= 1
    return not self._missing

  def result(self) -> np.ndarray:
    """Probabilities [H, W, ...], of the whole image."""
    assert self._sum is not None
    return self._sum


def view(pixels: np.ndarray, size: int, side: int, overlap: float) -> Whole | Tiled:
  """How to look at an image: whole where `side` is 0 or the image fits into one window.

  Arguments as for `Tiled`.
  """
  if not side or max(pixels.shape[:2]) <= side:
    return Whole(squashed(pixels, size))
  return Tiled(pixels, size, side, overlap)


def _spans(length: int, side: int, overlap: float) -> list[tuple[slice, np.ndarray]]:
  """Where each window along an axis lies, and its weights."""
  places = starts(length, side, overlap)
  return [
    (slice(place, place + side), weight)
    for place, weight in zip(places, weights(length, side, places), strict=True)
  ]


def starts(length: int, side: int, overlap: float) -> list[int]:
  """Where windows of `side` begin that cover `length` evenly: as few as overlap by at least a
  share `overlap`.
  """
  count = 1 + int(np.ceil((length - side) / (side * (1 - overlap))))
  return [round(place) for place in np.linspace(0, length - side, count)]


def weights(length: int, side: int, places: list[int]) -> np.ndarray:
  """Of every window along an axis of `length`: float32 [windows, side].

  Those of all windows on a pixel sum to 1.
  """
  hann = np.sin(np.pi * (np.arange(side) + 0.5) / side) ** 2
  total = np.zeros(length)
  for place in places:
    total[place : place + side] += hann
  return np.stack([hann / total[place : place + side] for place in places]).astype(np.float32)
