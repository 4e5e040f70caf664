"""How one layer's numbers lie here and elsewhere: pairs of functions, there and back."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Layout(NamedTuple):
  """Both take and return an array and lose nothing, so that there and back is the same to the
  bit.
  """

  outward: Callable[[np.ndarray], np.ndarray]  # From ours to theirs.
  inward: Callable[[np.ndarray], np.ndarray]


SAME = Layout(lambda ours: ours, lambda theirs: theirs)

# Kernel of a convolution: ours [H, W, in, out], PyTorch's [out, in, H, W].
CONVOLUTION = Layout(
  lambda ours: ours.transpose(3, 2, 0, 1), lambda theirs: theirs.transpose(2, 3, 1, 0)
)

# As above, ours of RGB and theirs of BGR.
BGR_CONVOLUTION = Layout(
  lambda ours: CONVOLUTION.outward(ours)[:, ::-1],
  lambda theirs: CONVOLUTION.inward(theirs[:, ::-1]),
)

# Keras's kernel of a convolution of BGR, which lies as ours.
BGR = Layout(lambda ours: ours[:, :, ::-1], lambda theirs: theirs[:, :, ::-1])

# Kernel of `UpConvolution`: ours [in, 2, 2, out], PyTorch's ConvTranspose2d [in, out, 2, 2];
# neither is turned.
UP_CONVOLUTION = Layout(
  lambda ours: ours.transpose(0, 3, 1, 2), lambda theirs: theirs.transpose(0, 2, 3, 1)
)

# Kernel of a dense layer: ours [in, out], PyTorch's [out, in].
DENSE = Layout(lambda ours: ours.T, lambda theirs: theirs.T)


def flattened(channels: int) -> Layout:
  """Kernel of a dense layer that sees a square map of so many channels flattened: ours by [H, W,
  C], PyTorch's by [C, H, W].
  """

  def outward(ours):
    side = math.isqrt(ours.shape[0] // channels)
    return ours.reshape(side, side, channels, -1).transpose(3, 2, 0, 1).reshape(ours.shape[::-1])

  def inward(theirs):
    side = math.isqrt(theirs.shape[1] // channels)
    return (
      theirs.reshape(-1, channels, side, side).transpose(2, 3, 1, 0).reshape(theirs.shape[::-1])
    )

  return Layout(outward, inward)
