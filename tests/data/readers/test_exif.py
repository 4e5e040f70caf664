"""The EXIF orientation, against what Pillow makes of it."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from ahm_jax.data.readers import exif

PICTURE = np.random.default_rng(0).integers(0, 256, (5, 7), np.uint8)


@pytest.mark.parametrize('orientation', range(1, 9))
def test_turns_are_pillows(tmp_path, orientation):
  tags = Image.Exif()
  tags[0x0112] = orientation
  Image.fromarray(PICTURE).save(tmp_path / 'a.png', exif=tags)
  with Image.open(tmp_path / 'a.png') as picture:
    assert exif.orientation(picture) == orientation
    turned = picture.transpose(exif.TURNS[orientation]) if orientation > 1 else picture
    np.testing.assert_array_equal(turned, ImageOps.exif_transpose(picture))
    assert (turned.size != picture.size) == (orientation in exif.QUARTER_TURNS)


@pytest.mark.parametrize('value', [0, 9, 'x'])
def test_what_is_no_orientation_turns_nothing(value):
  picture = Image.fromarray(PICTURE)
  picture.getexif()[0x0112] = value
  assert exif.orientation(picture) == 1
