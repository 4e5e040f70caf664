"""Masks as NIfTI volumes that lie where their images do."""

import errno
import gzip
from pathlib import Path

import numpy as np

from ahm_jax.data.readers import nifti
from ahm_jax.data.readers.base import Unreadable, UnsupportedImage
from ahm_jax.data.readers.nifti import Layout

COMPRESSION = 3  # Of gzip; masks are small by any.


def write(path: Path, labels: np.ndarray, layout: Layout, compressed: bool) -> None:
  """Writes a mask of 8 bits as a NIfTI volume, and reads it back.

  Its header is that of the image but for what tells of values, and without extensions; so every
  program finds both in one place, whichever of the affines it takes.

  Args:
    path: of any name.
    labels: uint8 [X, Y, Z], in RAS+ orientation.
    layout: of the image.
    compressed: by gzip.

  Raises:
    OSError: it cannot be written, or is not read back as it was.
  """
  data = _encoded(labels, layout)
  with path.open('wb') as file:
    if compressed:  # Without name and time, so that the same masks give the same file.
      with gzip.GzipFile('', 'wb', COMPRESSION, file, mtime=0) as stream:
        stream.write(data)
    else:
      file.write(data)
  try:
    held = nifti.read_labels(path, 0)
  except (Unreadable, UnsupportedImage) as error:
    raise OSError(errno.EIO, 'what was written cannot be read back', str(path)) from error
  if held.dtype != np.uint8 or not np.array_equal(held, labels):
    raise OSError(errno.EIO, 'what was written is not what is read back', str(path))


def _encoded(labels: np.ndarray, layout: Layout) -> bytes:
  header = layout.header.copy()
  header.set_data_dtype(np.uint8)
  if np.prod(header.get_data_shape()) != labels.size:  # Of several modalities.
    header.set_data_shape(layout.shape)
  for name, value in (('scl_slope', 1), ('scl_inter', 0), ('cal_max', 0), ('cal_min', 0)):
    header[name] = value
  header['vox_offset'] = header.single_vox_offset
  block = header.binaryblock.ljust(header.single_vox_offset, b'\0')
  return block + layout.stored(labels).tobytes(order='F')
