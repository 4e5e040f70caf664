"""The loop on a toy: one convolution learns the brighter pixels of noise.

Run as a script, it trains until it kills itself.
"""

import contextlib
import dataclasses
import functools
import json
import math
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from ahm_jax.config import DataConfig, RecipeConfig, SafetyConfig
from ahm_jax.data.batches import Source, source
from ahm_jax.data.dataset import Split
from ahm_jax.data.sampling import batch_indices
from ahm_jax.errors import UserError
from ahm_jax.runs import snapshots
from ahm_jax.runs.checkpoint_files import FOLDER
from ahm_jax.runs.checkpoints import Checkpoints, Progress
from ahm_jax.runs.metrics_log import FILE
from ahm_jax.runtime import parallel
from ahm_jax.runtime.parallel import DEVICES
from ahm_jax.runtime.signals import Stopped
from ahm_jax.task import Task, TrainState
from ahm_jax.training.loop import fit

STEPS = 20
RECIPE = RecipeConfig(steps=STEPS, batch_size=8, log_every=3, eval_every=5)
TRACES = []
tx = optax.adam(1e-2)


@functools.cache
def toy_split():
  images = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 3), np.uint8)
  names = tuple(map(str, range(30)))
  masks = (images.mean(-1) > 128).astype(np.uint8)
  return Split(names, images, masks, np.zeros(30, np.int32), np.ones(30, bool), names, (b'',) * 30)


@jax.jit
def init(key):
  first, second = jax.random.split(key)
  params = {
    'in': 0.2 * jax.random.normal(first, (3, 3, 3, 6)),
    'out': 0.2 * jax.random.normal(second, (6,)),
  }
  return TrainState(jnp.zeros((), jnp.int32), params, {'mean': jnp.zeros(6)}, tx.init(params), ())


def step(state, batch, key):
  TRACES.append(None)
  draw = jax.vmap(
    lambda position: jax.random.normal(jax.random.fold_in(key, position), batch.images.shape[1:])
  )
  x = batch.images / 255.0 - 0.5 + 0.1 * draw(batch.positions)

  def objective(params):
    hidden = lax.conv_general_dilated(
      x, params['in'], (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )
    logits = jax.nn.relu(hidden) @ params['out']
    return optax.sigmoid_binary_cross_entropy(logits, batch.masks).mean(), hidden.mean((0, 1, 2))

  (loss, mean), gradients = jax.value_and_grad(objective, has_aux=True)(state.params)
  gradients, mean, loss = lax.pmean((gradients, mean, loss), DEVICES)
  updates, opt_state = tx.update(gradients, state.opt_state, state.params)
  statistics = {'mean': 0.9 * state.batch_stats['mean'] + 0.1 * mean}
  return TrainState(
    state.step + 1, optax.apply_updates(state.params, updates), statistics, opt_state, ()
  ), {'loss': loss}


def scored(scores=None, keep_best=False):
  """The toy task.

  At step s its score is scores[s], and the negative size of its parameters where none are given.
  """

  def evaluate(state):
    score = (
      scores[int(state.step)]
      if scores
      else -sum(float(jnp.abs(leaf).sum()) for leaf in jax.tree.leaves(state.params))
    )
    return {'score': score}

  return Task(
    'toy',
    init,
    step,
    evaluate,
    keep_best,
    snapshot=lambda state: {'mean': state.batch_stats['mean']},
  )


class Interrupted(Source):
  """Gives batches up to step `at`, and then does what interrupts."""

  def inputs(self, start, stop):
    for number, inputs in enumerate(super().inputs(start, stop), start):
      if number == self.at:
        self.interrupt()
      yield inputs


class Interruption(Exception):
  pass


def interruption(*_):
  raise Interruption


def run(
  workdir,
  task=None,
  recipe=RECIPE,
  devices=1,
  share=1.0,
  seed=0,
  at=None,
  interrupt=interruption,
  **options,
):
  over = jax.local_devices()[:devices]
  item = source(
    toy_split(), DataConfig(resident_share=share), np.arange(25), recipe.batch_size, seed, over
  )
  if at is not None:
    whole, item = item, Interrupted.__new__(Interrupted)
    vars(item).update(vars(whole), at=at, interrupt=interrupt)
  return fit(task or scored(), item, recipe, pathlib.Path(workdir), seed, recipe.steps, **options)


def lines(workdir):
  return [json.loads(line) for line in (workdir / FILE).read_text().splitlines()]


def assert_identical(one, other):
  assert jax.tree.structure(one) == jax.tree.structure(other)
  jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('uninterrupted')
  return run(workdir), (workdir / FILE).read_bytes()


def test_a_killed_run_resumes_bit_for_bit(tmp_path, uninterrupted):
  for at in (3, 13):  # Before the first checkpoint, and after the one of step 10.
    killed = subprocess.run(
      [sys.executable, __file__, tmp_path, str(at)], capture_output=True, text=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
  assert 3 < lines(tmp_path)[-1]['step'] < STEPS
  state, metrics = uninterrupted
  assert_identical(run(tmp_path), state)
  assert (tmp_path / FILE).read_bytes() == metrics
  kept = snapshots.read(tmp_path)
  assert list(kept) == [5, 10, 15, 20]  # At each validation.
  np.testing.assert_array_equal(kept[20]['mean'], state.batch_stats['mean'])


@pytest.fixture
def signals_are_heard():
  """Also where this process was started to ignore Ctrl-C, as by a script in the background."""
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  yield
  signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures('signals_are_heard')
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
  'at', [0, 3, 7, 8, 13]
)  # In the middle, at a line, before a validation, after one.
def test_a_signal_saves_the_state_of_its_step(tmp_path, uninterrupted, number, at):
  handlers = [signal.getsignal(item) for item in (signal.SIGINT, signal.SIGTERM)]
  with pytest.raises(Stopped):
    run(tmp_path, at=at, interrupt=lambda: signal.raise_signal(number))
  assert [signal.getsignal(item) for item in (signal.SIGINT, signal.SIGTERM)] == handlers
  with Checkpoints(tmp_path) as checkpoints:
    assert at < checkpoints.progress().step <= at + 2
  assert_identical(run(tmp_path), uninterrupted[0])
  assert (tmp_path / FILE).read_bytes() == uninterrupted[1]


@pytest.mark.usefixtures('signals_are_heard')
@pytest.mark.parametrize(('step', 'keep_best'), [(10, True), (20, True), (20, False)])
def test_a_signal_in_a_validation_stops_it_and_it_is_made_up_for(tmp_path, step, keep_best):
  scores = {5: 0.1, 10: 0.5, 15: 0.2, 20: 0.9}
  task = scored(scores, keep_best)

  def evaluate(state):
    if int(state.step) == step:
      signal.raise_signal(signal.SIGTERM)
      raise AssertionError('the signal did not end the validation')
    return task.evaluate(state)

  whole = run(tmp_path / 'whole', task)
  with pytest.raises(Stopped):
    run(tmp_path / 'run', task._replace(evaluate=evaluate))
  assert lines(tmp_path / 'run')[-1]['step'] < step
  assert_identical(run(tmp_path / 'run', task), whole)
  assert (tmp_path / 'run' / FILE).read_bytes() == (tmp_path / 'whole' / FILE).read_bytes()
  with Checkpoints(tmp_path / 'run') as checkpoints:
    assert checkpoints.progress() == Progress(20, 0.9, 0.9, 0, 20)


@pytest.mark.usefixtures('signals_are_heard')
def test_a_signal_that_python_swallowed_is_not_lost(tmp_path):
  def evaluate(_):
    with contextlib.suppress(KeyboardInterrupt):  # As it falls into a callback of Python's own.
      signal.raise_signal(signal.SIGINT)
    return {'score': 0.0}

  with pytest.raises(Stopped):
    run(tmp_path, scored()._replace(evaluate=evaluate))
  assert 5 <= lines(tmp_path)[-1]['step'] <= 6


def test_checkpoints_come_by_time_too(tmp_path, uninterrupted, monkeypatch):
  saved = []
  save = Checkpoints.save

  def note_and_save(self, state, progress):
    saved.append(progress.step)
    save(self, state, progress)

  monkeypatch.setattr(Checkpoints, 'save', note_and_save)
  state = run(tmp_path, safety=SafetyConfig(save_minutes=1e-9))
  # The request for one comes back a step later.
  assert saved == [2, 4, 5, 7, 9, 10, 12, 14, 15, 17, 19, 20]
  assert_identical(state, uninterrupted[0])
  assert (tmp_path / FILE).read_bytes() == uninterrupted[1]


def test_a_run_killed_between_lines_resumes_bit_for_bit(tmp_path, uninterrupted):
  with pytest.raises(Interruption):
    run(tmp_path, at=8, safety=SafetyConfig(save_minutes=1e-9))
  with Checkpoints(tmp_path) as checkpoints:
    assert checkpoints.progress().step == 7
  assert_identical(run(tmp_path), uninterrupted[0])
  assert (tmp_path / FILE).read_bytes() == uninterrupted[1]


def test_metrics_have_a_line_every_log_every_steps_and_at_every_validation(uninterrupted):
  items = [json.loads(line) for line in uninterrupted[1].splitlines()]
  assert [item['step'] for item in items] == [3, 5, 6, 9, 10, 12, 15, 18, 20]
  assert [item['step'] for item in items if 'validation/score' in item] == [5, 10, 15, 20]
  assert all(isinstance(item['loss'], float) for item in items)
  assert items[-1]['loss'] < items[0]['loss']


def assert_close(one, other):
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), one, other)


def test_streamed_equals_resident(tmp_path, uninterrupted):
  assert_close(run(tmp_path, share=0.0), uninterrupted[0])
  assert_close(lines(tmp_path), [json.loads(line) for line in uninterrupted[1].splitlines()])


def test_four_devices_equal_one_also_when_resumed_on_them(tmp_path, uninterrupted):
  with pytest.raises(Interruption):
    run(tmp_path, at=12)
  resumed = run(tmp_path, devices=4)
  whole = run(tmp_path / 'whole', devices=4, share=0.0)
  for state in (resumed, whole):
    assert all(leaf.devices() == {jax.local_devices()[0]} for leaf in jax.tree.leaves(state))
    assert_close(state, uninterrupted[0])


def test_another_seed_is_another_run(tmp_path, uninterrupted):
  other = run(tmp_path, seed=1)
  assert not np.array_equal(other.params['in'], uninterrupted[0].params['in'])


def test_a_finished_run_returns_at_once(tmp_path, uninterrupted, monkeypatch):
  run(tmp_path)
  monkeypatch.setattr(Source, 'inputs', interruption)
  assert_identical(run(tmp_path), uninterrupted[0])
  assert (tmp_path / FILE).read_bytes() == uninterrupted[1]


@pytest.mark.parametrize(('keep_best', 'step'), [(True, 10), (False, 20)])
def test_best_or_last(tmp_path, keep_best, step):
  scores = {5: 0.1, 10: 0.9, 15: 0.5, 20: 0.3}
  assert int(run(tmp_path, scored(scores, keep_best)).step) == step
  assert sorted(int(path.name) for path in (tmp_path / FOLDER).iterdir()) == [10, 15, 20]


def test_validates_ten_times_by_default(tmp_path):
  run(tmp_path, recipe=RecipeConfig(steps=20, batch_size=8, log_every=100))
  assert [line['step'] for line in lines(tmp_path)] == [2, 4, 6, 8, 10, 12, 14, 16, 18, 20]


PATIENT = RecipeConfig(steps=STEPS, batch_size=8, log_every=100, eval_every=2, patience=3)
PEAKED = {2: 0.1, 4: 0.5, 6: 0.5, 8: 0.2, 10: math.nan, 12: 0.9}


def test_early_stopping(tmp_path):
  state = run(tmp_path, scored(PEAKED, keep_best=True), PATIENT)
  assert lines(tmp_path)[-1]['step'] == 10
  assert lines(tmp_path)[-1]['validation/score'] is None
  assert int(state.step) == 6  # As good as step 4, and later.


def test_early_stopping_remembers_across_an_interruption(tmp_path):
  with pytest.raises(Interruption):
    run(tmp_path, scored(PEAKED, keep_best=True), PATIENT, at=9)
  with Checkpoints(tmp_path) as checkpoints:
    assert checkpoints.progress().validations_since_best == 2
  for _ in range(2):  # The second finds that the run is over.
    run(tmp_path, scored(PEAKED, keep_best=True), PATIENT)
    assert [line['step'] for line in lines(tmp_path)] == [2, 4, 6, 8, 10]


def test_runs_of_one_task_share_one_program(tmp_path):
  run(tmp_path / 'first')
  before = len(TRACES)
  run(tmp_path / 'second', seed=5)
  run(tmp_path / 'third', scored(keep_best=True), RecipeConfig(steps=4, batch_size=8, log_every=1))
  assert len(TRACES) == before


@functools.cache
def broken(*steps, part='loss'):
  """A task whose steps to these are not finite, in the loss or in the parameters."""

  def spoilt(state, batch, key):
    state, metrics = step(state, batch, key)
    factor = jnp.where(jnp.isin(state.step, jnp.array(steps)), jnp.nan, 1.0)
    if part == 'loss':
      return state, {'loss': factor * metrics['loss']}
    return state._replace(params=jax.tree.map(lambda x: factor * x, state.params)), metrics

  return scored()._replace(step=spoilt)


@pytest.mark.parametrize('part', ['loss', 'params'])
def test_a_step_that_is_not_finite_is_skipped_and_counted(tmp_path, part, capsys):
  """An optimizer that had seen these steps would lead elsewhere."""
  recipe = RecipeConfig(steps=6, batch_size=8, log_every=2, eval_every=6)
  state = run(tmp_path, broken(3, 4, 5, part=part), recipe, safety=SafetyConfig(skipped_steps=4))
  assert int(state.step) == 6 and int(state.opt_state[0].count) == 3
  assert [line.get('skipped') for line in lines(tmp_path)] == [None, 2, 1]
  assert [line['loss'] is None for line in lines(tmp_path)] == [False, True, False]
  whole = run(tmp_path / 'whole', scored(), dataclasses.replace(recipe, steps=2))
  source_of_two = run(
    tmp_path / 'two', broken(3, 4, 5, part=part), dataclasses.replace(recipe, steps=5)
  )
  assert_identical(source_of_two.params, whole.params)
  said = capsys.readouterr().err
  assert 'step 3 is skipped: its loss or gradient is not finite; images: ' in said


def test_too_many_such_steps_in_a_row_end_the_run_and_name_its_images(tmp_path):
  task = broken(3, 7, 8, 9)
  names = [toy_split().ids[i] for i in batch_indices(0, 8, 25, 8)]
  line = (
    f'steps 7 to 9 were skipped: .*; images of the last: {", ".join(names)}; lower the learning'
  )
  with pytest.raises(UserError, match=line):
    run(tmp_path, task, safety=SafetyConfig(skipped_steps=3))
  with Checkpoints(tmp_path) as checkpoints:
    assert checkpoints.progress().step == 5
    good = checkpoints.restore_latest(
      parallel.abstract(init(jax.random.key(0)), parallel.replicated(jax.local_devices()[:1]))
    )
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(good.params))


@pytest.mark.usefixtures('signals_are_heard')
def test_the_count_of_such_steps_survives_an_interruption(tmp_path):
  with pytest.raises(Stopped):
    run(tmp_path, broken(7, 8, 9, 10), at=7, interrupt=lambda: signal.raise_signal(signal.SIGTERM))
  with pytest.raises(UserError, match='steps 7 to 10 were skipped'):
    run(tmp_path, broken(7, 8, 9, 10), safety=SafetyConfig(skipped_steps=4))


# What becomes of damage.


def spoil(workdir, step, how):
  """Damages a checkpoint, as a disk or a killed copy might."""
  home = workdir / FOLDER / str(step)
  # Not all of them are read: some lie on the way.
  arrays = [path for path in home.rglob('d/*') if path.is_file()]
  description = home / 'metrics' / 'metrics'
  if how == 'truncated':
    for path in arrays:
      os.truncate(path, path.stat().st_size // 2)
  elif how == 'a bit':
    for path in arrays:
      data = bytearray(path.read_bytes())
      data[len(data) // 2] ^= 1
      path.write_bytes(data)
  elif how == 'gone':
    for path in arrays:
      path.unlink()
  elif how == 'description':
    os.truncate(description, 10)
  elif how == 'numbers':
    description.write_text(description.read_text().replace('"params": "', '"params": "0'))


@pytest.mark.parametrize('how', ['truncated', 'a bit', 'gone', 'description', 'numbers'])
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_is_used(
  tmp_path, uninterrupted, capsys, how
):
  with pytest.raises(Interruption):
    run(tmp_path, at=12)
  spoil(tmp_path, 10, how)
  assert_identical(run(tmp_path), uninterrupted[0])
  assert (tmp_path / FILE).read_bytes() == uninterrupted[1]
  said = capsys.readouterr().err
  assert (
    'the checkpoint of step 10 ' in said
    and f'it is not used, and was moved to {tmp_path / "damaged" / "10"}' in said
  )
  assert (tmp_path / 'damaged' / '10' / 'metrics').is_dir()


def test_where_the_best_checkpoint_is_damaged_a_run_starts_anew_only_when_told(tmp_path):
  task = scored({5: 0.1, 10: 0.9, 15: 0.5, 20: 0.3}, keep_best=True)
  whole = run(tmp_path, task)
  spoil(tmp_path, 10, 'a bit')
  for _ in range(2):
    with pytest.raises(
      UserError, match=f'nothing was moved; .* remove {tmp_path}/{FOLDER} to start'
    ):
      run(tmp_path, task)
  assert {path.name for path in (tmp_path / FOLDER).iterdir()} == {'10', '15', '20'}
  shutil.rmtree(tmp_path / FOLDER)
  assert_identical(run(tmp_path, task), whole)


def test_profile_writes_a_trace_and_says_where_a_step_goes(tmp_path, capsys):
  run(tmp_path, profile_steps='2:4')
  said = capsys.readouterr().out
  assert 'where a step goes' in said and ' convolution ' in said and ' GFLOP a step' in said
  assert [
    path for path in (tmp_path / 'profile').rglob('*') if path.is_file() and path.stat().st_size
  ]


@pytest.mark.parametrize('steps', ['5', '4:2', 'a:b', '3:3'])
def test_profile_steps_that_make_no_sense_are_the_users_error(tmp_path, steps):
  with pytest.raises(UserError, match=r'config\.profile\.steps'):
    run(tmp_path, profile_steps=steps)


if __name__ == '__main__':
  jax.config.update('jax_num_cpu_devices', 4)  # As in the tests.
  run(sys.argv[1], at=int(sys.argv[2]), interrupt=lambda: os.kill(os.getpid(), signal.SIGKILL))
