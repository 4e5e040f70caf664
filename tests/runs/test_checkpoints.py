import builtins
import errno
import functools
import json
import os
import shutil
import stat
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from jax.sharding import SingleDeviceSharding

from ahm_jax.errors import REFUSALS, UserError
from ahm_jax.runs import checkpoint_files as files
from ahm_jax.runs import checkpoint_folders as folders
from ahm_jax.runs import checkpoint_reading
from ahm_jax.runs.checkpoint_files import FOLDER, DamagedCheckpoint, digest, numbers, saved
from ahm_jax.runs.checkpoint_reading import latest_step, load_state, load_variables
from ahm_jax.runs.checkpoints import Checkpoints, Progress
from ahm_jax.runtime import parallel
from ahm_jax.task import TrainState
from tests.runtime.test_places import MOVES
from tests.test_errors import NOT_REFUSED, tensorstores


@functools.cache
def state_at(step):
  # Small arrays lie in the index, larger ones in files of their own.
  large = np.random.default_rng(step).normal(size=(40, 40)).astype(np.float32)
  params = {'layer': {'kernel': jnp.full((2, 3), float(step))}, 'wide': jnp.asarray(large)}
  statistics = {'norm': {'mean': jnp.full(3, 10.0 * step)}}
  return TrainState(
    jnp.array(step, jnp.int32), params, statistics, optax.adam(1e-3).init(params), ()
  )


def target(devices):
  return parallel.abstract(state_at(0), parallel.replicated(devices))


def assert_state(state, step):
  assert jax.tree.structure(state) == jax.tree.structure(state_at(step))
  assert jax.tree.all(
    jax.tree.map(
      lambda one, two: np.array_equal(one, two) and one.dtype == two.dtype, state, state_at(step)
    )
  )


def names(folder):
  return sorted(path.name for path in folder.iterdir())


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
    assert_state(restored, 3)
    assert checkpoints.restore_best(target(jax.local_devices()[:1])).step == best


def test_what_a_killed_run_had_half_written_or_half_removed_goes(tmp_path):
  save(tmp_path, [0.5, 0.3])
  home = tmp_path / FOLDER
  for name in ('2.ahm_jax-deleted', '3.ahm_jax-saving.orbax-checkpoint-tmp', '3.ahm_jax-saving'):
    shutil.copytree(home / '2', home / name)
    shutil.rmtree(home / name / 'metrics')
    (home / name / 'default' / 'manifest.ocdbt').unlink()
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(state_at(3), Progress(3, 0.1, 0.5, 2))
  assert names(home) == ['1', '2', '3']


def test_what_a_power_cut_emptied_of_a_checkpoint_that_was_being_saved_goes(tmp_path):
  save(tmp_path, [0.5, 0.3])
  home = tmp_path / FOLDER
  shutil.copytree(home / '2', home / '3.ahm_jax-saving')
  for path in (home / '3.ahm_jax-saving').rglob('*'):
    if path.is_file():
      path.write_bytes(b'')
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(state_at(3), Progress(3, 0.1, 0.5, 2))
  assert names(home) == ['1', '2', '3']


def test_a_checkpoint_takes_the_place_of_an_earlier_one_of_its_step(tmp_path):
  save(tmp_path, [0.5])
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(state_at(9)._replace(step=jnp.array(1)), Progress().after(1, 0.7))
  assert names(tmp_path / FOLDER) == ['1']
  np.testing.assert_array_equal(
    load_variables(tmp_path, best=True)['params']['layer']['kernel'], np.full((2, 3), 9)
  )


@pytest.mark.parametrize('earlier', [True, False])
def test_a_run_that_was_killed_before_a_checkpoint_was_in_its_place_resumes_from_it(
  tmp_path, earlier
):
  save(tmp_path, [0.1, 0.5])
  home = tmp_path / FOLDER
  shutil.copytree(home / '2', home / '2.ahm_jax-saving')
  if earlier:  # The older one of that step.
    shutil.rmtree(home / '2' / 'default' / 'd')
  else:
    (home / '2').rename(home / '2.ahm_jax-deleted')
  with Checkpoints(tmp_path) as checkpoints:
    assert checkpoints.progress().step == 2
    assert_state(checkpoints.restore_latest(target(jax.local_devices()[:1])), 2)
  assert names(home) == ['1', '2']


def test_the_only_checkpoint_is_read_also_while_it_is_saved_again(tmp_path, monkeypatch):
  """Between two renames of folders it has no name."""
  save(tmp_path, [0.5])
  home = tmp_path / FOLDER
  (home / '1').rename(home / '1.ahm_jax-saving')
  waited = []

  def wait(seconds):
    waited.append(seconds)
    (home / '1.ahm_jax-saving').rename(home / '1')

  monkeypatch.setattr(checkpoint_reading.time, 'sleep', wait)
  assert load_variables(tmp_path, best=True)['step'] == 1 and len(waited) == 1
  shutil.rmtree(home / '1')
  monkeypatch.setattr(checkpoint_reading.time, 'sleep', waited.append)
  with pytest.raises(UserError, match='holds no checkpoint'):
    load_variables(tmp_path, best=True)
  assert len(waited) == 1  # Nobody is at work there.


def test_what_cannot_be_removed_of_a_checkpoint_hinders_no_other(tmp_path, monkeypatch):
  """As a file that a reader on NFS keeps open; the next start removes it."""
  with monkeypatch.context() as patch:
    patch.setattr(folders.shutil, 'rmtree', lambda *_, **__: None)
    save(tmp_path, [0.1, 0.2, 0.3, 0.4])
    save(tmp_path, [0.1, 0.2, 0.3, 0.5])
  left = [name for name in names(tmp_path / FOLDER) if 'deleted' in name]
  assert len(left) > 2 and load_variables(tmp_path, best=True)['step'] == 4
  with Checkpoints(tmp_path) as checkpoints:
    assert checkpoints.progress().step == 4
  assert names(tmp_path / FOLDER) == ['3', '4']


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
  with pytest.raises(UserError, match='damaged'):
    load_variables(tmp_path, best=True)


def test_the_state_of_a_run_that_is_at_work_is_read_and_nothing_is_changed_there(tmp_path):
  save(tmp_path, [0.1, 0.5, 0.3])
  home = tmp_path / FOLDER
  shutil.copytree(home / '3', home / '4.ahm_jax-saving')  # A save that is under way,
  shutil.copytree(home / '3', home / '5.ahm_jax-deleted')  # and a checkpoint that is being removed.
  shutil.rmtree(home / '5.ahm_jax-deleted' / 'metrics')
  before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*')}
  state = load_state(tmp_path, target(jax.local_devices()[:1]))
  assert_state(state, 3)
  assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*')} == before


def test_a_state_that_is_damaged_or_does_not_fit_is_the_users_error(tmp_path):
  save(tmp_path, [0.1])
  shapes = target(jax.local_devices()[:1])
  wide = shapes._replace(
    params={**shapes.params, 'layer': {'kernel': jax.ShapeDtypeStruct((2, 4), jnp.float32)}}
  )
  with pytest.raises(
    UserError,
    match=r'checkpoints/1: params/layer/kernel is 2x3 in its weights but 2x4 by its config',
  ):
    load_state(tmp_path, wide)
  for path in (tmp_path / FOLDER / '1').rglob('d/*'):
    path.write_bytes(damaged(path.read_bytes(), {path.stat().st_size // 2}))
  with pytest.raises(UserError, match=r'checkpoints/1: the checkpoint is damaged'):
    load_state(tmp_path, shapes)
  with pytest.raises(UserError, match='nowhere holds no checkpoint'):
    load_state(tmp_path / 'nowhere', shapes)


def damaged(content, places):
  return bytes(byte ^ (place in places) for place, byte in enumerate(content))


def test_a_state_of_other_shapes_is_the_users_error(tmp_path):
  save(tmp_path, [0.1])
  wide = target(jax.local_devices()[:1])
  wide = wide._replace(
    params={**wide.params, 'layer': {'kernel': jax.ShapeDtypeStruct((2, 4), jnp.float32)}}
  )
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


# Every file of a checkpoint, and every damage to it.


def everything(folder):
  """All that is below a folder: what it is, and what it holds."""
  return {
    path: (
      stat.S_IFMT(path.lstat().st_mode),
      path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else None,
    )
    for path in folder.rglob('*')
  }


@pytest.fixture(scope='module')
def sound(tmp_path_factory):
  """A run that saved twice, the better state last."""
  workdir = tmp_path_factory.mktemp('sound')
  save(workdir, [0.1, 0.5])
  return workdir


def replaced_by_a_folder(path):
  path.unlink()
  path.mkdir()


def replaced_by_a_pipe(path):
  path.unlink()
  os.mkfifo(path)


def rewritten(change):
  return lambda path: path.write_bytes(change(path.read_bytes()))


DAMAGES = {
  'emptied': rewritten(lambda content: content[:0]),
  'halved': rewritten(lambda content: content[: len(content) // 2]),
  'a byte short': rewritten(lambda content: content[:-1]),
  'doubled': rewritten(lambda content: content * 2),
  'a first bit': rewritten(lambda content: damaged(content, {0})),
  'a bit': rewritten(lambda content: damaged(content, {len(content) // 2})),
  'a last bit': rewritten(lambda content: damaged(content, {len(content) - 1})),
  'many bits': rewritten(lambda content: damaged(content, set(range(0, len(content), 7)))),
  'zeros': rewritten(lambda content: bytes(len(content))),
  'garbage': rewritten(lambda content: np.random.default_rng(0).bytes(len(content))),
  'brackets': rewritten(lambda content: content[:0] + b'[' * 200_000),
  'gone': Path.unlink,
  'a folder': replaced_by_a_folder,
  'a pipe': replaced_by_a_pipe,
}
KINDS = {
  '_CHECKPOINT_METADATA',
  'commit_success.txt',
  'default/_METADATA',
  'default/_sharding',
  'default/array_metadatas/process_0',
  'default/commit_success.txt',
  'default/d/*',
  'default/manifest.ocdbt',
  'default/ocdbt.process_0/d/*',
  'default/ocdbt.process_0/manifest.ocdbt',
  'metrics/commit_success.txt',
  'metrics/metrics',
}


def kind(path, home):
  inside = path.relative_to(home)
  return (inside.parent / '*' if inside.parent.name == 'd' else inside).as_posix()


def assert_sound_or_set_aside(workdir, capsys):
  """Whoever opens a run that saved at 1 and 2 gets what was saved, or step 1 and a line."""
  try:
    found = load_variables(workdir, best=True)
    assert np.array_equal(found['params']['layer']['kernel'], np.full((2, 3), 2))
  except UserError as error:
    assert 'checkpoints/2: the checkpoint is damaged' in str(error) and '\n' not in str(error)
  with Checkpoints(workdir) as checkpoints:
    checkpoints.drop_damaged(best_too=True)
    step = checkpoints.progress().step
    assert_state(checkpoints.restore_latest(target(jax.local_devices()[:1])), step)
    assert_state(checkpoints.restore_best(target(jax.local_devices()[:1])), step)
  said = capsys.readouterr().err
  if step == 1:
    assert said.startswith('the checkpoint of step 2 is damaged') and said.count('\n') == 1
    assert names(workdir / 'damaged') == ['2'] and names(workdir / FOLDER) == ['1']
  else:
    assert step == 2 and not said and not (workdir / 'damaged').exists()
  return step


def test_the_table_of_files_is_whole(sound):
  home = sound / FOLDER / '2'
  assert {kind(path, home) for path in home.rglob('*') if path.is_file()} == KINDS


@pytest.mark.compiles  # No, but it takes seconds.
@pytest.mark.parametrize('damage', DAMAGES)
def test_a_damaged_file_never_gives_other_numbers_nor_a_traceback(sound, tmp_path, capsys, damage):
  needed = set()
  home = sound / FOLDER / '2'
  for number, path in enumerate(path for path in home.rglob('*') if path.is_file()):
    workdir = tmp_path / str(number)
    shutil.copytree(sound, workdir)
    DAMAGES[damage](workdir / path.relative_to(sound))
    if assert_sound_or_set_aside(workdir, capsys) == 1:
      needed.add(kind(path, home))
  # These are small enough that every damage to them matters.
  assert needed >= {'metrics/metrics', 'default/manifest.ocdbt'} - (
    {'default/manifest.ocdbt'} if damage == 'doubled' else set()
  )


@pytest.mark.parametrize('damage', DAMAGES)
def test_where_all_files_but_the_mark_are_damaged_the_checkpoint_before_is_used(
  sound, tmp_path, capsys, damage
):
  workdir = tmp_path / 'run'
  shutil.copytree(sound, workdir)
  for path in list((workdir / FOLDER / '2').rglob('*')):
    if path.is_file() and path.name != '_CHECKPOINT_METADATA':
      DAMAGES[damage](path)
  assert assert_sound_or_set_aside(workdir, capsys) == 1


@pytest.mark.parametrize('name', ['default', 'metrics', 'default/d', 'default/ocdbt.process_0'])
@pytest.mark.parametrize('other', ['gone', 'of step 1', 'a file', 'a link to nothing'])
def test_a_part_that_is_gone_or_of_another_checkpoint(sound, tmp_path, capsys, name, other):
  workdir = tmp_path / 'run'
  shutil.copytree(sound, workdir)
  path = workdir / FOLDER / '2' / name
  shutil.rmtree(path)
  if other == 'of step 1':
    shutil.copytree(workdir / FOLDER / '1' / name, path)
  elif other == 'a file':
    path.write_bytes(b'')
  elif other == 'a link to nothing':
    path.symlink_to(tmp_path / 'nowhere')
  assert assert_sound_or_set_aside(workdir, capsys) == 1


def test_every_bit_of_the_numbers_counts(sound, tmp_path):
  home = tmp_path / '2'
  shutil.copytree(sound / FOLDER / '2', home)
  path = home / 'metrics' / 'metrics'
  content = path.read_bytes()
  for place in range(len(content)):
    path.write_bytes(damaged(content, {place}))
    with pytest.raises(DamagedCheckpoint, match='is damaged'):
      saved(home)


@pytest.mark.parametrize('sealed', [True, False])
@pytest.mark.parametrize('value', [None, 'x', [1], {'x': 1}, 1e999, 'gone'])
def test_numbers_of_the_wrong_kind_are_damage(sound, tmp_path, capsys, value, sealed):
  for name in (*Progress._fields, 'digests'):
    workdir = tmp_path / name
    shutil.copytree(sound, workdir)
    path = workdir / FOLDER / '2' / 'metrics' / 'metrics'
    found = json.loads(path.read_text())
    if value == 'gone':
      del found[name]
    else:
      found[name] = value
    if not sealed:
      del found['seal']
    path.write_text(json.dumps(found))
    # An earlier version's score may be any number.
    sound_too = (2,) if not sealed and name in ('score', 'best_score') and value == 1e999 else ()
    assert assert_sound_or_set_aside(workdir, capsys) in (1, *sound_too)


def test_a_checkpoint_under_the_name_of_another_step_is_set_aside(sound, tmp_path, capsys):
  workdir = tmp_path / 'run'
  shutil.copytree(sound, workdir)
  (workdir / FOLDER / '2').rename(workdir / FOLDER / '7')
  with Checkpoints(workdir) as checkpoints:
    checkpoints.drop_damaged(best_too=False)
    assert checkpoints.progress().step == 1
  assert 'the checkpoint of step 7 is damaged (it is of step 2)' in capsys.readouterr().err


def test_a_checkpoint_of_an_earlier_version_is_read(sound, tmp_path):
  workdir = tmp_path / 'run'
  shutil.copytree(sound, workdir)
  home = workdir / FOLDER / '2'
  found = json.loads((home / 'metrics' / 'metrics').read_text())
  del found['seal']
  (home / 'metrics' / 'metrics').write_text(json.dumps(found))
  description = (home / '_CHECKPOINT_METADATA').read_text()
  (home / '_CHECKPOINT_METADATA').write_text(description.replace('{"program": "ahm_jax"}', '{}'))
  with Checkpoints(workdir) as checkpoints:
    checkpoints.drop_damaged(best_too=True)
    assert_state(checkpoints.restore_best(target(jax.local_devices()[:1])), 2)


# A run never starts anew unasked.


@pytest.mark.parametrize('best_too', [True, False])
def test_where_no_checkpoint_is_sound_a_run_ends_and_nothing_is_moved(
  sound, tmp_path, capsys, best_too
):
  workdir = tmp_path / 'run'
  shutil.copytree(sound, workdir)
  for step in (1, 2):
    (workdir / FOLDER / str(step) / 'default' / 'manifest.ocdbt').write_bytes(b'')
  before = everything(workdir)
  for _ in range(2):
    with Checkpoints(workdir) as checkpoints, pytest.raises(UserError) as caught:
      checkpoints.drop_damaged(best_too)
    assert str(caught.value).startswith(f'no checkpoint in {workdir}/checkpoints can be used: ')
    assert str(caught.value).endswith(f'or remove {workdir}/checkpoints to start anew')
    assert everything(workdir) == before and not capsys.readouterr().err
  shutil.rmtree(workdir / FOLDER)
  with Checkpoints(workdir) as checkpoints:
    checkpoints.drop_damaged(best_too)
    assert checkpoints.progress() == Progress()


@pytest.mark.parametrize('scores', [[0.9, 0.5, 0.3], [0.1, 0.9, 0.3]])
def test_a_run_that_needs_a_best_checkpoint_that_is_damaged_ends(tmp_path, scores):
  save(tmp_path, scores)
  best = 1 + scores.index(0.9)
  (tmp_path / FOLDER / str(best) / 'metrics' / 'metrics').write_bytes(b'')
  with Checkpoints(tmp_path) as checkpoints:
    with pytest.raises(UserError, match=r'no checkpoint .* that of step 3 followed on that of'):
      checkpoints.drop_damaged(best_too=True)
    checkpoints.drop_damaged(best_too=False)  # Of a run that does not need it.
    assert checkpoints.progress().step == 3
  assert names(tmp_path / 'damaged') == [str(best)]


# What cannot be read is not damaged.


class Failing:
  """From the n-th of the calls by which files are looked for and read, all fail."""

  def __init__(self, monkeypatch, error):
    self.error, self.left = error, None
    for owner, name in (
      (os, 'scandir'),
      (os, 'listdir'),
      (os, 'stat'),
      (Path, 'stat'),
      (Path, 'read_bytes'),
      (Path, 'iterdir'),
      (builtins, 'open'),
    ):
      monkeypatch.setattr(owner, name, self.counted(getattr(owner, name)))

  def counted(self, function):
    def call(*args, **options):
      if self.left is not None:
        self.left -= 1
        if self.left < 0:
          raise self.error
      return function(*args, **options)

    return call


NUMBERS = ('EACCES', 'EIO', 'ESTALE', 'EMFILE', 'ENOMEM', 'ETIMEDOUT')
ERRORS = {
  **{name: OSError(getattr(errno, name), os.strerror(getattr(errno, name))) for name in NUMBERS},
  'memory': MemoryError(),
}


@pytest.mark.compiles  # As above.
@pytest.mark.parametrize('error', ERRORS.values(), ids=ERRORS)
def test_what_cannot_be_read_stops_a_run_and_nothing_is_moved(sound, monkeypatch, error):
  failing = Failing(monkeypatch, error)
  before = everything(sound)
  said = set()
  for n in range(1000):
    failing.left = n
    try:
      with Checkpoints(sound) as checkpoints:
        checkpoints.drop_damaged(best_too=True)
        checkpoints.progress()
        state = checkpoints.restore_best(target(jax.local_devices()[:1]))
    except UserError as problem:
      said.add(str(problem))
    else:
      break
    finally:
      failing.left = None
  assert n > 20 and everything(sound) == before
  assert_state(state, 2)
  why = error.strerror if isinstance(error, OSError) else 'out of memory'
  assert all(
    line.startswith(str(sound))
    and line.endswith(
      f' cannot be read ({why}); nothing was moved; make it readable and run the same command again'
    )
    for line in said
  ), said


GONE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR)


@pytest.mark.parametrize('number', sorted({*GONE, *REFUSALS, errno.EINVAL, errno.EBADMSG}))
def test_only_what_is_not_there_is_damage(sound, monkeypatch, number):
  def refuse(_):
    raise OSError(number, os.strerror(number))

  monkeypatch.setattr(Path, 'read_bytes', refuse)
  if number in GONE:
    with pytest.raises(DamagedCheckpoint, match=r'^is damaged: metrics is not there$'):
      saved(sound / FOLDER / '2')
  else:
    with pytest.raises(UserError, match=r'/metrics cannot be read \(.*nothing was moved; '):
      saved(sound / FOLDER / '2')


@pytest.mark.parametrize('number', [0, *REFUSALS])
def test_what_cannot_be_parsed_is_damage_whatever_is_said_of_it(sound, monkeypatch, number):
  """The files are in memory then: the system has no part in it."""
  error = tensorstores(os.strerror(number), number)

  def fail(*_):
    raise error

  monkeypatch.setattr(files, '_opened', fail)
  with pytest.raises(DamagedCheckpoint, match=r'^is damaged '):
    files.arrays(sound / FOLDER / '2')


@pytest.mark.parametrize('error', NOT_REFUSED.values(), ids=NOT_REFUSED)
def test_a_fault_while_saving_is_not_said_to_be_the_disks(tmp_path, monkeypatch, error):
  def fail(*_):
    raise error

  with pytest.raises(type(error)) as caught, Checkpoints(tmp_path) as checkpoints:
    monkeypatch.setattr(folders, 'commit', fail)
    checkpoints.save(state_at(1), Progress().after(1, 0.5))
  assert caught.value is error


def test_no_checkpoint_is_looked_for_in_a_folder_that_cannot_be_listed(sound, monkeypatch):
  failing = Failing(monkeypatch, PermissionError(errno.EACCES, 'Permission denied'))
  for read in (latest_step, lambda workdir: load_variables(workdir, best=True)):
    failing.left = 0
    with pytest.raises(UserError, match=r'/checkpoints cannot be read \(Permission denied\)'):
      read(sound)
    failing.left = None


# What is not this program's is not touched.


def another_tools(home):
  (home / '1000').mkdir(parents=True)
  (home / '1000' / 'model.pt').write_bytes(b'weights')


def another_tools_of_orbax(home):
  with ocp.CheckpointManager(home) as manager:
    manager.save(
      1000, args=ocp.args.StandardSave({'step': np.zeros(())}), metrics={'step': 1000, 'score': 1.0}
    )


def a_file(home):
  home.mkdir()
  (home / '7').write_bytes(b'')


def a_link_within(home):
  save(home.parent / 'other', [0.1])
  home.mkdir()
  (home / '1').symlink_to(home.parent / 'other' / FOLDER / '1')


def a_link(home):
  save(home.parent / 'other', [0.1])
  home.symlink_to(home.parent / 'other' / FOLDER)


def a_link_to_set_aside_by(home):
  save(home.parent, [0.1])
  (home.parent / 'elsewhere').mkdir()
  (home.parent / 'damaged').symlink_to(home.parent / 'elsewhere')


FOREIGN = [
  another_tools,
  another_tools_of_orbax,
  a_file,
  a_link_within,
  a_link,
  a_link_to_set_aside_by,
]


@pytest.mark.parametrize('make', FOREIGN, ids=lambda make: make.__name__)
def test_what_is_not_ours_is_refused_and_not_touched(tmp_path, make):
  make(tmp_path / FOLDER)
  before = everything(tmp_path)
  with pytest.raises(UserError, match='nothing was touched'):
    Checkpoints(tmp_path)
  assert everything(tmp_path) == before


@pytest.mark.parametrize(
  'name', ['notes.txt', 'best', '2.orbax-checkpoint-tmp', '2.deleted', '-1', '01', '1.5', '\u0663']
)
def test_what_bears_no_name_of_ours_is_left_where_it_is(sound, tmp_path, name):
  shutil.copytree(sound, tmp_path, dirs_exist_ok=True)
  (tmp_path / FOLDER / name).mkdir()
  (tmp_path / FOLDER / name / 'x').write_bytes(b'x')
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.drop_damaged(best_too=True)
    for step in (3, 4):
      checkpoints.save(state_at(step), Progress().after(step, 0.9))
  assert (tmp_path / FOLDER / name / 'x').read_bytes() == b'x'
  assert latest_step(tmp_path) == 4


@pytest.mark.parametrize('name', ['3.ahm_jax-saving', '3.ahm_jax-deleted'])
def test_a_link_is_not_removed_through(tmp_path, name):
  save(tmp_path / 'other', [0.1, 0.2, 0.3])
  save(tmp_path / 'run', [0.1])
  (tmp_path / 'run' / FOLDER / name).symlink_to(tmp_path / 'other' / FOLDER / '3')
  before = everything(tmp_path)
  with Checkpoints(tmp_path / 'run'):
    pass
  assert everything(tmp_path) == before


def test_what_was_set_aside_before_is_kept(sound, tmp_path):
  for number in range(3):
    shutil.copytree(sound / FOLDER, tmp_path / FOLDER, dirs_exist_ok=True)
    folders.set_aside(tmp_path, 2, f'is bad {number}')
  assert names(tmp_path / 'damaged') == ['2', '2-1', '2-2']


# A run stays where it is.


@pytest.mark.compiles  # Takes long.
@pytest.mark.parametrize('name', ['home', f'home/{FOLDER}'])
@pytest.mark.parametrize('move', MOVES)
@pytest.mark.parametrize('at', ['save', 'written', 'end', 'restore'])
def test_a_run_that_is_moved_ends_and_its_parts_stay_together(tmp_path, at, move, name):
  change, _ = MOVES[move]
  workdir, moved = tmp_path / 'place' / 'home', tmp_path / 'place' / name
  said = r'^\S*/home(/checkpoints)? was (moved to|removed or replaced) '
  with pytest.raises(UserError, match=said) as caught, Checkpoints(workdir) as checkpoints:
    checkpoints.save(state_at(1), Progress().after(1, 0.5))
    checkpoints.progress()
    if at == 'written':
      wait = checkpoints._orbax.wait_until_finished

      def wait_in_the_background():
        wait()
        if threading.current_thread() is not threading.main_thread():
          change(moved)

      checkpoints._orbax.wait_until_finished = wait_in_the_background
      checkpoints.save(state_at(2), Progress().after(2, 0.6))
    else:
      change(moved)
      before = everything(tmp_path)
      if at == 'save':
        checkpoints.save(state_at(2), Progress().after(2, 0.6))
      elif at == 'restore':
        checkpoints.restore_best(target(jax.local_devices()[:1]))
  assert '\n' not in str(caught.value)
  if at != 'written':
    assert everything(tmp_path) == before
  assert not [path for path in tmp_path.rglob('2') if path.is_dir()]


# A run is read while it trains.


def pruned(workdir):
  """Better states are saved, so that all that was there goes."""
  held = saved(workdir / FOLDER / '3')
  for step in (4, 5):
    home = shutil.copytree(workdir / FOLDER / '3', folders.saving(workdir, step))
    progress = held.progress._replace(step=step, score=0.9)
    (home / 'metrics' / 'metrics').write_text(json.dumps(numbers(held._replace(progress=progress))))
    folders.commit(workdir, step)
    folders.prune(workdir)
  assert names(workdir / FOLDER) == ['4', '5']


def saved_again(workdir):
  for step in (2, 3):
    shutil.copytree(workdir / FOLDER / str(step), folders.saving(workdir, step))
    folders.commit(workdir, step)


def first_weight(state):
  return float(state['layer']['kernel'][0, 0])


READS = {
  'best': lambda workdir: first_weight(load_variables(workdir, best=True)['params']),
  'latest': lambda workdir: first_weight(load_variables(workdir, best=False)['params']),
  'state': lambda workdir: first_weight(
    load_state(workdir, target(jax.local_devices()[:1])).params
  ),
}


@pytest.mark.compiles  # Takes long.
@pytest.mark.parametrize('error', [None, errno.ESTALE])
@pytest.mark.parametrize('change', [pruned, saved_again])
@pytest.mark.parametrize('read', READS)
def test_a_checkpoint_that_is_removed_while_it_is_read_is_not_called_damaged(
  three, tmp_path, monkeypatch, read, change, error
):
  """At each of the files that are read, and by each word of a server for a file that is gone."""
  monkeypatch.setattr(checkpoint_reading, '_PAUSE', 0)
  monkeypatch.setattr(folders.durable, 'sync', lambda _: None)
  reading = files.read
  for n in range(100):
    workdir, left = shutil.copytree(three, tmp_path / str(n)), n

    def remove_and_read(path):
      nonlocal left
      left -= 1
      if left == -1:
        change(workdir)  # noqa: B023
        if error:
          with files.reading(path):
            raise OSError(error, os.strerror(error))
      return reading(path)

    monkeypatch.setattr(files, 'read', remove_and_read)
    value = READS[read](workdir)
    monkeypatch.setattr(files, 'read', reading)
    whole = left >= 0  # It was read before anything was removed.
    was_best = read == 'best' and (change is saved_again or whole)
    assert value == (2 if was_best else 3), n
    if whole:
      break
  assert n > 5


@pytest.fixture(scope='module')
def three(tmp_path_factory):
  """A run that has the checkpoints 2, the best, and 3; not to be changed."""
  workdir = tmp_path_factory.mktemp('three')
  save(workdir, [0.1, 0.5, 0.3])
  return workdir


def test_a_checkpoint_that_is_always_removed_ends_in_a_line(tmp_path, monkeypatch):
  save(tmp_path, [0.1, 0.5])
  tries = []

  def remove(path):
    tries.append(path)
    home = tmp_path / FOLDER / '2'
    home.rename(home.with_name('away'))
    shutil.copytree(home.with_name('away'), home)
    shutil.rmtree(home.with_name('away'))
    raise DamagedCheckpoint('is damaged: x is not there')

  monkeypatch.setattr(files, 'read', remove)
  said = r'checkpoints/2 was removed, or replaced, while it was read; run the same command again$'
  with pytest.raises(UserError, match=said):
    load_variables(tmp_path, best=False)
  assert len(tries) == 3


# What was written is read back.


def test_a_first_checkpoint_that_is_not_there_ends_the_run(tmp_path):
  workdir = tmp_path / 'run[1]'  # Which Orbax takes for a pattern.
  said = (
    r'the checkpoint of step 1 was written into .*run\[1\]/checkpoints, but read back it is damaged'
  )
  with pytest.raises(UserError, match=said), Checkpoints(workdir) as checkpoints:
    checkpoints.save(state_at(1), Progress().after(1, 0.5))
  assert latest_step(workdir) == 0


def test_a_first_checkpoint_is_read_back_and_others_are_not(tmp_path, monkeypatch):
  read = []
  arrays = folders.files.arrays
  monkeypatch.setattr(folders.files, 'arrays', lambda home: read.append(home.name) or arrays(home))
  save(tmp_path, [0.1, 0.2, 0.3])
  assert read == ['1.ahm_jax-saving']


def test_a_checkpoint_is_on_disk_before_it_is_in_its_place(tmp_path, monkeypatch):
  synced = set()
  fsync = os.fsync
  monkeypatch.setattr(
    os,
    'fsync',
    lambda file: synced.add(str(Path(f'/proc/self/fd/{file}').readlink())) or fsync(file),
  )
  save(tmp_path, [0.1])
  home = tmp_path / FOLDER
  written = [path.relative_to(home / '1') for path in (home / '1').rglob('*')]
  assert synced >= {str(home / '1.ahm_jax-saving' / path) for path in written} | {str(home)}


@pytest.fixture(scope='module')
def once(tmp_path_factory):
  """A run that saved once."""
  workdir = tmp_path_factory.mktemp('once')
  save(workdir, [0.1])
  return workdir


@pytest.mark.parametrize('number', [errno.EIO, errno.EACCES, errno.ESTALE, errno.EROFS])
@pytest.mark.parametrize('name', ['rename', 'fsync', 'mkdir'])
def test_a_checkpoint_that_cannot_be_written_is_the_users_error(
  once, tmp_path, monkeypatch, number, name
):
  shutil.copytree(once, tmp_path, dirs_exist_ok=True)

  def fail(*_, **__):
    raise OSError(number, os.strerror(number))

  said = rf'/checkpoints cannot be written \({os.strerror(number)}\)'
  with pytest.raises(UserError, match=said), Checkpoints(tmp_path) as checkpoints:
    monkeypatch.setattr(os, name, fail)
    checkpoints.save(state_at(2), Progress().after(2, 0.5))
  monkeypatch.undo()
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.drop_damaged(best_too=True)
    step = checkpoints.progress().step
    assert step in (1, 2)
    assert_state(checkpoints.restore_latest(target(jax.local_devices()[:1])), step)
