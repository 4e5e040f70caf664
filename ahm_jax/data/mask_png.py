"""Masks as the bytes of PNG files, as which prepared data hold them at their own resolution."""

import io

import numpy as np
from PIL import Image


def encode_mask(mask: np.ndarray) -> bytes:
  """A mask as the bytes of a PNG: bool [h, w] takes one bit a pixel, uint8 [h, w] eight."""
  stream = io.BytesIO()
  Image.fromarray(mask).save(stream, 'PNG')
  return stream.getvalue()


def decode_mask(data: bytes) -> np.ndarray:
  """What `encode_mask` wrote, with its type."""
  with Image.open(io.BytesIO(data)) as picture:
    return np.asarray(picture)


def mask_size(data: bytes) -> tuple[int, int]:
  """Height and width of what `encode_mask` wrote, which is not decoded."""
  with Image.open(io.BytesIO(data)) as picture:
    return picture.height, picture.width
