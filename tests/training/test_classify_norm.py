"""Training a VGG16 with batch normalisation.

Its first two stages alone, since thirteen layers compile for long.
"""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from ahm_jax.data.augment import normalise
from ahm_jax.models import vgg16
from ahm_jax.models.build import classifier
from ahm_jax.training import classify
from ahm_jax.weights import names, norms, saving

STEPS = 60


@pytest.fixture(scope='module', autouse=True)
def two_stages():
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(vgg16, 'STAGES', vgg16.STAGES[:2])
    yield


@pytest.fixture(scope='module')
def config(make_config):
  """Without augmentation. Its hidden width is nobody else's, who would share our programs."""
  config = make_config()
  return dataclasses.replace(
    config, model=dataclasses.replace(config.model, vgg_norm='batch', vgg_hidden=24)
  )


@pytest.fixture(scope='module')
def task(config, split):
  return classify.build(config, split, 2, STEPS, 1)


@pytest.fixture(scope='module')
def first(task, start):
  return start(task)


@pytest.fixture(scope='module')
def after_one(task, first, split, drive):
  """The state and the metrics of one step on one device."""
  return drive(task, first, split)


def test_two_devices_equal_one(task, first, after_one, split, drive, assert_close):
  (one, history), (two, other_history) = after_one, drive(task, first, split, devices=2)
  assert_close(history, other_history)
  assert_close((one.batch_stats, one.opt_state), (two.batch_stats, two.opt_state))
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=6.1e-3), one.params, two.params
  )


def test_running_statistics_are_those_of_pytorch(torch_networks, first, after_one, split):
  """But for its variance of a sample, n / (n - 1) of ours, over the n pixels of a batch."""
  entries = names.vgg16(4, 'batch')
  trunk = {'params': {'trunk': first.params['trunk']}, 'batch_stats': first.batch_stats}
  weights = saving.with_counters(norms.with_zero_biases(saving.outward(trunk, entries)), 0)
  # To the ReLU after conv2_2.
  layers = torch_networks.VGG16(norm=True, width=4, hidden=1).features[:13]
  torch_networks.put(
    layers, {name.removeprefix('features.'): np.array(x) for name, x in weights.items()}
  ).train()
  torch_networks.apply(layers, np.array(normalise(split.images / np.float32(255))))
  found = torch_networks.arrays(layers)
  state, _ = after_one
  ours = saving.outward({'batch_stats': state.batch_stats}, entries)
  assert len(ours) == 8
  for name, array in ours.items():
    theirs = found[name.removeprefix('features.')]
    n = split.images[..., 0].size / (1 if name.startswith(('features.1.', 'features.4.')) else 4)
    expected = theirs if name.endswith('mean') else 0.9 + (theirs - 0.9) * (n - 1) / n
    np.testing.assert_allclose(array, expected, rtol=1e-4, atol=1e-5, err_msg=name)


def test_without_synchronisation_statistics_are_means_of_the_devices_own(
  config, after_one, first, split, drive
):
  """Of the first layer, means are those of the whole batch, and variances lack what lies between
  the two halves.
  """
  apart = dataclasses.replace(
    config, model=dataclasses.replace(config.model, sync_batch_norm=False)
  )
  halves = split.take([0, 2, 4, 6, 1, 3, 5, 7])  # Each of one class: they differ.
  states = (
    after_one[0],
    drive(classify.build(apart, split, 2, STEPS, 1), first, halves, devices=2)[0],
  )
  whole, apart = (state.batch_stats['trunk']['conv1_1']['norm'] for state in states)
  np.testing.assert_allclose(apart['mean'], whole['mean'], rtol=1e-3, atol=1e-6)
  assert (apart['var'] < whole['var'] - 1e-5).all()


def test_it_learns_and_is_used_by_running_statistics(config, task, first, split, drive):
  """Those of a batch would depend on its size."""
  state, history = drive(task, first, split, steps=STEPS)
  losses = [metrics['loss'] for metrics in history]
  assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
  assert task.evaluate(state)['score'] == 1
  vgg = classifier(config.model, 2)
  variables = {'params': state.params, 'batch_stats': state.batch_stats}
  whole, in_threes = (classify.predict(vgg, variables, split.images, size) for size in (8, 3))
  np.testing.assert_allclose(in_threes, whole, atol=1e-5)
  variables = {'params': state.params, 'batch_stats': first.batch_stats}
  fresh = classify.predict(vgg, variables, split.images, 8)
  assert np.abs(fresh - whole).max() > 0.1
