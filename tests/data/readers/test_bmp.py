import io
import struct

import numpy as np
import pytest
from PIL import Image

from ahm_jax.data.readers.dispatch import read_mask_slices, read_slices

DISC = np.hypot(*(np.mgrid[:12, :22] - np.array([[[5]], [[9]]]))) < 4
BLACK, WHITE, RED = (0, 0, 0), (255, 255, 255), (255, 0, 0)


def bmp(indices, palette, bits, os2=False):
  """A BMP of palette indices [H, W], bottom row first."""
  height, width = indices.shape
  colours = b''.join(bytes(colour[::-1]) + b'\0' * (not os2) for colour in palette)
  padded = np.pad(indices.astype(np.uint8), [(0, 0), (0, -width % 8)])
  packed = np.unpackbits(padded[..., None], axis=-1)[..., 8 - bits :].reshape(height, -1)
  rows = [row.tobytes() + b'\0' * (-len(row) % 4) for row in np.packbits(packed, -1)[::-1]]
  data = b''.join(rows)
  if os2:
    header = struct.pack('<IHHHH', 12, width, height, 1, bits)
  else:
    sizes = 40, width, height, 1, bits, 0, len(data), 2835, 2835, len(palette), 0
    header = struct.pack('<IiiHHIIiiII', *sizes)
  offset = 14 + len(header) + len(colours)
  return b'BM' + struct.pack('<IHHI', offset + len(data), 0, 0, offset) + header + colours + data


def of_pillow(indices):
  image, stream = Image.fromarray(indices.astype(np.uint8), 'P'), io.BytesIO()
  image.putpalette([*BLACK, *WHITE])
  image.save(stream, 'BMP')
  return stream.getvalue()


@pytest.mark.parametrize('bits', [1, 4, 8])
@pytest.mark.parametrize(
  ('palette', 'lesion'),
  [((BLACK, WHITE), 1), ((WHITE, BLACK), 0), ((BLACK, RED), 1)],
  ids=['black, white', 'white, black', 'black, red'],
)
def test_a_palette_of_two_colours(tmp_path, palette, lesion, bits):
  path = tmp_path / 'a.bmp'
  path.write_bytes(bmp(DISC if lesion else ~DISC, palette, bits))
  ((_, picture),) = read_slices(path, 3)
  shown = np.asarray(palette, np.uint8)[(DISC if lesion else ~DISC).astype(int)]
  np.testing.assert_array_equal(picture.pixels, shown)
  np.testing.assert_array_equal(read_mask_slices(path)[0], DISC)


def test_what_pillow_writes_of_a_palette_of_black_and_white(tmp_path):
  (tmp_path / 'a.bmp').write_bytes(of_pillow(DISC))
  np.testing.assert_array_equal(read_mask_slices(tmp_path / 'a.bmp')[0], DISC)


@pytest.mark.parametrize('bits', [4, 8])
@pytest.mark.parametrize('levels', [3, 16])
def test_grey_levels_in_order_are_what_is_shown(tmp_path, bits, levels):
  indices = np.arange(DISC.size).reshape(DISC.shape) % levels
  palette = [(level,) * 3 for level in range(levels)]
  (tmp_path / 'a.bmp').write_bytes(bmp(indices, palette, bits))
  ((_, picture),) = read_slices(tmp_path / 'a.bmp', 1)
  np.testing.assert_array_equal(picture.pixels[..., 0], indices)


def test_the_header_of_os2(tmp_path):
  """It has no count of colours: there are all 256."""
  palette = [(255 - level,) * 3 for level in range(256)]
  (tmp_path / 'a.bmp').write_bytes(bmp(DISC, palette, 8, os2=True))
  ((_, picture),) = read_slices(tmp_path / 'a.bmp', 1)
  np.testing.assert_array_equal(picture.pixels[..., 0], 255 - DISC.astype(np.uint8))
