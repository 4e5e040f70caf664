import io
import tracemalloc
import zipfile

import numpy as np
import pytest

from ahm_jax.errors import UserError
from ahm_jax.runs import snapshots
from ahm_jax.runtime import json_files


def test_snapshots_come_back_in_the_order_of_steps(tmp_path):
  for step in (100, 20, 3):
    snapshots.write(tmp_path, step, {'policy': np.full((2, 2), step), 'other': np.arange(step)})
  back = snapshots.read(tmp_path)
  assert list(back) == [3, 20, 100]
  np.testing.assert_array_equal(back[20]['policy'], np.full((2, 2), 20))
  np.testing.assert_array_equal(back[3]['other'], [0, 1, 2])


def test_a_step_that_is_repeated_is_written_again_and_nothing_else_is_left(tmp_path):
  for value in (1.0, 2.0):
    snapshots.write(tmp_path, 5, {'policy': np.array(value)})
  assert snapshots.read(tmp_path)[5]['policy'] == 2
  assert [path.name for path in (tmp_path / 'snapshots').iterdir()] == ['5.npz']


def test_a_run_without_snapshots_has_none(tmp_path):
  assert snapshots.read(tmp_path) == {}


def test_want_of_memory_is_no_damage(tmp_path, monkeypatch):
  snapshots.write(tmp_path, 5, {'policy': np.zeros(2)})

  def refuse(_):
    raise MemoryError

  monkeypatch.setattr(snapshots, '_arrays', refuse)
  with pytest.raises(UserError, match=r'5\.npz cannot be read \(out of memory\)'):
    snapshots.read(tmp_path)


def of_members(compression, **members):
  held = io.BytesIO()
  with zipfile.ZipFile(held, 'w', compression) as archive:
    for name, content in members.items():
      archive.writestr(f'{name}.npy', content)
  return held.getvalue()


def npy(shape, content=b'', dtype='<f4'):
  held = io.BytesIO()
  np.lib.format.write_array_header_1_0(
    held, {'descr': dtype, 'fortran_order': False, 'shape': shape}
  )
  return held.getvalue() + content


HOSTILE = {
  'inflates': lambda: of_members(zipfile.ZIP_DEFLATED, policy=npy((2**21,), bytes(2**23))),
  'claims': lambda: of_members(zipfile.ZIP_DEFLATED, policy=npy((2**42,), b'1234')),
  'many that inflate': lambda: of_members(
    zipfile.ZIP_DEFLATED, **{f'a{i}': npy((2**19,), bytes(2**21)) for i in range(5)}
  ),
  'bzip2': lambda: of_members(zipfile.ZIP_BZIP2, policy=npy((1,), b'1234')),
  'objects': lambda: of_members(zipfile.ZIP_STORED, policy=npy((1,), b'1234', '|O')),
  'no array': lambda: of_members(zipfile.ZIP_STORED, policy=b'text'),
}


@pytest.mark.parametrize('kind', HOSTILE)
def test_a_hostile_file_is_left_out_and_takes_no_memory(tmp_path, capsys, monkeypatch, kind):
  monkeypatch.setattr(json_files, 'MOST_BYTES', 2**22)
  snapshots.write(tmp_path, 1, {'policy': np.ones(3)})
  (tmp_path / 'snapshots' / '2.npz').write_bytes(HOSTILE[kind]())
  tracemalloc.start()
  try:
    assert list(snapshots.read(tmp_path)) == [1]
    assert tracemalloc.get_traced_memory()[1] < 2**20
  finally:
    tracemalloc.stop()
  assert f'{tmp_path}/snapshots/2.npz is damaged, and left out (' in capsys.readouterr().err
