"""Arrays of strangers in Orbax's format.

TensorStore ends a process that cannot allocate, so they are read in a process of their own.
"""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorstore

from ahm_jax.runs import array_headers, checkpoint_files, checkpoints

SOUND = {
  'chunks': [3, 4],
  'compressor': {'id': 'zstd', 'level': 1},
  'dimension_separator': '.',
  'dtype': '<f4',
  'fill_value': None,
  'filters': None,
  'order': 'C',
  'shape': [3, 4],
  'zarr_format': 2,
}
WRONG = {
  'large': {'shape': [2**42], 'chunks': [2**42]},
  'large in small chunks': {'shape': [2**42], 'chunks': [2**10]},
  'large in two axes': {'shape': [2**21, 2**21], 'chunks': [2**21, 1]},
  'beyond 64 bits': {'shape': [2**80], 'chunks': [2]},
  'negative': {'shape': [-3, 4]},
  'fraction': {'shape': [1.5, 4]},
  'true': {'shape': [True, 4]},
  'no list': {'shape': 'abc'},
  'chunks of nothing': {'chunks': [0, 4]},
  'large chunks': {'chunks': [2**42, 4]},
  'chunks beyond 64 bits': {'chunks': [2**62, 2**62]},
  'chunks of fewer axes': {'chunks': [3]},
  'many axes': {'shape': [1] * 40, 'chunks': [1] * 40},
  'codec': {'compressor': {'id': 'nope'}},
  'codec without a name': {'compressor': {}},
  'blosc': {'compressor': {'id': 'blosc', 'cname': 'zstd', 'clevel': 5, 'shuffle': 1}},
  'level': {'compressor': {'id': 'zstd', 'level': 10**9}},
  'objects': {'dtype': '|O'},
  'long texts': {'dtype': '|S99999999999'},
  'long raw bytes': {'dtype': '|V1000000000000'},
  'fields': {'dtype': [['a', '<f4'], ['b', '<i4']]},
  'a field of many numbers': {'dtype': [['a', '<f4', [2**40]]]},
  'complex': {'dtype': '<c8'},
  'odd width': {'dtype': '<f3'},
  'fill': {'fill_value': 'odd'},
  'fill of a list': {'fill_value': [1]},
  'filters': {'filters': [{'id': 'delta'}]},
  'order': {'order': 'K'},
  'version': {'zarr_format': 3},
}
TEXTS = {
  'empty': b'',
  'zeros': b'\0' * 100,
  'deep': b'[' * 10**6,
  'long': b'{"shape": "' + b'x' * 10**7 + b'"}',
  'null': b'null',
  'a name twice': json.dumps(SOUND).encode()[:-1] + b', "shape": [3, 4]}',
}
HEADERS = {name: json.dumps(SOUND | change).encode() for name, change in WRONG.items()} | TEXTS
READ = """
import resource, sys
from ahm_jax.errors import UserError
from ahm_jax.runs import checkpoints
resource.setrlimit(resource.RLIMIT_AS, (2**34, 2**34))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[1:]:
  try:
    checkpoints.read_variables(path)
    print('read')
  except UserError as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def write(folder, header):
  """A folder as Orbax writes one, of an array that claims what this header says."""
  store = {'driver': 'ocdbt', 'base': {'driver': 'file', 'path': f'{folder}/'}}
  held = tensorstore.KvStore.open(store).result()
  held.write('params.a/.zarray', header).result()
  chunk = tensorstore.open(
    {'driver': 'zarr', 'kvstore': 'memory://', 'metadata': {**SOUND, 'compressor': None}},
    create=True,
  ).result()
  chunk.write(np.ones((3, 4), np.float32)).result()
  held.write('params.a/0.0', chunk.kvstore.read('0.0').result().value).result()


def read(*folders):
  """What is said of each folder, and the megabytes that it took."""
  done = subprocess.run(
    [sys.executable, '-c', READ, *folders],
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  *said, most = done.stdout.splitlines()
  return said, int(most)


@pytest.fixture(scope='module')
def told(tmp_path_factory):
  """What is said of folders with each of HEADERS, and with every file of a sound one spoilt; and
  the megabytes that all of them took.
  """
  wrong, garbage = tmp_path_factory.mktemp('wrong'), tmp_path_factory.mktemp('garbage')
  for name, header in HEADERS.items():
    write(wrong / name, header)
  homes = [*(wrong / name for name in HEADERS), *spoilt(garbage)]
  said, most = read(*homes)
  assert len(said) == len(homes)
  return dict(zip(homes, said, strict=True)), most


def test_headers_that_promise_too_much_or_nonsense_are_refused_in_little_memory(told):
  lines, most = told
  assert most < 200
  for home in (home for home in lines if home.name in HEADERS):
    assert lines[home].startswith(f'{home} is damaged (')
    assert lines[home].endswith('; export it again')


def test_the_sound_one_among_them_is_read(tmp_path):
  write(tmp_path / 'sound', json.dumps({**SOUND, 'compressor': None}).encode())
  np.testing.assert_array_equal(
    checkpoints.read_variables(tmp_path / 'sound')['params']['a'], np.ones((3, 4), np.float32)
  )
  assert array_headers.claim(json.dumps(SOUND).encode()) == 48


TREE = {
  'params': {'a': np.ones((3, 4), np.float32), 'b': np.random.default_rng(1).random((90, 90))}
}


def spoilt(folder):
  """Folders that are like folder/sound, but for one file."""
  generator = np.random.default_rng(0)
  checkpoints.write_variables(folder / 'sound', TREE)
  files = [path for path in (folder / 'sound').rglob('*') if path.is_file()]
  for number, path in enumerate(sorted(files)):
    content = path.read_bytes()
    for kind, other in {
      'empty': b'',
      'half': content[: len(content) // 2],
      'garbage': generator.bytes(len(content)),
      'flipped': bytes([*content[:-9], content[-9] ^ 1, *content[-8:]]),
    }.items():
      home = shutil.copytree(folder / 'sound', folder / f'{number} {kind}')
      (home / path.relative_to(folder / 'sound')).write_bytes(other)
      yield home


def test_garbage_in_place_of_a_file_ends_no_process(told):
  lines, _ = told
  damaged = {home: line for home, line in lines.items() if line != 'read'}
  assert all(line.startswith(f'{home} is damaged (') for home, line in damaged.items())
  (sound,) = {home.parent / 'sound' for home in lines if home.name not in HEADERS}
  found = checkpoints.read_variables(sound)
  assert checkpoint_files.digest(found) == checkpoint_files.digest(TREE)


def test_many_arrays_may_not_claim_together_what_one_may_not():
  with pytest.raises(ValueError, match=r'its arrays claim 1.1e\+09 bytes, and its files have 100'):
    array_headers.check_total(2**30, 100)
  array_headers.check_total(2**26, 100)
  array_headers.check_total(2**30, 2 * 10**7)
