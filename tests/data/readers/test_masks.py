"""Class indices from what masks store."""

from pathlib import Path

import numpy as np
import pytest

from ahm_jax.data.readers import dispatch, masks
from ahm_jax.data.readers.base import UnsupportedImage
from tests.data.readers import tiffs

FLOATS = [np.float16, np.float32, np.float64]


def indices(values, classes=()):
  return masks.class_indices(np.asarray(values), Path('masks/a.nii'), classes)


@pytest.mark.parametrize('dtype', FLOATS)
@pytest.mark.parametrize('offset', [0, 1e-7, -1e-7, 9e-4, -9e-4])
@pytest.mark.parametrize(('highest', 'classes'), [(1, ()), (255, ()), (2, ('a', 'b'))])
def test_labels_beside_their_integers_are_rounded(dtype, offset, highest, classes):
  expected = np.array([[0, 1], [1, 0]])
  values = (expected * highest + np.array([[offset, -offset], [offset, 0]])).astype(dtype)
  if dtype == np.float16 and highest == 255 and offset:
    pytest.skip('has no number so near')
  found = indices(values, classes)
  assert found.dtype == np.uint8
  np.testing.assert_array_equal(found, expected * (highest if classes else 1))


@pytest.mark.parametrize(
  ('values', 'said'),
  [
    (np.array([0, 1.002], np.float32), 'its values are 0, 1.002; it'),
    (np.array([0, 1.00200001], np.float64), 'its values are 0, 1.00200001; it'),
    (np.array([0, 0.5, 1], np.float16), 'its values are 0, 0.5, 1; it'),
    (np.array([0, 1, np.nan], np.float32), 'its values are 0, 1, nan; it'),
    (np.array([0, np.inf], np.float32), 'its values are 0, inf; it'),
    (np.array([0, 1.0000001, 2.5], np.float64), 'its values are 0, 1.0000001, 2.5; it'),
    (np.array([0, 1.0000001, 3], np.float64), 'its values are 0, 1, 3; it'),
    (np.array([-1, 0], np.int8), 'its values are -1, 0; it'),
    (np.array([0, 2**32 - 1], np.uint32), 'its values are 0, 4294967295; it'),
    (np.arange(9), 'its values are 0, 1, 2, 3, 4, 5, ...; it'),
  ],
)
def test_other_labels_are_shown_with_the_digits_that_matter(values, said):
  with pytest.raises(UnsupportedImage, match=f'^masks/a.nii is not binary: {said}'):
    indices(values)


def test_a_value_that_is_no_class_is_shown_with_the_digits_that_matter():
  with pytest.raises(UnsupportedImage, match=r'holds the value 1\.9980001, but'):
    indices(np.array([0, 1.9980001]), ('a', 'b'))


@pytest.mark.parametrize('top', [1, 2])
def test_float_masks_of_tiff(tmp_path, top):
  values = np.eye(8, dtype=np.float32) * np.float32(top + 1e-6)
  (tmp_path / 'a.tif').write_bytes(tiffs.encoded(values))
  (mask,) = dispatch.read_mask_slices(tmp_path / 'a.tif', ('a', 'b')[: top if top > 1 else 0])
  np.testing.assert_array_equal(mask, np.eye(8) * top)
