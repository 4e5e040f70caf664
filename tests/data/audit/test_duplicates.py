"""Exact and near-duplicates: what is found, what is not, and the hash against SciPy and flipped
pictures.
"""

import functools
import io
import tracemalloc

import numpy as np
import pytest
from PIL import Image
from scipy import fft, ndimage

from ahm_jax.data.audit import duplicates
from ahm_jax.data.audit.duplicates import (
  SIDE,
  SYMMETRIES,
  Pair,
  fingerprint,
  hashes,
  near,
  same,
  transformed,
)


@functools.cache
def scene(seed: int, height: int = 96, width: int = 120) -> np.ndarray:
  """A picture of blobs of every size, uint8 [height, width, 3]."""
  rng = np.random.default_rng(seed)
  noise = sum(
    ndimage.gaussian_filter(rng.normal(size=(height, width, 3)), (s, s, 0)) * s
    for s in (2, 4, 8, 16)
  )
  return np.clip(128 + 60 * noise / noise.std(), 0, 255).astype(np.uint8)


@functools.cache
def scenes() -> tuple[tuple[np.ndarray, duplicates.Fingerprint], ...]:
  """40 pictures and what is kept of them."""
  return tuple((image, fingerprint(image)) for image in map(scene, range(40)))


def as_jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
  stream = io.BytesIO()
  Image.fromarray(pixels).save(stream, 'JPEG', quality=quality)
  return np.asarray(Image.open(io.BytesIO(stream.getvalue())))


def resized(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
  return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))


COPIES = {
  'JPEG of low quality': lambda x: as_jpeg(x, 30),
  'half the size': lambda x: resized(x, 60, 48),
  'another aspect ratio': lambda x: resized(x, 100, 100),
  'twice the size, as JPEG': lambda x: as_jpeg(resized(x, 240, 192), 60),
  'brighter': lambda x: np.clip(x * 1.1 + 8, 0, 255).astype(np.uint8),
  'grey': lambda x: np.repeat(np.asarray(Image.fromarray(x).convert('L'))[..., None], 3, 2),
  'flipped': lambda x: x[:, ::-1],
  'flipped, as JPEG': lambda x: as_jpeg(np.ascontiguousarray(x[::-1]), 50),
  'turned by a quarter': lambda x: np.rot90(x),
  'turned by half, half the size': lambda x: resized(np.ascontiguousarray(np.rot90(x, 2)), 60, 48),
}


@pytest.mark.parametrize('name', COPIES)
def test_altered_copies_are_found_and_others_are_not(name):
  copies = [np.ascontiguousarray(COPIES[name](image)) for image, _ in scenes()[:5]]
  prints = [kept for _, kept in scenes()] + [fingerprint(copy) for copy in copies]
  pairs = near(prints, range(45), ['train'] * 40 + ['test'] * 5)
  assert {(pair.first, pair.second) for pair in pairs} == {(k, 40 + k) for k in range(5)}
  assert all(pair.kind == 'near' and 0.75 <= pair.correlation <= 1.001 for pair in pairs)


def test_hash_is_the_signs_about_the_median_of_low_frequencies():
  picture = np.asarray(Image.fromarray(scene(1)).convert('L').resize((SIDE, SIDE)))
  low = fft.dctn(picture.astype(float))[1:9, 1:9]
  bits = [int(hashes(picture)[0]) >> k & 1 for k in range(64)]
  assert bits == (low > np.median(low)).ravel().astype(int).tolist()
  assert sum(bits) == 32


@pytest.mark.parametrize('symmetry', range(8))
def test_hashes_of_all_symmetries_are_those_of_the_transformed_picture(symmetry):
  picture = np.asarray(Image.fromarray(scene(2)).convert('L').resize((SIDE, SIDE)))
  assert hashes(transformed(picture, symmetry))[0] == hashes(picture)[symmetry]


def test_ways_are_the_eight_and_their_names_are_right():
  picture = np.arange(6).reshape(2, 3)
  turned = {
    name: transformed(picture, symmetry).tolist()
    for symmetry, name in enumerate(duplicates.SYMMETRY_NAMES)
  }
  assert turned == {
    'as it is': picture.tolist(),
    'flipped left to right': np.fliplr(picture).tolist(),
    'flipped upside down': np.flipud(picture).tolist(),
    'turned by 180 degrees': np.rot90(picture, 2).tolist(),
    'flipped about the diagonal': picture.T.tolist(),
    'turned by 90 degrees clockwise': np.rot90(picture, -1).tolist(),
    'turned by 90 degrees anticlockwise': np.rot90(picture, 1).tolist(),
    'flipped about the other diagonal': np.rot90(picture, 2).T.tolist(),
  }
  assert len(SYMMETRIES) == len({str(value) for value in turned.values()}) == 8


@pytest.mark.parametrize('symmetry', range(8))
def test_the_symmetry_of_a_pair_turns_the_first_into_the_second(symmetry):
  image = scene(3, 100, 100)
  prints = [
    fingerprint(image),
    fingerprint(np.ascontiguousarray(transformed(image, symmetry)) // 2),
  ]
  (pair,) = near(prints, 'ab', ['train', 'train'])
  assert pair.symmetry == symmetry


def test_details_correlate_as_numpy_says():
  pictures = np.stack(
    [np.asarray(Image.fromarray(scene(seed)).convert('L').resize((SIDE, SIDE))) for seed in (0, 1)]
  )
  high = [p - ndimage.gaussian_filter(p, 2.0) for p in pictures.astype(np.float64)]
  high = [p / (np.sqrt(ndimage.gaussian_filter(p * p, 3.0)) + 5.0) for p in high]
  first, second = duplicates.details(pictures)
  assert first @ second == pytest.approx(
    np.corrcoef(high[0].ravel(), high[1].ravel())[0, 1], abs=1e-5
  )
  assert not duplicates.details(np.full((1, SIDE, SIDE), 7, np.uint8)).any()


def test_same_files_and_same_pixels():
  a, b = scene(0), scene(1)
  prints = [
    fingerprint(a, b'1'),
    fingerprint(b, b'2'),
    fingerprint(a, b'1'),
    fingerprint(a, b'3'),
    fingerprint(b),
  ]
  assert same(prints) == [
    Pair(0, 2, 'file', 1.0, 0),
    Pair(0, 3, 'pixels', 1.0, 0),
    Pair(1, 4, 'pixels', 1.0, 0),
  ]
  assert near(prints, range(5), ['train'] * 5) == []  # Not told twice.
  line = np.zeros((1, 6, 1), np.uint8)
  # The same bytes in another shape.
  assert same([fingerprint(line), fingerprint(line.reshape(6, 1, 1))]) == []


def test_images_of_one_group_may_be_alike_in_one_split_only():
  image = scene(0)
  prints = [fingerprint(image), fingerprint(as_jpeg(image, 60))]
  assert near(prints, ['p', 'p'], ['train', 'train']) == []
  assert len(near(prints, ['p', 'p'], ['train', 'test'])) == 1
  assert len(near(prints, ['p', 'q'], ['train', 'train'])) == 1


def test_blank_images_are_not_alike():
  prints = [fingerprint(np.full((20, 20, 3), level, np.uint8)) for level in (0, 1, 200)]
  assert near(prints, range(3), ['train'] * 3) == []
  assert near([], [], []) == near(prints[:1], 'a', 'a') == []


def test_memory_is_bounded_where_all_are_alike():
  image = scene(0)
  prints = [
    fingerprint(image + np.uint8(k % 8))._replace(pixels=str(k).encode()) for k in range(300)
  ]
  splits = ['train'] * 150 + ['test'] * 150
  tracemalloc.start()
  pairs = near(prints, range(300), splits)
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert peak < 30e6
  of_first = [pair for pair in pairs if pair.first == 0]
  assert len(of_first) == 2 * duplicates.PARTNERS
  assert sum(pair.second >= 150 for pair in of_first) == duplicates.PARTNERS
