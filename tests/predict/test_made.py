import json
import os
import zlib

import pytest

from ahm_jax.data.readers.base import Case
from ahm_jax.predict import made
from ahm_jax.predict.made import Entry

COLUMNS = ('image', 'mask')
ENTRIES = [
  Entry('a.png', (10, 2, 3), {'masks/a.png': 7, 'overlays/a.jpg': 8}, 'a.png,masks/a.png\n'),
  Entry('bad.png', (), {}, 'bad.png,\n'),
  Entry('sub/ä.png', (1, 2, 3), {'masks/sub/ä.png': 0}, 'sub/ä.png,masks/sub/ä.png\n', 'abc'),
]


def written(path, *lines):
  path.write_bytes(made.header(COLUMNS) + b''.join(lines))
  return list(made.read(path, COLUMNS))


def with_checksum(text):
  return b'%08x %s\n' % (zlib.crc32(text.encode()), text.encode())


def test_what_is_written_is_read(tmp_path):
  path = tmp_path / 'made.txt'
  assert list(made.read(path, COLUMNS)) == []
  assert written(path, *map(made.line, ENTRIES)) == ENTRIES
  assert list(made.read(path, ('image', 'other'))) == []


def test_no_bit_of_a_line_may_differ(tmp_path):
  whole = made.line(ENTRIES[0])
  for place in range(len(whole) - 1):
    spoilt = bytearray(whole)
    spoilt[place] ^= 1 << place % 8
    found = written(tmp_path / 'made.txt', bytes(spoilt), made.line(ENTRIES[1]))
    assert found == [ENTRIES[1]], (place, spoilt)
  for length in range(len(whole) - 1):
    assert written(tmp_path / 'made.txt', whole[:length]) == []


@pytest.mark.parametrize(
  'text',
  [
    '[' * 200_000,
    '{"image":' * 100_000,
    '',
    'null',
    '7',
    '[]',
    '{}',
    'NaN',
    '1' * 5000,
    '\0',
    *(
      json.dumps(ENTRIES[0]._asdict() | change)
      for change in (
        {'image': 7},
        {'rows': None},
        {'files': ['masks/a.png']},
        {'files': {'masks/a.png': 'large'}},
        {'files': {'masks/a.png': None}},
        {'files': {'masks/../../a.png': 7}},
        {'files': {'/etc/hostname': 7}},
        {'files': {'': 7}},
        {'files': {'predict.json': 7}},
        {'files': {'masks/a\0.png': 7}},
        {'stamp': None},
        {'digest': 7},
        {'more': 1},
      )
    ),
  ],
  ids=range(23),
)
def test_a_line_of_another_kind_counts_as_missing(tmp_path, text):
  lines = with_checksum(text), made.line(ENTRIES[0])
  assert written(tmp_path / 'made.txt', *lines) == [ENTRIES[0]]


def test_a_stamp_tells_a_file_that_was_written_again_with_the_same_size_and_time(tmp_path):
  path = tmp_path / 'a.bmp'
  path.write_bytes(b'one')
  before, times = made.stamp(path), path.stat()
  assert made.stamp(path) == before and made.stamp(tmp_path / 'nothing') == ()
  path.write_bytes(b'two')
  os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
  assert made.stamp(path)[:2] == before[:2] and made.stamp(path) != before


def test_a_line_without_a_digest_is_read(tmp_path):
  content = ENTRIES[0]._asdict()
  del content['digest']
  assert written(tmp_path / 'made.txt', with_checksum(json.dumps(content))) == [ENTRIES[0]]


def test_a_digest_is_of_the_file_that_was_stamped(tmp_path):
  path = tmp_path / 'a.bmp'
  path.write_bytes(b'one')
  before = made.stamp(path)
  first = made.digest(path, before)
  assert len(first) == 64 and made.digest(tmp_path / 'nothing', ()) == ''
  path.chmod(0o600)
  assert made.is_same_but_for_status(before, made.stamp(path))
  assert (made.digest(path, before), made.digest(path, made.stamp(path))) == ('', first)
  path.write_bytes(b'two')
  assert made.digest(path, before) == '' and made.digest(path, made.stamp(path)) != first
  assert not made.is_same_but_for_status(before, made.stamp(path))
  assert not made.is_same_but_for_status((), ())


def test_a_link_has_no_size(tmp_path):
  (tmp_path / 'a').write_bytes(b'123')
  (tmp_path / 'link').symlink_to('a')
  assert made.has_size(tmp_path / 'a', 3) and not made.has_size(tmp_path / 'a', 2)
  assert not made.has_size(tmp_path / 'link', 3) and not made.has_size(tmp_path / 'none', 0)


def test_a_case_is_stamped_and_digested_by_all_its_files(tmp_path):
  files = [tmp_path / f'a_{k:04d}.png' for k in range(3)]
  for path in files[:2]:
    path.write_bytes(path.name.encode())
  case, single = Case('a', (*files[:2], None)), Case('a', (files[0], None, None))
  before = made.stamp(case)
  assert before == made.stamp(files[0]) + made.stamp(files[1])
  first = made.digest(case, before)
  assert len({first, made.digest(single, made.stamp(single)), ''}) == 3
  files[1].chmod(0o600)
  assert made.is_same_but_for_status(before, made.stamp(case))
  assert (made.digest(case, before), made.digest(case, made.stamp(case))) == ('', first)
  files[1].rename(files[2])  # As another modality: only its name and status are new.
  moved = Case('a', (files[0], None, files[2]))
  assert made.is_same_but_for_status(before, made.stamp(moved))
  assert made.digest(moved, made.stamp(moved)) not in ('', first)
  assert made.stamp(case) == () and not made.is_same_but_for_status(before, made.stamp(single))
