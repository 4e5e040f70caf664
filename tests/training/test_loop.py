"""The loop on a toy: one convolution learns the brighter pixels of noise. Run as a script, it trains until it kills itself."""

import contextlib
import functools
import json
import math
import os
import pathlib
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from ahm_jax import snapshots
from ahm_jax.checkpoint import FOLDER, Checkpoints
from ahm_jax.config import DataConfig, RecipeConfig
from ahm_jax.data.dataset import Split
from ahm_jax.data.source import Source, source
from ahm_jax.errors import UserError
from ahm_jax.parallel import DEVICES
from ahm_jax.training.loop import fit
from ahm_jax.training.state import Task, TrainState
from ahm_jax.writer import FILE

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
  params = {'in': 0.2 * jax.random.normal(first, (3, 3, 3, 6)), 'out': 0.2 * jax.random.normal(second, (6,))}
  return TrainState(jnp.zeros((), jnp.int32), params, {'mean': jnp.zeros(6)}, tx.init(params), ())


def step(state, batch, key):
  TRACES.append(None)
  draw = jax.vmap(lambda position: jax.random.normal(jax.random.fold_in(key, position), batch.images.shape[1:]))
  x = batch.images / 255.0 - 0.5 + 0.1 * draw(batch.positions)

  def objective(params):
    hidden = lax.conv_general_dilated(x, params['in'], (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
    logits = jax.nn.relu(hidden) @ params['out']
    return optax.sigmoid_binary_cross_entropy(logits, batch.masks).mean(), hidden.mean((0, 1, 2))

  (loss, mean), gradients = jax.value_and_grad(objective, has_aux=True)(state.params)
  gradients, mean, loss = lax.pmean((gradients, mean, loss), DEVICES)
  updates, opt_state = tx.update(gradients, state.opt_state, state.params)
  statistics = {'mean': 0.9 * state.batch_stats['mean'] + 0.1 * mean}
  return TrainState(state.step + 1, optax.apply_updates(state.params, updates), statistics, opt_state, ()), {'loss': loss}


def scored(scores=None, keep_best=False):
  """The toy task; at step s its score is scores[s], and the negative size of its parameters where none are given."""

  def evaluate(state):
    score = scores[int(state.step)] if scores else -sum(float(jnp.abs(leaf).sum()) for leaf in jax.tree.leaves(state.params))
    return {'score': score}

  return Task('toy', init, step, evaluate, keep_best, snapshot=lambda state: {'mean': state.batch_stats['mean']})


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


def run(workdir, task=None, recipe=RECIPE, devices=1, share=1.0, seed=0, at=None, interrupt=interruption, **options):
  over = jax.local_devices()[:devices]
  item = source(toy_split(), DataConfig(resident_share=share), np.arange(25), recipe.batch_size, seed, over)
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
    killed = subprocess.run([sys.executable, __file__, tmp_path, str(at)], capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
  assert 3 < lines(tmp_path)[-1]['step'] < STEPS
  state, metrics = uninterrupted
  assert_identical(run(tmp_path), state)
  assert (tmp_path / FILE).read_bytes() == metrics
  kept = snapshots.read(tmp_path)
  assert list(kept) == [5, 10, 15, 20]  # At each validation.
  np.testing.assert_array_equal(kept[20]['mean'], state.batch_stats['mean'])


def swallowed_ctrl_c():
  """As it falls into a callback of Python's own."""
  with contextlib.suppress(KeyboardInterrupt):
    signal.raise_signal(signal.SIGINT)


def test_a_ctrl_c_that_python_swallowed_is_heard_at_the_next_step(tmp_path, uninterrupted):
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  try:
    with pytest.raises(KeyboardInterrupt):
      run(tmp_path, at=7, interrupt=swallowed_ctrl_c)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
  finally:
    signal.signal(signal.SIGINT, before)
  assert lines(tmp_path)[-1]['step'] < 8
  assert_identical(run(tmp_path), uninterrupted[0])


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
  assert sorted(int(path.name) for path in (tmp_path / FOLDER).iterdir()) == [10, 20]


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


def test_a_loss_that_is_not_finite_is_the_users_error(tmp_path):
  def broken(state, batch, key):
    state, metrics = step(state, batch, key)
    return state, {'loss': jnp.where(state.step == 7, jnp.nan, metrics['loss'])}

  with pytest.raises(UserError, match='loss is nan at step 7'):
    run(tmp_path, scored()._replace(step=broken))


def test_profile_writes_a_trace_and_says_where_a_step_goes(tmp_path, capsys):
  run(tmp_path, profile_steps='2:4')
  said = capsys.readouterr().out
  assert 'where a step goes' in said and ' convolution ' in said
  assert [path for path in (tmp_path / 'profile').rglob('*') if path.is_file() and path.stat().st_size]


@pytest.mark.parametrize('steps', ['5', '4:2', 'a:b', '3:3'])
def test_profile_steps_that_make_no_sense_are_the_users_error(tmp_path, steps):
  with pytest.raises(UserError, match=r'config\.profile\.steps'):
    run(tmp_path, profile_steps=steps)


if __name__ == '__main__':
  jax.config.update('jax_num_cpu_devices', 4)  # As in the tests.
  run(sys.argv[1], at=int(sys.argv[2]), interrupt=lambda: os.kill(os.getpid(), signal.SIGKILL))
