import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ahm_jax.masking.patches import draw_bernoulli, mask_patches, patch_mean, to_pixels
from ahm_jax.masking.rollout import Proposal, rollout


def propose_uniform(observation, key):
  b, height, width, _ = observation.shape
  logits = jnp.full((b, height // 4, width // 4), 0.4)
  return Proposal(draw_bernoulli(key, logits), jax.nn.sigmoid(logits))


def halve(carry, masked):
  return masked / 2 + 0.1, (), carry


run = functools.partial(rollout, carry=None, patch_size=4)


def mask_brightest_first_row(observation, key):
  """Masks the left patch of the first row where it is as bright as the right one, and the right
  patch otherwise.
  """
  del key
  brightness = patch_mean(observation[..., 0], 2)
  left = (brightness[:, 0, 0] >= brightness[:, 0, 1]).astype(jnp.float32)
  hidden = jnp.zeros_like(brightness).at[:, 0, 0].set(left).at[:, 0, 1].set(1 - left)
  return Proposal(hidden, jnp.full_like(hidden, 0.25))


def add(theta):
  return lambda count, masked: (masked + theta, (), count + 1)


def test_three_rounds_by_hand():
  """An image of ones.

  The reconstruction is what is shown plus 1/4, so that a masked patch is reconstructed as 1/4.
  """
  images = jnp.ones((1, 4, 4, 1))
  done, count = rollout(
    images, jax.random.key(0), mask_brightest_first_row, add(0.25), 0, patch_size=2, rounds=3
  )
  assert count == 3

  def patches(x):
    return patch_mean(x[..., 0], 2)[:, 0]

  # Round 1 masks the left patch, round 2 the right one, since the left patch is 1/4 by then, and
  # round 3 the left one again, which is as bright as the right one.
  np.testing.assert_array_equal(
    done.hidden[:, 0], [[[1, 0], [0, 0]], [[0, 1], [0, 0]], [[1, 0], [0, 0]]]
  )
  np.testing.assert_array_equal(done.probability, np.full((3, 1, 2, 2), 0.25))
  np.testing.assert_array_equal(
    patches(done.observations), [[[1, 1], [1, 1]], [[0.25, 1], [1, 1]], [[0.25, 0.25], [1, 1]]]
  )
  # Round 1: left (0 + 1/4 - 1)^2 = 9/16, elsewhere (1 + 1/4 - 1)^2 = 1/16. Round 2: left (1/4 + 1/4
  # - 1)^2 = 1/4, right 9/16, below 1/16: losses are against the true image. Round 3: left 9/16,
  # right as left was.
  expected = np.array([[[9, 1], [1, 1]], [[4, 9], [1, 1]], [[9, 4], [1, 1]]]) / 16
  np.testing.assert_allclose(done.losses[:, 0], expected, rtol=1e-6)


def test_what_the_unet_sees_is_distorted_and_what_it_reconstructs_is_not():
  """Ones, distorted to 3/2: visible patches become 3/2 + 1/4, masked ones 1/4."""
  images = jnp.ones((1, 4, 4, 1))
  done, _ = rollout(
    images,
    jax.random.key(0),
    mask_brightest_first_row,
    add(0.25),
    0,
    patch_size=2,
    rounds=2,
    distort=lambda seen: seen + 0.5,
  )
  np.testing.assert_array_equal(done.observations[0], images)
  np.testing.assert_array_equal(patch_mean(done.masked[0, ..., 0], 2), [[[0, 1.5], [1.5, 1.5]]])
  np.testing.assert_array_equal(patch_mean(done.observations[1, ..., 0], 2), [[[0.25, 1], [1, 1]]])
  np.testing.assert_allclose(done.losses[0], np.full((1, 2, 2), 9 / 16), rtol=1e-6)


def test_the_gradient_goes_through_the_losses_of_each_round_and_not_from_round_to_round():
  images = jnp.ones((1, 4, 4, 1))

  def losses(theta):
    done, _ = rollout(
      images, jax.random.key(0), mask_brightest_first_row, add(theta), 0, patch_size=2, rounds=2
    )
    return done.losses[:, 0]

  # With t = theta: round 1, masked: (t - 1)^2 -> 2 (t - 1) = -3/2; visible: t^2 -> 2 t = 1/2. Round
  # 2, left: shown is the reconstruction s = 1/4, a constant: (s + t - 1)^2 -> 2 (s + t - 1) = -1,
  # not twice that.
  np.testing.assert_allclose(
    jax.jacobian(losses)(0.25), [[[-1.5, 0.5], [0.5, 0.5]], [[-1, -1.5], [0.5, 0.5]]], atol=1e-6
  )


def test_nothing_but_losses_and_features_carries_a_gradient_to_the_reconstructor(images):
  def outputs(theta):
    done, _ = run(
      images[0],
      jax.random.key(1),
      propose_uniform,
      lambda carry, masked: (theta * masked + 0.1, theta * masked[..., 0], carry),
      rounds=2,
    )
    return {name: value.sum() for name, value in done._asdict().items()}

  gradients = jax.jacobian(outputs)(0.7)
  assert gradients.pop('losses') != 0
  assert gradients.pop('features') != 0
  assert {name: float(value) for name, value in gradients.items()} == dict.fromkeys(gradients, 0)


@pytest.mark.parametrize('rounds', [1, 3])
def test_shapes_and_relations(images, rounds):
  done, _ = run(images[0], jax.random.key(2), propose_uniform, halve, rounds=rounds)
  assert done.observations.shape == (rounds, 3, 16, 16, 2)
  for name in ('hidden', 'probability', 'losses'):
    assert getattr(done, name).shape == (rounds, 3, 4, 4), name
  np.testing.assert_array_equal(done.observations[0], images[0])
  for t in range(rounds):
    masked = mask_patches(done.observations[t], done.hidden[t], 4)
    reconstruction = halve(None, masked)[0]
    np.testing.assert_allclose(
      done.losses[t], patch_mean(((reconstruction - images[0]) ** 2).mean(-1), 4), rtol=1e-5
    )
    if t + 1 < rounds:
      pixels = to_pixels(done.hidden[t], 4)[..., None]
      composite = np.where(pixels == 1, reconstruction, done.observations[t])
      np.testing.assert_allclose(done.observations[t + 1], composite, atol=1e-6)


def test_masked_patches_are_reconstructed_from_mid_grey(images):
  """By a U-Net that answers with what it sees."""
  done, _ = run(
    images[0], jax.random.key(2), propose_uniform, lambda carry, masked: (masked, (), carry)
  )
  np.testing.assert_allclose(
    done.losses, done.hidden * patch_mean((images[0] ** 2).mean(-1), 4), rtol=1e-5
  )


def test_every_round_and_every_worker_draws_afresh_and_a_key_repeats_itself(images):
  workers = jax.jit(
    jax.vmap(lambda images, key: run(images, key, propose_uniform, halve, rounds=3)[0])
  )
  keys = jax.random.split(jax.random.key(3), 2)
  same_images = jnp.stack([images[0], images[0]])
  hidden = np.asarray(workers(same_images, keys).hidden)  # [K, T, b, g, g]
  draws = hidden.reshape(2 * 3 * 3, 16)
  assert len(np.unique(draws, axis=0)) == len(draws)
  np.testing.assert_array_equal(workers(same_images, keys).hidden, hidden)
  assert np.any(workers(same_images, jax.random.split(jax.random.key(4), 2)).hidden != hidden)


@pytest.mark.parametrize('rounds', [1, 2])
def test_vmapped_workers_equal_workers_run_one_by_one(images, build, rounds):
  """Holds where the networks are in inference.

  In training, batch norm's statistics are those of all workers' images.
  """
  strategy, _ = build(strategy='ahm')
  state = strategy.init(jax.random.key(5), images[0], None)
  keys = jax.random.split(jax.random.key(6), 2)

  def work(images, key):
    def propose(observation, round_key):
      return strategy.propose(state, observation, round_key, 0.8, False)

    return run(images, key, propose, halve, rounds=rounds)[0]

  together = jax.jit(jax.vmap(work))(images, keys)
  for worker in range(2):
    alone = jax.jit(work)(images[worker], keys[worker])
    for name, value in alone._asdict().items():
      if name != 'features':  # There are none.
        np.testing.assert_allclose(getattr(together, name)[worker], value, atol=1e-5, err_msg=name)
    np.testing.assert_array_equal(together.hidden[worker], alone.hidden)
