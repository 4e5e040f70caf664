"""Broken files by the thousand: readers give pixels of the promised form, or say no; they do not
crash, hang, print or write.

Inputs are whole files of every kind with a few bytes changed, cut out, doubled or put in, and
random bytes. The normal run takes some hundreds, always the same; `pytest -m slow
tests/data/test_fuzz.py` takes over 10,000, other ones each time.
"""

import contextlib
import gzip
import io
import os
import resource
import signal
import sys
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from ahm_jax.config import DataConfig
from ahm_jax.data import records
from ahm_jax.data.readers import dicom, dispatch
from ahm_jax.data.readers.base import VOLUMES, Unreadable, UnsupportedImage, is_odd
from ahm_jax.data.sets import folder
from ahm_jax.data.sets.items import SPLITS, Item
from ahm_jax.errors import UserError
from tests.data.readers.tiffs import stacked

QUICK = 60  # Inputs for each kind of file in the normal run.
THOROUGH = 1200  # The same in the slow one.
SECONDS = 20  # That one input may take, on a busy machine.
GROWTH = 2**30  # Bytes that the process may grow by.
COLOURS = np.random.default_rng(0).integers(0, 256, (24, 20, 3), np.uint8)
GREY = np.random.default_rng(1).integers(0, 4096, (24, 20)).astype(np.uint16)
EXAMPLES = Path(pydicom.__file__).parent / 'data' / 'test_files'


# Whole files.


def encoded(image, kind, **options):
  stream = io.BytesIO()
  (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(
    stream, kind, **options
  )
  return stream.getvalue()


def with_orientation():
  exif = Image.Exif()
  exif[0x0112], exif[0x010F] = 6, 'maker'
  return exif


def jpegs():
  smooth = Image.fromarray(COLOURS).resize((60, 50))
  yield encoded(smooth, 'JPEG', exif=with_orientation())
  yield encoded(smooth, 'JPEG', progressive=True, icc_profile=bytes(200))
  yield encoded(smooth.convert('L'), 'JPEG')
  yield encoded(smooth.convert('CMYK'), 'JPEG')
  yield encoded(smooth, 'MPO', save_all=True, append_images=[smooth])


def pngs():
  whole = Image.fromarray(COLOURS)
  yield encoded(whole, 'PNG', exif=with_orientation())
  yield encoded(GREY, 'PNG')
  yield encoded(COLOURS[..., 0] > 99, 'PNG')
  yield encoded(whole.convert('P'), 'PNG', transparency=bytes(range(250)))
  yield encoded(whole.convert('LA'), 'PNG', pnginfo=None, dpi=(72, 72))
  yield encoded(whole, 'PNG', save_all=True, append_images=[whole.rotate(90)])


def tiffs():
  whole = Image.fromarray(COLOURS)
  for compression in ('raw', 'tiff_lzw', 'tiff_adobe_deflate', 'packbits', 'jpeg'):
    yield encoded(whole, 'TIFF', compression=compression, exif=with_orientation())
  yield encoded(COLOURS[..., 0] > 99, 'TIFF', compression='group4')
  yield encoded(GREY, 'TIFF', compression='tiff_lzw')
  yield encoded(GREY.astype(np.float32), 'TIFF')
  yield encoded(whole.convert('P'), 'TIFF', big_tiff=True)
  yield stacked({'values': GREY[:5], 'tags': [(254, 'I', [1])]}, {'values': COLOURS[..., 0]})


def bmps():
  whole = Image.fromarray(COLOURS)
  for image in (whole, whole.convert('P'), whole.convert('1'), whole.convert('RGBA')):
    yield encoded(image, 'BMP')


def webps():
  yield encoded(COLOURS, 'WEBP', exif=with_orientation())
  yield encoded(np.dstack([COLOURS, COLOURS[..., 0]]), 'WEBP', lossless=True)


def dicoms():
  for name in (
    'MR_small.dcm',  # 16 bits
    'MR_small_RLE.dcm',
    'MR_small_bigendian.dcm',
    'MR_small_implicit.dcm',
    'MR_small_jp2klossless.dcm',
    'SC_rgb_small_odd.dcm',
    'SC_rgb_small_odd_jpeg.dcm',
    'SC_jpeg_no_color_transform.dcm',
    'rtdose.dcm',  # Frames.
    'rtdose_rle.dcm',
    'image_dfl.dcm',  # Deflated.
    'rtplan.dcm',  # No image.
  ):
    yield (EXAMPLES / name).read_bytes()


def niftis():
  for kind, dtype in (
    (nibabel.Nifti1Image, np.int16),
    (nibabel.Nifti2Image, np.float32),
    (nibabel.Nifti1Image, np.uint8),
  ):
    image = kind(GREY.reshape(8, 10, 6).astype(dtype), np.diag([-1, 2, 3, 1]))
    image.header.set_slope_inter(2 if dtype == np.int16 else 1, 0)
    yield image.to_bytes()


WHOLE = {
  '.jpg': list(jpegs()),
  '.png': list(pngs()),
  '.tif': list(tiffs()),
  '.bmp': list(bmps()),
  '.webp': list(webps()),
  '.dcm': list(dicoms()),
  '.nii': list(niftis()),
  '.nii.gz': [gzip.compress(data, mtime=0) for data in niftis()],
}
TABLE = [
  b'image,label,split,group\na,x,train,1\nb,y,test,2\nc.png,"x, ""y""",validation,3\n',
  b'\xef\xbb\xbfimage;label\r\na;x\r\n',
  'image,label\na,=1+1\nb,ß\n'.encode('utf-16'),
]


# Broken ones.

CHUNKS = st.one_of(
  st.binary(min_size=1, max_size=12),
  st.sampled_from(
    [
      b'\0',
      b'\xff',
      b'\0' * 4,
      b'\xff' * 4,
      b'\x7f\xff\xff\xff',
      b'\xff\xff\xff\x7f',
      b'\x00\x00\x00\x80',
      b'\n,"',
    ]
  ),
)
CHANGE = st.tuples(
  st.sampled_from(['set', 'set', 'set', 'insert', 'cut', 'double', 'end']),
  st.integers(0, 2**20),
  CHUNKS,
)


def broken(whole, changes):
  data = bytearray(whole)
  for kind, place, chunk in changes:
    # Headers come first and decide most: half of the places are among the first 256 bytes.
    place = (place >> 1) % max(1, min(256, len(data)) if place & 1 else len(data))
    if kind == 'set':
      data[place : place + len(chunk)] = chunk
    elif kind == 'insert':
      data[place:place] = chunk
    elif kind == 'cut':
      del data[place : place + 8 * len(chunk)]
    elif kind == 'double':
      data[place:place] = data[place : place + 64 * len(chunk)]
    else:
      del data[place:]
  return bytes(data)


def inputs(whole):
  """Changed files, and random bytes with or without the beginning of one."""
  changed = st.builds(broken, st.sampled_from(whole), st.lists(CHANGE, min_size=1, max_size=6))
  noise = st.builds(
    lambda start, rest: start + rest,
    st.sampled_from([data[:40] for data in whole] + [b'']),
    st.binary(max_size=300),
  )
  return st.one_of(changed, changed, changed, noise)


# What is watched.


class Watch:
  """Notes what the process opens for writing, and starts, outside of a folder.

  An audit hook cannot be taken off again.
  """

  inside: Path | None = None
  seen: list = []  # noqa: RUF012
  installed = False

  @classmethod
  def hook(cls, event, arguments):
    if cls.inside is None:
      return
    if event == 'open':
      path, mode, flags = arguments
      writes = (
        any(letter in mode for letter in 'wax+')
        if mode
        else flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
      )
      if writes and not str(path).startswith(str(cls.inside)):
        cls.seen.append((event, str(path)))
    elif event in (
      'os.remove',
      'os.rename',
      'os.mkdir',
      'os.system',
      'subprocess.Popen',
      'os.posix_spawn',
      'socket.connect',
    ):
      cls.seen.append((event, arguments))


@contextlib.contextmanager
def watched(inside):
  """What runs here writes nothing outside of a folder, starts nothing, and ends.

  Hypothesis refuses what was only slow.
  """
  if not Watch.installed:
    sys.addaudithook(Watch.hook)
    Watch.installed = True

  def stop(*_):
    raise TimeoutError(f'longer than {2 * SECONDS} s')

  handler = signal.signal(signal.SIGALRM, stop)
  signal.alarm(2 * SECONDS)
  Watch.seen, Watch.inside = [], inside
  try:
    yield
  finally:
    Watch.inside = None
    signal.alarm(0)
    signal.signal(signal.SIGALRM, handler)
  assert Watch.seen == []


@contextlib.contextmanager
def in_bounds():
  """What runs here takes no memory beyond bounds."""
  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  yield
  assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < GROWTH


# What is promised.


def check_readers(path):
  """Every reader of `path` gives what it promises, or one of the two exceptions, with one line."""
  for read, check in (
    (lambda: dispatch.read_slices(path, 3, at_least=(32, 32)), check_slices),
    (lambda: dispatch.read_slices(path, 1, window=(40, 400), axis=0), check_slices),
    (lambda: dispatch.read_mask_slices(path), check_masks),
    (lambda: dispatch.read_mask_slices(path, ('a', 'b'), axis=1), check_masks),
  ):
    try:
      found = read()
    except (Unreadable, UnsupportedImage) as error:
      assert path.name in str(error) and str(error).isprintable() and len(str(error)) < 500
    else:
      check(found)
  if path.suffix == '.dcm':
    assert all(text.isprintable() for text in dicom.origin(path))


def check_slices(slices):
  assert slices
  for suffix, picture in slices:
    assert (
      picture.pixels.dtype == np.uint8
      and picture.pixels.ndim == 3
      and picture.pixels.shape[2] in (1, 3)
    )
    assert picture.pixels.size and all(picture.size)
    assert picture.spacing is None or all(0 < length < np.inf for length in picture.spacing)
    assert suffix.isascii()


def check_masks(masks):
  assert masks and all(
    mask.dtype == np.uint8 and mask.ndim == 2 and mask.max() <= 2 for mask in masks
  )


def check_item(path, config):
  """The whole way into a record, with the file as its own mask."""
  found = records.read_item(Item('x', 'train', '', 'x', path, path), config)
  if isinstance(found, list):
    assert all(
      read.record['image'].shape == (16, 16, 3) and read.record['mask'].shape == (16, 16)
      for read in found
    )
  else:
    assert isinstance(found, Unreadable | UnsupportedImage)


def fuzz_files(suffix, count, tmp_path, derandomize):
  path = tmp_path / f'x{suffix}'
  config = DataConfig(name='folder', root=str(tmp_path), image_size=16)
  if suffix in VOLUMES:
    dispatch.require(path)  # Imports may write bytecode.
  for whole in WHOLE[suffix]:
    path.write_bytes(whole)
    check_readers(path)

  @settings(
    max_examples=count,
    derandomize=derandomize,
    database=None,
    deadline=1000 * SECONDS,
    suppress_health_check=list(HealthCheck),
  )
  @given(inputs(WHOLE[suffix]))
  def run(data):
    path.write_bytes(data)
    with watched(tmp_path):
      check_readers(path)
      check_item(path, config)

  with in_bounds():
    run()
  assert [left.name for left in tmp_path.iterdir()] == [path.name]


def fuzz_tables(count, tmp_path, derandomize):
  root = tmp_path / 'set'
  (root / 'images').mkdir(parents=True)
  for name in 'abc':
    Image.fromarray(COLOURS).save(root / 'images' / f'{name}.png')
  config = DataConfig(name='folder', root=str(root), image_size=16)

  @settings(max_examples=count, derandomize=derandomize, database=None, deadline=1000 * SECONDS)
  @given(inputs(TABLE))
  def run(data):
    (root / 'labels.csv').write_bytes(data)
    with watched(tmp_path):
      try:
        items = folder.SOURCE.list_usable(config).items
      except UserError as error:
        assert str(error).isprintable() and len(str(error)) < 2000
      else:
        assert [item.name for item in items] == ['a', 'b', 'c']
        assert all(item.split in SPLITS for item in items)
        assert not any(is_odd(item.label + item.group) for item in items)

  with in_bounds():
    run()


@pytest.mark.parametrize('suffix', WHOLE)
def test_broken_files(suffix, tmp_path, capfd):
  fuzz_files(suffix, QUICK, tmp_path, derandomize=True)
  assert capfd.readouterr() == ('', '')


def test_broken_tables(tmp_path, capfd):
  fuzz_tables(QUICK, tmp_path, derandomize=True)
  assert capfd.readouterr() == ('', '')


@pytest.mark.slow
@pytest.mark.parametrize('suffix', WHOLE)
def test_many_broken_files(suffix, tmp_path, capfd):
  fuzz_files(suffix, THOROUGH, tmp_path, derandomize=False)
  assert capfd.readouterr() == ('', '')


@pytest.mark.slow
def test_many_broken_tables(tmp_path, capfd):
  fuzz_tables(THOROUGH, tmp_path, derandomize=False)
  assert capfd.readouterr() == ('', '')
