import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ahm_jax.masking.workers import as_one_batch
from ahm_jax.models.agent import Agent

PATCH = 4


@pytest.fixture(scope='module')
def agent():
  return Agent(trunk='light', width=2, patch_size=PATCH)


@pytest.fixture(scope='module')
def variables(agent):
  return jax.jit(functools.partial(agent.init, train=False))(
    jax.random.key(0), jnp.zeros((1, 8, 8, 3))
  )


def objective(apply, params, batch_stats, images):
  """A number that depends on every output, and the new statistics, of images [K, b, H, W, C]."""
  (logits, values), new_stats = apply(params, batch_stats, images)
  assert logits.shape == values.shape == (*images.shape[:2], 2, 2)
  weights = jnp.arange(logits.size).reshape(logits.shape)
  return (weights * jnp.sin(1e3 * logits) + jnp.cos(weights) * values).sum(), new_stats


def together(agent):
  return jax.vmap(as_one_batch(agent), in_axes=(None, None, 0), out_axes=(0, None))


def test_it_is_one_batch_and_so_is_its_gradient(agent, variables):
  images = jax.random.normal(jax.random.key(1), (3, 2, 8, 8, 3))

  def by_hand(params, batch_stats, images):
    flat = images.reshape(-1, *images.shape[2:])
    maps, updates = agent.apply(
      {'params': params, 'batch_stats': batch_stats}, flat, train=True, mutable=['batch_stats']
    )
    return [x.reshape(3, 2, 2, 2) for x in maps], updates['batch_stats']

  ours, expected = (
    jax.jit(jax.value_and_grad(functools.partial(objective, apply), has_aux=True))(
      variables['params'], variables['batch_stats'], images
    )
    for apply in (together(agent), by_hand)
  )
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), ours, expected)
  assert all(leaf.any() for leaf in jax.tree.leaves(ours))


def test_no_worker_has_a_kernel_gradient_of_its_own(agent, variables):
  images = jax.ShapeDtypeStruct((3, 2, 8, 8, 3), jnp.float32)

  def program(apply):
    gradient = jax.jit(jax.grad(functools.partial(objective, apply), has_aux=True))
    return gradient.lower(variables['params'], variables['batch_stats'], images).as_text()

  def left_to_vmap(params, batch_stats, images):
    def apply(images):
      maps, updates = agent.clone(axis_name='workers').apply(
        {'params': params, 'batch_stats': batch_stats}, images, train=True, mutable=['batch_stats']
      )
      return maps, updates['batch_stats']

    return jax.vmap(apply, out_axes=(0, None), axis_name='workers')(images)

  assert 'feature_group_count = 3' in program(left_to_vmap)
  assert 'feature_group_count = 3' not in program(together(agent))
