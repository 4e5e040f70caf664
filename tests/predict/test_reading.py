"""What becomes of a file that cannot be read, and of one with several pages."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ahm_jax.config import Config
from ahm_jax.data.readers import raster
from ahm_jax.errors import UserError
from ahm_jax.predict.listing import list_images
from ahm_jax.predict.options import Options
from ahm_jax.predict.reading import Problem, read

HALF = Options(0.5)


@pytest.fixture
def root(tmp_path):
  Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(tmp_path / 'a.png')
  return tmp_path


def read_a(root, monkeypatch, error):
  def refuse(*_):
    raise error

  with monkeypatch.context() as patch:
    patch.setattr(raster, 'read', refuse)
    return read(root, 'a.png', Config(), HALF)


@pytest.mark.parametrize(
  'number', [errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.ENOENT, errno.ENOMEM]
)
def test_what_the_system_refuses_of_a_file_is_its_status(root, monkeypatch, number):
  (problem,) = read_a(root, monkeypatch, OSError(number, os.strerror(number)))
  assert isinstance(problem, Problem) and problem.last
  assert f'/a.png cannot be read ({os.strerror(number)})' in problem.text
  assert 'damaged' not in problem.text and '\n' not in problem.text


def test_so_is_too_little_memory_wherever_it_is_missing(root, monkeypatch):
  (problem,) = read_a(root, monkeypatch, MemoryError())
  assert 'does not fit into memory' in problem.text
  monkeypatch.setattr('ahm_jax.predict.reading.view', lambda *_: np.empty(2**58))
  (problem,) = read(root, 'a.png', Config(), HALF)
  assert '/a.png does not fit into memory' in problem.text


def test_what_cannot_be_looked_at_is_listed_and_has_its_status(root, monkeypatch):
  """It may be DICOM, and is not passed over."""
  (root / 'IM0001').write_bytes(b'')
  real = Path.open

  def refuse(path, *arguments, **options):
    if path.name == 'IM0001':
      raise OSError(errno.EIO, os.strerror(errno.EIO))
    return real(path, *arguments, **options)

  monkeypatch.setattr(Path, 'open', refuse)
  assert 'IM0001' in list_images(root).images
  (problem,) = read(root, 'IM0001', Config(), HALF)
  assert '/IM0001 cannot be read (Input/output error)' in problem.text


@pytest.mark.parametrize('number', [errno.EMFILE, errno.ENFILE])
def test_what_it_refuses_of_all_files_ends_the_run(root, monkeypatch, number):
  with pytest.raises(UserError, match=r'a\.png cannot be read \(Too many open files') as refusal:
    read_a(root, monkeypatch, OSError(number, os.strerror(number)))
  assert '\n' not in str(refusal.value)


@pytest.mark.parametrize(
  ('make', 'said'),
  [
    (os.mkfifo, 'is a pipe, socket, device or folder; remove it'),
    (lambda path: path.symlink_to('/dev/zero'), 'leads out of the folder'),
    (lambda path: path.symlink_to('nothing'), 'is a link to nothing'),
    (lambda _: None, 'cannot be read (No such file or directory)'),
  ],
  ids=['pipe', 'device', 'broken link', 'gone'],
)
def test_what_is_no_file_is_not_opened(root, make, said):
  make(root / 'b.png')
  (problem,) = read(root, 'b.png', Config(), HALF)
  assert said in problem.text


@pytest.mark.parametrize(
  ('name', 'count', 'options', 'pages'),
  [
    ('one.tif', 1, {}, 1),
    ('stack.tif', 5, {}, 5),
    ('stack.TIFF', 3, {'compression': 'tiff_lzw'}, 3),
    ('named.png', 4, {'format': 'TIFF'}, 4),
    ('moving.webp', 2, {'lossless': True}, 2),
    ('moving.png', 3, {}, 3),
    ('one.png', 1, {}, 1),
    ('one.jpg', 1, {}, 1),
    ('preview.jpg', 2, {'format': 'MPO'}, 1),
  ],
)
def test_pages_are_counted_and_the_first_one_is_read(tmp_path, name, count, options, pages):
  values = [250, 10, 90, 170, 40][:count]
  first, *others = (Image.fromarray(np.full((40, 50, 3), value, np.uint8)) for value in values)
  several = {'save_all': True, 'append_images': others} if others else {}
  first.save(tmp_path / name, **several, **options)
  (found,) = read(tmp_path, name, Config(), HALF)
  assert found.pages == pages and found.size == (40, 50)
  assert np.abs(next(found.view.windows()).astype(int) - 250).max() <= 2


def test_a_volume_has_slices_and_no_pages(tmp_path):
  nibabel = pytest.importorskip('nibabel')
  volume = np.zeros((20, 24, 3), np.int16)
  nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / 'scan.nii.gz')
  found = read(tmp_path, 'scan.nii.gz', Config(), HALF)
  assert [(part.number, part.pages) for part in found] == [(0, ''), (1, ''), (2, '')]
