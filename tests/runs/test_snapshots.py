import numpy as np

from ahm_jax.runs import snapshots


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
