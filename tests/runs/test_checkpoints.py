import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import SingleDeviceSharding

from ahm_jax.errors import UserError
from ahm_jax.runs.checkpoint_files import FOLDER, digest
from ahm_jax.runs.checkpoints import Checkpoints, Progress, load_state, load_variables
from ahm_jax.runtime import parallel
from ahm_jax.task import TrainState


def state_at(step):
  params = {'layer': {'kernel': jnp.full((2, 3), float(step))}}
  statistics = {'norm': {'mean': jnp.full(3, 10.0 * step)}}
  return TrainState(
    jnp.array(step, jnp.int32), params, statistics, optax.adam(1e-3).init(params), ()
  )


def target(devices):
  return parallel.abstract(state_at(0), parallel.replicated(devices))


def save(workdir, scores):
  """One checkpoint a step, from step 1 on; returns the last progress."""
  progress = Progress()
  with Checkpoints(workdir) as checkpoints:
    for step, score in enumerate(scores, 1):
      progress = progress.after(step, score)
      checkpoints.save(state_at(step), progress)
  return progress


@pytest.mark.parametrize(
  ('scores', 'best', 'stale'),
  [
    ([0.1, 0.5, 0.3], 2, 1),
    ([0.1, 0.5, 0.5], 3, 1),
    ([0.1, 0.2, 0.3], 3, 0),
    ([0.2, float('nan'), 0.1], 1, 2),
  ],
)
def test_latest_and_best_are_kept(tmp_path, scores, best, stale):
  progress = save(tmp_path, scores)
  assert progress.validations_since_best == stale
  assert sorted(int(path.name) for path in (tmp_path / FOLDER).iterdir()) == sorted({best, 2, 3})
  with Checkpoints(tmp_path) as checkpoints:
    assert checkpoints.progress() == progress
    restored = checkpoints.restore_latest(target(jax.local_devices()[:1]))
    assert jax.tree.structure(restored) == jax.tree.structure(state_at(3))
    assert jax.tree.all(jax.tree.map(np.array_equal, restored, state_at(3)))
    assert checkpoints.restore_best(target(jax.local_devices()[:1])).step == best


def test_a_checkpoint_that_a_killed_run_had_half_deleted_goes(tmp_path):
  save(tmp_path, [0.5, 0.3])
  half_deleted = tmp_path / FOLDER / '2'
  shutil.rmtree(half_deleted / 'metrics')
  (half_deleted / '_CHECKPOINT_METADATA').unlink()
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(state_at(3), Progress(3, 0.1, 0.5, 2))
  assert sorted(path.name for path in (tmp_path / FOLDER).iterdir()) == ['1', '3']


def test_a_directory_without_checkpoints_has_no_progress(tmp_path):
  with Checkpoints(tmp_path) as checkpoints:
    assert checkpoints.progress() == Progress(step=0)


def test_restores_onto_another_number_of_devices(tmp_path):
  devices = jax.local_devices()
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(parallel.replicate(state_at(1), devices[:2]), Progress().after(1, 0.0))
    four = checkpoints.restore_latest(target(devices))
    assert four.params['layer']['kernel'].sharding == parallel.replicated(devices)
    one = checkpoints.restore_latest(
      parallel.abstract(state_at(0), SingleDeviceSharding(devices[3]))
    )
    assert one.params['layer']['kernel'].devices() == {devices[3]}
    np.testing.assert_array_equal(
      one.params['layer']['kernel'], state_at(1).params['layer']['kernel']
    )


def test_a_save_in_the_background_is_not_touched_by_donation(tmp_path):
  advance = jax.jit(lambda tree: jax.tree.map(lambda array: array + 1, tree), donate_argnums=0)
  state = TrainState(jnp.zeros((), jnp.int32), {'w': jnp.zeros((512, 512))}, {}, (), ())
  shapes = parallel.abstract(state, SingleDeviceSharding(jax.local_devices()[0]))
  with Checkpoints(tmp_path) as checkpoints:
    for step in (1, 2, 3):
      state = advance(state)
      checkpoints.save(state, Progress().after(step, 0.0))
      for _ in range(3):
        state = advance(state)
      saved = checkpoints.restore_latest(shapes)
      assert int(saved.step) == 4 * step - 3
      np.testing.assert_array_equal(saved.params['w'], np.full((512, 512), 4 * step - 3))


def test_variables_of_another_run(tmp_path):
  save(tmp_path, [0.1, 0.5, 0.3])
  for best, step in ((True, 2), (False, 3)):
    variables = load_variables(tmp_path, best)
    assert set(variables) == {'step', 'params', 'batch_stats'}
    assert variables['step'] == step
    assert type(variables['params']['layer']['kernel']) is np.ndarray
    np.testing.assert_array_equal(variables['params']['layer']['kernel'], np.full((2, 3), step))
    np.testing.assert_array_equal(variables['batch_stats']['norm']['mean'], np.full(3, 10 * step))


@pytest.mark.parametrize(
  'places', [lambda size: {size // 2}, lambda size: set(range(0, size, 7))], ids=['a bit', 'many']
)
def test_damage_never_gives_other_numbers(tmp_path, places):
  save(tmp_path, [0.1, 0.5])
  sound = load_variables(tmp_path, best=True)
  # Some of them are steps on the way that nothing reads any more.
  files = list((tmp_path / FOLDER / '2').rglob('d/*'))
  contents = [path.read_bytes() for path in files]
  refused = 0
  for path, content in zip(files, contents, strict=True):
    path.write_bytes(damaged(content, places(len(content))))
    try:
      assert jax.tree.all(jax.tree.map(np.array_equal, load_variables(tmp_path, best=True), sound))
    except UserError:
      refused += 1
    path.write_bytes(content)
  assert refused > 0
  for path, content in zip(files, contents, strict=True):
    path.write_bytes(damaged(content, places(len(content))))
  with pytest.raises(UserError, match=r'damaged|cannot be read'):
    load_variables(tmp_path, best=True)


def test_the_state_of_a_run_that_is_at_work_is_read_and_nothing_is_changed_there(tmp_path):
  save(tmp_path, [0.1, 0.5, 0.3])
  home = tmp_path / FOLDER
  shutil.copytree(home / '3', home / '4.orbax-checkpoint-tmp')  # A save that is under way,
  shutil.copytree(home / '3', home / '5')  # and a checkpoint that is being deleted.
  shutil.rmtree(home / '5' / 'metrics')
  before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*')}
  state = load_state(tmp_path, target(jax.local_devices()[:1]))
  assert jax.tree.structure(state) == jax.tree.structure(state_at(3))
  assert jax.tree.all(jax.tree.map(np.array_equal, state, state_at(3)))
  assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*')} == before


def test_a_state_that_is_damaged_or_does_not_fit_is_the_users_error(tmp_path):
  save(tmp_path, [0.1])
  shapes = target(jax.local_devices()[:1])
  wide = shapes._replace(params={'layer': {'kernel': jax.ShapeDtypeStruct((2, 4), jnp.float32)}})
  with pytest.raises(
    UserError,
    match=r'checkpoints/1: params/layer/kernel is 2x3 in its weights but 2x4 by its config',
  ):
    load_state(tmp_path, wide)
  for path in (tmp_path / FOLDER / '1').rglob('d/*'):
    path.write_bytes(damaged(path.read_bytes(), {path.stat().st_size // 2}))
  with pytest.raises(UserError, match=r'checkpoints/1: the checkpoint (is damaged|cannot be read)'):
    load_state(tmp_path, shapes)
  with pytest.raises(UserError, match='nowhere holds no checkpoint'):
    load_state(tmp_path / 'nowhere', shapes)


def damaged(content, places):
  return bytes(byte ^ (place in places) for place, byte in enumerate(content))


def test_a_state_of_other_shapes_is_the_users_error(tmp_path):
  save(tmp_path, [0.1])
  wide = target(jax.local_devices()[:1])
  wide = wide._replace(params={'layer': {'kernel': jax.ShapeDtypeStruct((2, 4), jnp.float32)}})
  with Checkpoints(tmp_path) as checkpoints:
    said = r'checkpoints/1: params/layer/kernel is 2x3 in its weights but 2x4 by its config'
    with pytest.raises(UserError, match=said):
      checkpoints.restore_latest(wide)
    more = target(jax.local_devices()[:1])._replace(extra={'agent': wide.step})
    with pytest.raises(
      UserError, match='extra/agent is not there in its weights but a number by its config'
    ):
      checkpoints.restore_latest(more)


def test_a_digest_is_of_numbers_and_shapes_and_kinds():
  tree = {'a': np.arange(6.0), 'b': [np.zeros(2, np.int32)]}
  assert digest(tree) == digest((jnp.zeros(2, jnp.int32), {'x': np.arange(6.0)}))
  for other in (np.arange(6.0).reshape(2, 3), np.arange(6), np.arange(6.0) * (1 + 1e-15)):
    assert digest({**tree, 'a': other}) != digest(tree)


def test_no_checkpoint_is_the_users_error(tmp_path):
  with pytest.raises(UserError, match='nowhere holds no checkpoint'):
    load_variables(tmp_path / 'nowhere', best=True)
  assert not (tmp_path / 'nowhere').exists()
  with Checkpoints(tmp_path):
    pass
  with pytest.raises(UserError, match='holds no checkpoint'):
    load_variables(tmp_path, best=False)
