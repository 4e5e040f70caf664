import pathlib
import pickle
import sys
import zipfile

import numpy as np
import pytest

from ahm_jax.errors import UserError
from ahm_jax.weights import files

ARRAYS = {'a.weight': np.arange(6, dtype=np.float32).reshape(2, 3).T, 'n': np.int64(7)}


def equal(one, other):
  assert one.keys() == other.keys()
  for name in one:
    np.testing.assert_array_equal(one[name], other[name])
    assert one[name].dtype == other[name].dtype and one[name].shape == np.shape(other[name])


@pytest.mark.parametrize('suffix', files.SUFFIXES)
def test_what_is_written_is_read(tmp_path, suffix):
  if suffix == '.safetensors':
    pytest.importorskip('safetensors')
  path = tmp_path / f'w{suffix}'
  files.write(path, ARRAYS, {'stage': 'segment'})
  equal(files.read(path), ARRAYS)
  assert files.is_weights(str(path)) and not files.is_weights(str(tmp_path))


@pytest.mark.compiles  # No, but to import PyTorch takes seconds.
def test_pytorch_reads_what_we_write(tmp_path):
  pytest.importorskip('torch')
  safetensors_torch = pytest.importorskip('safetensors.torch')
  path = tmp_path / 'w.safetensors'
  files.write(path, ARRAYS, {'stage': 'segment'})
  equal({name: array.numpy() for name, array in safetensors_torch.load_file(path).items()}, ARRAYS)


@pytest.mark.compiles  # As above.
def test_the_hint_for_pytorch_files_works(tmp_path):
  torch = pytest.importorskip('torch')
  pytest.importorskip('safetensors')
  # As milesial's training saves it.
  weights = {
    'a.weight': torch.arange(6.0).reshape(2, 3).T,
    'mask_values': [0, 1],
  }
  torch.save(weights, tmp_path / 'w.pth')
  with pytest.raises(
    UserError, match=r'neither \.safetensors nor \.npz; convert it, in Python with PyTorch: '
  ) as caught:
    files.read(tmp_path / 'w.pth')
  exec(str(caught.value).partition('PyTorch: ')[2])
  equal(files.read(tmp_path / 'w.pth.safetensors'), {'a.weight': ARRAYS['a.weight']})


@pytest.mark.parametrize('name', ['w.pt', 'w.bin', 'w.ckpt', 'w.h5', 'w.keras', 'w.onnx', 'w'])
def test_other_formats_are_refused_unread(tmp_path, name):
  path = tmp_path / name
  path.write_bytes(pickle.dumps(print))
  with pytest.raises(UserError) as caught:
    files.read(path)
  line = str(caught.value)
  assert (
    line.startswith(f'{path} is neither .safetensors nor .npz; convert it') and '\n' not in line
  )
  how = {
    'w.pt': 'safetensors.torch',
    'w.bin': 'weights_only=True',
    'w.h5': 'numpy.savez',
    'w.keras': 'numpy.savez',
  }
  assert how.get(name, '') in line


class Bomb:
  def __reduce__(self):
    return print, ('this must not run',)


def broken_files(tmp_path):
  np.savez(tmp_path / 'good.npz', **ARRAYS)
  whole = (tmp_path / 'good.npz').read_bytes()
  with zipfile.ZipFile(tmp_path / 'text.npz', 'w') as file:
    file.writestr('a.npy', 'no array')
  np.savez(tmp_path / 'objects.npz', a=np.array([Bomb()], object))
  np.save(tmp_path / 'single.npy', ARRAYS['a.weight'])
  (tmp_path / 'single.npy').rename(tmp_path / 'single.npz')
  (tmp_path / 'cut.npz').write_bytes(whole[: len(whole) // 2])
  (tmp_path / 'empty.npz').write_bytes(b'')
  (tmp_path / 'pickle.npz').write_bytes(pickle.dumps(Bomb()))
  (tmp_path / 'folder.npz').mkdir()


@pytest.mark.parametrize(
  'name', ['text', 'objects', 'single', 'cut', 'empty', 'pickle', 'folder', 'nowhere']
)
def test_a_broken_npz_is_refused_in_a_line(tmp_path, capsys, name):
  broken_files(tmp_path)
  with pytest.raises(UserError, match=r'cannot be read|there is no such file') as caught:
    files.read(tmp_path / f'{name}.npz')
  assert '\n' not in str(caught.value)
  assert capsys.readouterr().out == ''


@pytest.mark.parametrize(
  'content',
  [b'', b'\0' * 100, b'\xff' * 100, b'\x02\0\0\0\0\0\0\0{}', b'\x08\0\0\0\0\0\0\0{"a": 1}'],
)
def test_a_broken_safetensors_is_refused_in_a_line(tmp_path, content):
  pytest.importorskip('safetensors')
  (tmp_path / 'w.safetensors').write_bytes(content)
  if content.endswith(b'{}'):
    assert files.read(tmp_path / 'w.safetensors') == {}
    return
  with pytest.raises(
    UserError, match=r'w.safetensors cannot be read \(.*\); save it again'
  ) as caught:
    files.read(tmp_path / 'w.safetensors')
  assert '\n' not in str(caught.value)


def test_without_the_package_it_says_what_to_install(tmp_path, monkeypatch):
  for name in [name for name in sys.modules if name.startswith('safetensors.')]:
    monkeypatch.delitem(sys.modules, name)
  monkeypatch.setitem(sys.modules, 'safetensors', None)
  with pytest.raises(
    UserError,
    match='needs the package safetensors, which is not installed; EXTRAS=interop launch/with_env',
  ):
    files.write(tmp_path / 'w.safetensors', ARRAYS, {})
  (tmp_path / 'w.safetensors').write_bytes(b'\x02\0\0\0\0\0\0\0{}')
  assert files.read(tmp_path / 'w.safetensors') == {}  # Which reading does not ask for.


def test_what_the_system_refuses_is_not_called_damaged(tmp_path, monkeypatch):
  np.savez(tmp_path / 'w.npz', **ARRAYS)

  def refuse(*_, **__):
    raise PermissionError(13, 'Permission denied')

  monkeypatch.setattr(pathlib.Path, 'open', refuse)
  with pytest.raises(UserError, match=r'cannot be read \(Permission denied\); make it readable'):
    files.read(tmp_path / 'w.npz')


@pytest.mark.parametrize('suffix', files.SUFFIXES)
def test_what_is_not_on_the_disk_as_it_was_written_is_told(tmp_path, monkeypatch, suffix):
  if suffix == '.safetensors':
    pytest.importorskip('safetensors')
  sound = files.read

  def other(path):
    return {**sound(path), 'n': np.int64(8)}

  monkeypatch.setattr(files, 'read', other)
  with pytest.raises(UserError, match='does not hold what was written'):
    files.write(tmp_path / f'w{suffix}', ARRAYS, {})


@pytest.mark.parametrize('suffix', files.SUFFIXES)
def test_texts_lie_beside_the_arrays_and_numpy_reads_these(tmp_path, suffix):
  if suffix == '.safetensors':
    pytest.importorskip('safetensors')
  path, texts = tmp_path / f'w{suffix}', {'stage': 'classify', 'vgg_input': 'é\n'}
  files.write(path, ARRAYS, texts)
  assert files.metadata(path) == texts
  files.write(tmp_path / f'none{suffix}', ARRAYS, {})
  assert files.metadata(tmp_path / f'none{suffix}') == {}
  if suffix == '.npz':
    with np.load(path, allow_pickle=False) as held:
      equal(held, ARRAYS)


@pytest.mark.parametrize(
  'told', [b'', b'hello', b'\xff', b'[]', b'{"a": 3}', b'{"a": "b", "a": "c"}', b'[' * 9999]
)
def test_what_else_lies_beside_the_arrays_is_passed_over(tmp_path, told):
  np.savez(tmp_path / 'w.npz', **ARRAYS)
  with zipfile.ZipFile(tmp_path / 'w.npz', 'a') as archive:
    archive.comment = told
  assert files.metadata(tmp_path / 'w.npz') == {}
  equal(files.read(tmp_path / 'w.npz'), ARRAYS)


@pytest.mark.parametrize('told', [b'3', b'"a"', b'{"a": 3}', b'null'])
def test_so_it_is_in_a_safetensors(tmp_path, told):
  header = b'{"__metadata__": %b}' % told
  path = tmp_path / 'w.safetensors'
  path.write_bytes(len(header).to_bytes(8, 'little') + header)
  assert files.metadata(path) == {} and files.read(path) == {}


def test_texts_that_are_not_on_the_disk_as_they_were_written_are_told(tmp_path, monkeypatch):
  monkeypatch.setattr(files, 'metadata', lambda _: {})
  with pytest.raises(UserError, match='does not hold what was written'):
    files.write(tmp_path / 'w.npz', ARRAYS, {'stage': 'segment'})


def test_of_a_damaged_file_no_texts_are_read(tmp_path):
  broken_files(tmp_path)
  with pytest.raises(UserError, match='cannot be read'):
    files.metadata(tmp_path / 'cut.npz')
