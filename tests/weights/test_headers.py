"""Weights of strangers: what a file claims is held against what the network has before anything is
allocated for it.
"""

import functools
import io
import json
import os
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from ahm_jax.errors import UserError
from ahm_jax.models.unet import UNet
from ahm_jax.weights import files, loading, names, saving

SHAPE = (1, 32, 32, 3)
FIRST = 'inc.double_conv.0.weight'
NETWORK = UNet(out_channels=1, width=2)
MEGABYTES = 20  # That refusing a file may take.


@pytest.fixture(scope='module', autouse=True)
def shapes_once():
  """The shapes of NETWORK are found once: to trace it takes most of a test."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(loading, 'variable_shapes', functools.cache(loading.variable_shapes))
    yield


@pytest.fixture(scope='module')
def weights(draw):
  """Those of NETWORK by foreign names."""
  return saving.outward(draw(NETWORK, SHAPE), names.unet())


def npy(header, content=b'', version=1):
  text = header if isinstance(header, bytes) else header.encode()
  size = struct.pack('<H' if version == 1 else '<I', len(text))
  return b'\x93NUMPY' + bytes([version, 0]) + size + text + content


def told(shape='(2,)', descr="'<f4'", order='False'):
  return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n"


def member(content, name=f'{FIRST}.npy', kind=zipfile.ZIP_STORED):
  """A file of one member."""
  held = io.BytesIO()
  with zipfile.ZipFile(held, 'w', kind) as archive:
    archive.writestr(name, content)
  return held.getvalue()


def patched(archive, offsets, change):
  """A sound archive with another number in the member's own header and in the directory."""
  spoilt = bytearray(archive)
  places = spoilt.find(b'PK\x03\x04') + offsets[0], spoilt.find(b'PK\x01\x02') + offsets[1]
  for place in places:
    spoilt[place : place + len(change)] = change
  return bytes(spoilt)


def twice():
  held = io.BytesIO()
  with zipfile.ZipFile(held, 'w') as archive:
    for name in (f'{FIRST}.npy', FIRST):
      archive.writestr(name, npy(told(), b'\0' * 8))
  return held.getvalue()


EIGHT = npy(told(), b'\0' * 8)
LIE = 'is not as long as its header says'
NPZ = {
  'claims 2^42': (member(npy(told('(4398046511104,)'))), LIE),
  'claims 2^42 twice': (member(npy(told('(4398046511104, 4398046511104)'))), LIE),
  'claims less': (member(npy(told('(1,)'), b'\0' * 8)), LIE),
  'negative': (member(npy(told('(-2,)'), b'\0' * 8)), LIE),
  'negative twice': (member(npy(told('(-2, -1)'), b'\0' * 8)), LIE),
  'objects': (member(npy(told(descr="'|O'"), b'\0' * 16)), 'holds Python objects'),
  'objects in a field': (
    member(npy(told(descr="[('a', '|O')]"), b'\0' * 16)),
    'holds Python objects',
  ),
  'encrypted': (patched(member(EIGHT), (6, 8), b'\1\0'), 'it is encrypted'),
  'compression': (patched(member(EIGHT), (8, 10), b'\x63\0'), 'its compression, number 99'),
  'bzip2': (member(EIGHT, kind=zipfile.ZIP_BZIP2), 'its compression, number 12'),
  'lzma': (member(EIGHT, kind=zipfile.ZIP_LZMA), 'its compression, number 14'),
  'twice': (twice(), f"it holds '{FIRST}' twice"),
  'no header': (member(b'no array'), 'is no array'),
  'other member': (member(b'hello', 'README.txt'), "'README.txt' is no array"),
  'version': (member(b'\x93NUMPY\x09\x00' + EIGHT[8:]), 'is no array'),
  'header that is code': (member(npy("__import__('os')\n")), 'is damaged'),
  'header of nothing': (member(npy('')), 'is damaged'),
  'header of zeros': (member(npy(b'\0' * 64)), 'is damaged'),
  'deep header': (member(npy('(' * 30000)), 'is damaged'),
  'deep header of lists': (member(npy('[' * 900 + ']' * 900)), 'is damaged'),
  'header with more': (member(npy("{'descr': '<f4'}\n")), 'is damaged'),
  'shape of fractions': (member(npy(told('(1.5,)'))), 'is damaged'),
  'unknown type': (member(npy(told(descr="'<q9'"))), 'is damaged'),
  'long header': (
    # Made only where it is needed: that takes a while.
    lambda: member(npy(b' ' * 2**27, version=2), kind=zipfile.ZIP_DEFLATED),
    'the header of .* is too long',
  ),
  'header cut short': (member(npy(told())[:30]), 'is damaged'),
  'header of 4 GiB': (member(b'\x93NUMPY\2\0\xff\xff\xff\xff'), 'is too long'),
}


def refused_in_little_memory(path, content=None):
  if content is not None:
    path.write_bytes(content)
  tracemalloc.start()
  try:
    with pytest.raises(UserError) as caught:
      loading.unet(path, NETWORK, SHAPE)
    most = tracemalloc.get_traced_memory()[1]
  finally:
    tracemalloc.stop()
  line = str(caught.value)
  assert '\n' not in line and line.startswith(str(path)) and len(line) < 700
  assert most < MEGABYTES * 2**20
  return line


@pytest.mark.parametrize(('content', 'said'), NPZ.values(), ids=NPZ)
def test_an_npz_that_is_wrong_is_refused(tmp_path, content, said):
  content = content() if callable(content) else content
  line = refused_in_little_memory(tmp_path / 'w.npz', content)
  assert line.endswith('; save it again')
  with pytest.raises(UserError, match=said):
    files.read(tmp_path / 'w.npz')


def test_an_npz_that_inflates_a_thousandfold_is_held_against_the_network(tmp_path):
  path = tmp_path / 'w.npz'
  with (
    zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive,
    archive.open(f'{FIRST}.npy', 'w', force_zip64=True) as file,
  ):
    file.write(npy(told('(16, 1048576)'), b''))
    for _ in range(16):
      file.write(bytes(2**22))
  assert path.stat().st_size < 2**20
  assert f'{FIRST} is 16x1048576, not 2x3x3x3; ' in refused_in_little_memory(path)


def test_a_large_array_that_is_not_used_is_not_read(tmp_path, weights):
  path = tmp_path / 'w.npz'
  np.savez_compressed(path, **weights, more=np.zeros(2**24, np.float32))
  tracemalloc.start()
  try:
    taken = loading.unet(path, NETWORK, SHAPE)
    assert tracemalloc.get_traced_memory()[1] < MEGABYTES * 2**20
  finally:
    tracemalloc.stop()
  assert taken.report['unused'] == ['more']


@pytest.mark.parametrize('kind', ['<f4', '>f4', '<f8', '>f2', 'fortran'])
def test_sound_arrays_of_every_byte_order_are_read(tmp_path, kind):
  array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
  stored = np.asfortranarray(array) if kind == 'fortran' else array.astype(kind)
  np.savez(tmp_path / 'w.npz', a=stored, zero=np.float32(3), none=np.zeros((0, 3), np.float32))
  found = files.read(tmp_path / 'w.npz')
  np.testing.assert_array_equal(found['a'], array)
  assert found['a'].dtype.isnative and found['zero'] == 3 and found['none'].shape == (0, 3)


@pytest.mark.parametrize('kind', ['int32', 'complex64', 'bool', '<U3', 'datetime64[s]', 'f4,i4'])
def test_arrays_that_are_no_weights_are_named_where_they_are_needed(tmp_path, weights, kind):
  other = np.zeros(weights[FIRST].shape, kind)
  np.savez(tmp_path / 'w.npz', **{**weights, FIRST: other})
  assert f'{FIRST} is of type {other.dtype.name}' in refused_in_little_memory(tmp_path / 'w.npz')
  np.savez(tmp_path / 'w.npz', **weights, other=other)
  assert loading.unet(tmp_path / 'w.npz', NETWORK, SHAPE).report['unused'] == ['other']


@pytest.mark.parametrize('suffix', files.SUFFIXES)
def test_a_file_without_arrays_lacks_them(tmp_path, suffix):
  path = tmp_path / f'w{suffix}'
  np.savez(path) if suffix == '.npz' else path.write_bytes(tensors({}))
  assert f'{FIRST} is missing; ' in refused_in_little_memory(path)


def test_one_bit_of_the_numbers_is_noticed(tmp_path, weights):
  np.savez(tmp_path / 'w.npz', **weights)
  content = bytearray((tmp_path / 'w.npz').read_bytes())
  content[content.index(weights['inc.double_conv.3.weight'].tobytes())] ^= 1
  assert 'cannot be read (Bad CRC-32 for file' in refused_in_little_memory(
    tmp_path / 'w.npz', bytes(content)
  )


# .safetensors.


def tensors(header, content=b'', length=None):
  text = header if isinstance(header, bytes) else json.dumps(header).encode()
  return struct.pack('<Q', len(text) if length is None else length) + text + content


def tensor(shape=(2,), dtype='F32', offsets=(0, 8)):
  return {'dtype': dtype, 'shape': shape, 'data_offsets': offsets}


SAFETENSORS = {
  'header of 2^60 bytes': (tensors({}, length=2**60), 'its header is not whole'),
  'header of 2^64 bytes': (tensors({}, length=2**64 - 1), 'its header is not whole'),
  'header cut short': (tensors({FIRST: tensor()})[:40], 'its header is not whole'),
  'numbers cut short': (tensors({FIRST: tensor()}, b'\0' * 7), 'is not as long as its header'),
  'more behind': (tensors({FIRST: tensor()}, b'\0' * 9), 'is not as long as its header'),
  'deep header': (tensors(b'[' * 10**6), 'nested too deeply'),
  'deep object': (tensors(b'{"a":' * 10**6), 'nested too deeply'),
  'no JSON': (tensors(b'\xff' * 30), 'not UTF-8'),
  'NaN': (tensors(b'{"a": NaN}'), 'it holds NaN'),
  'a name twice': (tensors(b'{"a": 1, "a": 1}'), "it holds 'a' twice"),
  'list': (tensors([]), 'it is a list, not an object'),
  'no tensor': (tensors({'a': 7}), "'a': it is 7, not an object"),
  'no type': (tensors({'a': {'shape': [], 'data_offsets': [0, 0]}}), 'dtype is missing'),
  'claims 2^42': (tensors({'a': tensor([2**42])}, b'\0' * 8), 'do not belong together'),
  'claims 2^80': (tensors({'a': tensor([2**40, 2**40])}, b'\0' * 8), 'do not belong together'),
  'negative': (tensors({'a': tensor([-2])}, b'\0' * 8), 'not a whole number'),
  'fraction': (tensors({'a': tensor([2.0])}, b'\0' * 8), 'not a whole number'),
  'beyond the end': (tensors({'a': tensor([2**40], offsets=[0, 2**42])}), 'is not as long as'),
  'backwards': (tensors({'a': tensor(offsets=[8, 0])}, b'\0' * 8), 'not two numbers in order'),
  'three offsets': (tensors({'a': tensor(offsets=[0, 8, 9])}, b'\0' * 8), 'not two numbers'),
  'overlap': (
    tensors({'a': tensor(), 'b': tensor(offsets=[4, 12])}, b'\0' * 12),
    'overlap, or have gaps',
  ),
  'same bytes': (tensors({'a': tensor(), 'b': tensor()}, b'\0' * 8), 'overlap, or have gaps'),
  'gap': (tensors({'a': tensor(offsets=[4, 12])}, b'\0' * 12), 'overlap, or have gaps'),
}


@pytest.mark.parametrize(('content', 'said'), SAFETENSORS.values(), ids=SAFETENSORS)
def test_a_safetensors_that_is_wrong_is_refused(tmp_path, content, said):
  path = tmp_path / 'w.safetensors'
  line = refused_in_little_memory(path, content)
  assert said in line and line.startswith(f'{path} cannot be read (')


def test_a_sparse_safetensors_of_terabytes_is_held_against_the_network(tmp_path):
  path = tmp_path / 'w.safetensors'
  path.write_bytes(tensors({FIRST: tensor([2**38], offsets=[0, 2**40])}))
  try:
    os.truncate(path, path.stat().st_size + 2**40)
  except OSError:
    pytest.skip('the file system has no files of that size')
  assert f'{FIRST} is {2**38}, not 2x3x3x3; ' in refused_in_little_memory(path)


KINDS = {'BF16': '', 'F16': 'float16', 'F32': 'float32', 'F64': 'float64'}


@pytest.mark.parametrize('kind', KINDS)
def test_floats_of_every_width_are_read(tmp_path, kind):
  import ml_dtypes

  dtype = ml_dtypes.bfloat16 if kind == 'BF16' else KINDS[kind]
  array = np.array([[1.5, -2.25, 0], [3e-5, 65000, np.inf]]).astype(dtype)
  header = {'a': tensor([2, 3], kind, [0, array.nbytes]), '__metadata__': {'format': 'pt'}}
  (tmp_path / 'w.safetensors').write_bytes(tensors(header, array.tobytes()))
  found = files.read(tmp_path / 'w.safetensors')
  assert list(found) == ['a']
  np.testing.assert_array_equal(found['a'], array.astype(np.float64))
  assert found['a'].dtype == ('float32' if kind == 'BF16' else dtype)


def test_weights_in_bfloat16_are_taken(tmp_path, weights):
  import ml_dtypes

  header, content = {}, b''
  for name, array in weights.items():
    half = array.astype(ml_dtypes.bfloat16).tobytes()
    header[name] = tensor(array.shape, 'BF16', [len(content), len(content) + len(half)])
    content += half
  (tmp_path / 'w.safetensors').write_bytes(tensors(header, content))
  found = loading.unet(tmp_path / 'w.safetensors', NETWORK, SHAPE)
  kernel = found.variables['params']['encoder1']['first']['convolution']['kernel']
  expected = weights[FIRST].astype(ml_dtypes.bfloat16).astype(np.float32)
  np.testing.assert_array_equal(kernel, expected.transpose(2, 3, 1, 0))


@pytest.mark.parametrize('kind', ['F8_E4M3', 'F8_E5M2', 'F4', 'F6_E2M3', 'C64', 'I32', 'odd\n'])
def test_other_types_are_named_where_they_are_needed(tmp_path, kind):
  size = {'I32': 4, 'C64': 8}.get(kind, 1) * 54
  path = tmp_path / 'w.safetensors'
  line = refused_in_little_memory(
    path, tensors({FIRST: tensor([2, 3, 3, 3], kind, [0, size])}, b'\0' * size)
  )
  said = 'int32' if kind == 'I32' else f'{kind!a}, which is not read: save it as float32'
  assert f'{FIRST} is of type {said}; ' in line
