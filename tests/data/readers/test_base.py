"""What becomes of the errors that decoders and the system raise."""

import contextlib
import errno
import os
import tempfile
import zipfile
from pathlib import Path, PurePath

import pytest

from ahm_jax.data.readers import archives, dispatch, raster
from ahm_jax.data.readers.base import (
  SUFFIXES,
  Held,
  UnavailableFile,
  Unreadable,
  UnsupportedImage,
  decoding,
)


def numbered(number: int) -> OSError:
  return OSError(number, os.strerror(number))


@pytest.mark.parametrize(
  ('error', 'said'),
  [(numbered(number), os.strerror(number)) for number in (errno.EACCES, errno.EIO, errno.EMFILE)]
  + [(MemoryError(), 'does not fit into memory')],
)
def test_what_the_system_refuses_is_not_called_damaged(error, said):
  with (
    pytest.raises(UnavailableFile, match=rf'^images/a\.png .*{said}'),
    decoding(Path('images/a.png')),
  ):
    raise error


@pytest.mark.parametrize(
  'error', [OSError('truncated'), numbered(errno.EINVAL), ValueError(), SyntaxError(), EOFError()]
)
def test_what_a_decoder_stumbles_over_is_unreadable(tmp_path, error):
  path = tmp_path / 'a.png'
  path.write_bytes(b'content')
  with pytest.raises(Unreadable, match=rf'^{tmp_path.name}/a\.png$'), decoding(path):
    raise error


@pytest.mark.parametrize('number', [errno.EIO, errno.EACCES, errno.ESTALE])
def test_a_decoder_that_does_not_say_that_the_system_refused_is_seen_through(
  tmp_path, monkeypatch, number
):
  """As libtiff, which reads by itself and only says that it failed."""
  path = tmp_path / 'a.tif'
  path.write_bytes(b'content')

  def refuse(*_):
    raise numbered(number)

  monkeypatch.setattr(Path, 'open', refuse)
  with pytest.raises(UnavailableFile, match=os.strerror(number)), decoding(path):
    raise OSError('decoder error -2')


@pytest.mark.parametrize('suffix', SUFFIXES)
@pytest.mark.parametrize('make', [os.mkfifo, os.mkdir, lambda path: path.symlink_to('/dev/zero')])
def test_what_is_no_file_is_refused_at_once(tmp_path, suffix, make):
  """Reading a pipe would wait for ever, and a device would never end."""
  path = tmp_path / f'a{suffix}'
  make(path)
  for read in (lambda path: dispatch.read_slices(path, 3), dispatch.read_mask_slices):
    with pytest.raises(UnsupportedImage, match=r'is a pipe, socket, device or folder'):
      read(path)
  assert raster.describe(path) == ('', 1) and raster.orientation(path) == 1


@contextlib.contextmanager
def without_rights():
  """Root may read everything, and is nobody meanwhile."""
  was = os.geteuid()
  if not was:
    try:
      os.seteuid(65534)
    except OSError as error:  # As in some containers.
      pytest.skip(f'root cannot be somebody else here: {error}')
  try:
    yield
  finally:
    if not was:
      os.seteuid(was)


@pytest.mark.parametrize('is_folder', [False, True])
@pytest.mark.parametrize('suffix', SUFFIXES)
def test_a_file_that_may_not_be_read(suffix, is_folder):
  """Itself, or whatever is in its folder."""
  with tempfile.TemporaryDirectory() as folder:  # The folders above others of ours are private.
    Path(folder).chmod(0o755)
    path = Path(folder) / 'images' / f'a{suffix}'
    path.parent.mkdir(0o755)
    path.write_bytes(b'content')
    with contextlib.suppress(Unreadable, UnsupportedImage):
      dispatch.read_slices(path, 3)  # Nobody may import the packages that this imports.
    (path.parent if is_folder else path).chmod(0)
    for read in (lambda path: dispatch.read_slices(path, 3), dispatch.read_mask_slices):
      with without_rights(), pytest.raises(UnavailableFile, match='Permission denied'):
        read(path)


@pytest.mark.parametrize('suffix', SUFFIXES)
def test_a_file_that_has_gone(tmp_path, suffix):
  with pytest.raises(UnavailableFile, match='No such file'):
    dispatch.read_slices(tmp_path / f'a{suffix}', 3)


@pytest.mark.parametrize('number', [errno.EIO, errno.EACCES, errno.EMFILE])
def test_an_archive_that_the_system_refuses_is_not_to_be_fetched_again(
  tmp_path, monkeypatch, number
):
  def refuse(*_):
    raise numbered(number)

  monkeypatch.setattr(zipfile, 'ZipFile', refuse)
  with pytest.raises(UnavailableFile, match=os.strerror(number)):
    archives.members(tmp_path / 'a.zip', 'download it again')


@pytest.mark.parametrize('name', ['a.png', 'a.tif'])
def test_an_error_within_an_archive_is_that_of_the_system(name):
  def refuse():
    raise numbered(errno.EIO)

  with pytest.raises(UnavailableFile, match=os.strerror(errno.EIO)):
    dispatch.read_slices(Held(PurePath('a.zip') / name, refuse), 3)
