"""Images that a data set holds twice: as the same file, as the same pixels, or re-encoded, resized,
flipped or turned.

Near-duplicates are looked for in two steps. A perceptual hash of 64 bits finds pairs that may be
alike: the signs, about their median, of low frequencies of the image's discrete cosine transform
(after Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010, its DCT
hash). Flips and quarter turns of the image change signs and places of those frequencies alone, so
the hashes of all eight are had for one transform. A correlation of small grey pictures then
confirms a pair or drops it; broad light and shade, which images of one kind share, has been taken
from them, and their contrast is made even, so that one strong edge does not decide.

Copies that are cropped, turned by other angles, or drawn upon at length are not found.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import fft, ndimage

from ahm_jax.data import resize

SIDE = 32  # Of the small grey picture.
DISTANCE = 10  # Most bits of 64 in which the hashes of a pair may differ.
CORRELATION = 0.75  # Least correlation of a pair's small pictures, as `details` has them.
# The same where one is flipped or turned: seven more tries find more that are alike by chance.
CORRELATION_TRANSFORMED = 0.85
# Near-duplicates that are kept of one image: so many of its own split, and so many of others.
PARTNERS = 16
FLATNESS = 2.0  # Standard deviation of grey levels below which an image shows nothing to compare.
_ROWS = 128  # Images that are compared with all others at once, and
_CANDIDATES = 1024  # pairs whose small pictures are compared at once; both bound the memory.
# Standard deviations, in pixels of the small picture, of the blur that `details` takes away, and of
# that which says how strong the contrast is around a pixel;
_BROAD, _AROUND = 2.0, 3.0
_WEAK = 5.0  # and the contrast, in grey levels, below which it is left as weak as it is.
# The eight symmetries of a square: transposed or not, then flipped upside down or not, and left to
# right or not.
SYMMETRIES = tuple(
  (transposed, down, across)
  for transposed in (False, True)
  for down in (False, True)
  for across in (False, True)
)
SYMMETRY_NAMES = (
  'as it is',
  'flipped left to right',
  'flipped upside down',
  'turned by 180 degrees',
  'flipped about the diagonal',
  'turned by 90 degrees clockwise',
  'turned by 90 degrees anticlockwise',
  'flipped about the other diagonal',
)


class Fingerprint(NamedTuple):
  """What is kept of an image to compare it by; about 1.2 KB."""

  file: bytes  # SHA-256 of the file's bytes; b'' where there is no file.
  pixels: bytes  # SHA-256 of the decoded pixels and their shape.
  hashes: np.ndarray  # uint64 [8], of the image under each of SYMMETRIES.
  picture: np.ndarray  # uint8 [SIDE, SIDE], the image in grey.


class Pair(NamedTuple):
  """Two images that are one."""

  first: int  # Indices of the images, first < second.
  second: int
  kind: str  # 'file': the same bytes. 'pixels': the same pixels. 'near': alike.
  correlation: float  # Of the small pictures; 1 where the pixels are the same.
  symmetry: int  # What turns the first into the second, index into SYMMETRIES.


def fingerprint(pixels: np.ndarray, data: bytes = b'') -> Fingerprint:
  """The fingerprint of an image.

  Args:
    pixels: uint8 [H, W, C].
    data: its file.
  """
  digest = hashlib.sha256(str(pixels.shape).encode())
  digest.update(np.ascontiguousarray(pixels).data)
  grey = resize.picture(pixels).convert('L')
  picture = np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BOX))
  return Fingerprint(
    hashlib.sha256(data).digest() if data else b'', digest.digest(), hashes(picture), picture
  )


def hashes(picture: np.ndarray) -> np.ndarray:
  """Perceptual hashes of a square picture, [SIDE, SIDE], under each of SYMMETRIES: uint64 [8].

  Bit 8 u + v of a hash says whether the coefficient of frequencies u + 1 down and v + 1 across is
  above the median of all 64.
  """
  low = fft.dctn(picture.astype(np.float64), type=2, norm='ortho')[1:9, 1:9]
  odd = 1 - 2 * (np.arange(1, 9) % 2)  # The sign that a flip gives the frequencies 1 to 8.
  found = []
  for transposed, down, across in SYMMETRIES:
    coefficients = low.T if transposed else low
    coefficients = coefficients * (odd[:, None] if down else 1) * (odd if across else 1)
    found.append(
      np.packbits(coefficients > np.median(coefficients), bitorder='little').view('<u8')[0]
    )
  return np.array(found, np.uint64)


def transformed(picture: np.ndarray, symmetry: int) -> np.ndarray:
  """A picture, [H, W] or [H, W, C], under SYMMETRIES[symmetry]."""
  transposed, down, across = SYMMETRIES[symmetry]
  picture = picture.swapaxes(0, 1) if transposed else picture
  return picture[:: -1 if down else 1, :: -1 if across else 1]


def details(pictures: np.ndarray) -> np.ndarray:
  """Small grey pictures without broad light and shade and with even contrast, ready for
  correlation.

  Args:
    pictures: [N, SIDE, SIDE].

  Returns:
    float32 [N, SIDE * SIDE], each of mean 0 and norm 1; zeros where it shows nothing.
  """
  values = pictures.astype(np.float32)
  values = values - ndimage.gaussian_filter(values, (0, _BROAD, _BROAD))
  values /= np.sqrt(ndimage.gaussian_filter(values**2, (0, _AROUND, _AROUND))) + _WEAK
  values = values.reshape(len(pictures), -1)
  values -= values.mean(1, keepdims=True)
  norm = np.linalg.norm(values, axis=1, keepdims=True)
  return np.divide(values, norm, out=np.zeros_like(values), where=norm > 1e-3)


def same(fingerprints: Sequence[Fingerprint]) -> list[Pair]:
  """Images with the same pixels, as pairs of the first of each kind with every other one."""
  first: dict[bytes, int] = {}
  pairs = []
  for index, item in enumerate(fingerprints):
    other = first.setdefault(item.pixels, index)
    if other != index:
      same_file = item.file != b'' and item.file == fingerprints[other].file
      pairs.append(Pair(other, index, 'file' if same_file else 'pixels', 1.0, 0))
  return pairs


def near(fingerprints: Sequence[Fingerprint], groups: Sequence, splits: Sequence) -> list[Pair]:
  """Pairs of images that are alike but not the same, of different groups; first the most alike.

  Of images with the same pixels only the first of each split is compared, and those that are blank
  are not. The memory this takes grows with the number of images, 10 KB each, and not with that of
  their pairs.

  Args:
    fingerprints: N of them.
    groups, splits: what each belongs to. Images of one group in one split may be as alike as they
      please; so many near-duplicates are kept of an image, first those of other splits, that all
      are found where each has few.
  """
  indices = _compared(fingerprints, splits)
  if len(indices) < 2:
    return []
  codes = np.stack([fingerprints[i].hashes for i in indices])
  pictures = details(np.stack([fingerprints[i].picture for i in indices]))
  group, split, content = (
    np.unique([str(names[i]) for i in indices], return_inverse=True)[1]
    for names in (groups, splits, [item.pixels.hex() for item in fingerprints])
  )
  pairs = []
  for rows in _chunks(len(indices), _ROWS):
    crossing = split[rows, None] != split[None]
    wanted = (rows[:, None] < np.arange(len(indices))) & (
      crossing | (group[rows, None] != group[None])
    )
    wanted &= content[rows, None] != content[None]
    correlation, symmetry = _alike(codes, pictures, rows, wanted)
    for row, index in _most_alike(correlation, crossing):
      first, second = int(indices[rows[row]]), int(indices[index])
      pairs.append(
        Pair(first, second, 'near', float(correlation[row, index]), int(symmetry[row, index]))
      )
  return sorted(pairs, key=lambda pair: -pair.correlation)


def _compared(fingerprints: Sequence[Fingerprint], splits: Sequence) -> np.ndarray:
  """The first image of each content in each split, but for blank ones: int64 [M], ascending."""
  known: dict[tuple, int] = {}
  for index, item in enumerate(fingerprints):
    if item.picture.std() >= FLATNESS:
      known.setdefault((item.pixels, splits[index]), index)
  return np.array(sorted(known.values()), np.int64)


def _chunks(count: int, size: int) -> Iterator[np.ndarray]:
  for start in range(0, count, size):
    yield np.arange(start, min(start + size, count))


def _alike(
  codes: np.ndarray, pictures: np.ndarray, rows: np.ndarray, wanted: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Of each of `rows` with each image, [R, N]: the correlation where they are wanted and alike,
  else -1; and the symmetry.

  `codes` are hashes, and `pictures` what `details` makes, of all images.
  """
  best = np.full(wanted.shape, -1.0, np.float32)
  symmetries = np.zeros(wanted.shape, np.int8)
  for symmetry in range(len(SYMMETRIES)):
    bits = np.bitwise_count(codes[rows, symmetry, None] ^ codes[None, :, 0])
    row, index = np.nonzero((bits <= DISTANCE) & wanted)
    pixels = _source_pixels(symmetry)
    least = CORRELATION_TRANSFORMED if symmetry else CORRELATION
    for part in _chunks(len(row), _CANDIDATES):
      i, j = row[part], index[part]
      correlation = np.einsum('ij,ij->i', pictures[rows[i]][:, pixels], pictures[j])
      better = (correlation >= least) & (correlation > best[i, j])
      best[i[better], j[better]] = correlation[better]
      symmetries[i[better], j[better]] = symmetry
  return best, symmetries


def _source_pixels(symmetry: int) -> np.ndarray:
  """Where each pixel of a transformed small picture comes from.

  A blur commutes with the transform.
  """
  return transformed(np.arange(SIDE * SIDE).reshape(SIDE, SIDE), symmetry).ravel()


def _most_alike(correlation: np.ndarray, crossing: np.ndarray) -> Iterator[tuple[int, int]]:
  """Rows and columns of those that are alike.

  Of each row PARTNERS in its own split and PARTNERS in others, the most alike.
  """
  for row in np.flatnonzero((correlation > 0).any(1)):
    for part in (crossing[row], ~crossing[row]):
      found = np.flatnonzero((correlation[row] > 0) & part)
      for index in found[np.argsort(-correlation[row, found], kind='stable')][:PARTNERS]:
        yield int(row), int(index)
