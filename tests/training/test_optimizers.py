import dataclasses

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ahm_jax.config import Config, RecipeConfig
from ahm_jax.training.optimizers import optimizer, schedule, total_steps


def recipe(**fields):
  return RecipeConfig(**{'steps': 100, 'learning_rate': 1.0, **fields})


def rates(item, steps, total=100, per_epoch=10.0):
  rate = schedule(item, total, per_epoch)
  return [float(rate(step)) for step in steps]


def test_total_steps():
  assert total_steps(recipe(steps=7), 1000) == 7
  assert total_steps(recipe(steps=None, epochs=3.0, batch_size=4), 10) == 8  # 7.5
  assert total_steps(recipe(steps=None, epochs=0.1, batch_size=4), 10) == 1
  few_or_many = recipe(steps=100, min_epochs=10.0, batch_size=4)
  # 102.5 is even
  assert [total_steps(few_or_many, images) for images in (20, 40, 41, 1000)] == [
    100,
    100,
    102,
    2500,
  ]
  assert total_steps(recipe(steps=None, epochs=1.0, min_epochs=2.0, batch_size=4), 10) == 5


def test_constant():
  assert rates(recipe(learning_rate=0.5), [0, 50, 99]) == [0.5, 0.5, 0.5]


def test_the_reports_staircase_loses_ten_percent_every_three_epochs():
  item = dataclasses.replace(Config().segment, learning_rate=3e-4)
  per_epoch = 1943 / 4  # So three epochs are 1457.25 steps.
  steps = [0, 1457, 1458, 2914, 2915, 10 * 1458]
  expected = [3e-4, 3e-4, 2.7e-4, 2.7e-4, 2.43e-4, 3e-4 * 0.9**10]
  np.testing.assert_allclose(rates(item, steps, per_epoch=per_epoch), expected, rtol=1e-5)


def test_cosine_ends_at_zero():
  np.testing.assert_allclose(
    rates(recipe(schedule='cosine'), [0, 25, 50, 100]), [1, 0.8535534, 0.5, 0], atol=1e-6
  )


def test_warm_up_grows_linearly_and_leaves_the_schedule_alone_after():
  np.testing.assert_allclose(rates(recipe(warmup=0.1), [0, 5, 10, 50]), [0, 0.5, 1, 1], atol=1e-6)
  np.testing.assert_allclose(
    rates(recipe(warmup=0.5, schedule='cosine'), [25, 75]), [0.5 * 0.8535534, 0.1464466], atol=1e-6
  )


def first_update(item, gradient, param=1.0):
  tx = optimizer(item, 100, 10.0).transformation()
  params = {'w': jnp.array(param)}
  updates, _ = tx.update({'w': jnp.array(gradient)}, tx.init(params), params)
  return float(updates['w'])


def test_adams_first_update_is_the_learning_rate_against_the_gradients_sign():
  assert first_update(recipe(learning_rate=0.1), 5.0) == pytest.approx(-0.1, rel=1e-5)


def test_adamw_adds_decay():
  item = recipe(learning_rate=0.1, optimizer='adamw', weight_decay=0.5)
  assert first_update(item, 5.0, param=2.0) == pytest.approx(-0.1 * (1 + 0.5 * 2), rel=1e-5)


def test_clip_is_by_global_norm():
  tx = optimizer(recipe(clip=1.0), 100, 10.0).transformation()
  params = {'a': jnp.array(0.0), 'b': jnp.array(0.0)}
  _, state = tx.update({'a': jnp.array(30.0), 'b': jnp.array(40.0)}, tx.init(params), params)
  mean = optax.tree.get(state, 'mu')  # 0.1 of the clipped gradient.
  assert float(mean['a']) == pytest.approx(0.06, rel=1e-5)
  assert float(mean['b']) == pytest.approx(0.08, rel=1e-5)


def test_recipes_that_train_alike_have_equal_optimizers():
  assert optimizer(recipe(), 100, 10.0) == optimizer(recipe(), 200, 20.0)
  assert optimizer(recipe(schedule='cosine'), 100, 10.0) == optimizer(
    recipe(schedule='cosine'), 100, 20.0
  )
  assert optimizer(recipe(schedule='cosine'), 100, 10.0) != optimizer(
    recipe(schedule='cosine'), 200, 10.0
  )
  assert optimizer(recipe(schedule='staircase'), 100, 10.0) != optimizer(
    recipe(schedule='staircase'), 100, 20.0
  )
  assert optimizer(recipe(warmup=0.1), 100, 10.0) != optimizer(recipe(warmup=0.1), 200, 10.0)
