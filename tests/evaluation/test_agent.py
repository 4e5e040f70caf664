"""On a strategy that masks as it is told, and a U-Net whose error at every patch is known."""

import dataclasses
from types import SimpleNamespace
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from ahm_jax.config import MaskingConfig
from ahm_jax.data.dataset import Split
from ahm_jax.evaluation.agent import border_lift, image_difficulty, learning_metrics
from ahm_jax.masking import registry
from ahm_jax.masking.patches import to_pixels
from ahm_jax.masking.rollout import Proposal
from ahm_jax.masking.strategy import Context, Strategy

PATCH, GRID, COUNT = 4, 4, 20
MASKING = MaskingConfig(strategy='uniform', patch_size=PATCH, mask_ratio=0.5)
# Mean squared error of each patch: 1 to 16, in an order of its own.
DIFFICULTY = (
  (1.0 + np.random.default_rng(3).permutation(GRID * GRID)).reshape(GRID, GRID).astype(np.float32)
)


class Unet(NamedTuple):
  """Reconstructs mid-grey images, which are 0 when normalised, up to a known error, times the root
  of a number for each channel.
  """

  by_channel: tuple[int, ...] = (1,)

  def apply(self, variables, masked, train):
    assert not train
    error = to_pixels(jnp.sqrt(variables['params'] * DIFFICULTY), PATCH)
    return jnp.broadcast_to(error[..., None] * jnp.sqrt(jnp.array(self.by_channel)), masked.shape)


class Nets(NamedTuple):
  strategy: Strategy
  masking: MaskingConfig
  unet: Unet = Unet()


def masks(probability, chosen):
  """A strategy of this policy [g, g], which always masks the patches `chosen`."""

  def propose(state, images, key, progress, train):
    del state, key, progress
    assert not train

    def maps(grid):
      return jnp.broadcast_to(jnp.asarray(grid, jnp.float32), (len(images), GRID, GRID))

    return Proposal(maps(chosen), maps(probability))

  return Strategy(None, propose, None)


def measure(strategy, split):
  nets = Nets(strategy, MASKING)
  state = SimpleNamespace(params=jnp.float32(0.01), batch_stats={}, extra=())
  return learning_metrics(nets, state, split)


@pytest.fixture
def split():
  """Mid-grey images.

  The lesion covers the top row's first patch, and half of the second and third. The last has no
  mask.
  """
  masks = np.zeros((COUNT, 16, 16), np.uint8)
  masks[:, :4, :4] = 1
  masks[:, :2, 4:12] = 1
  names, has_mask = tuple(map(str, range(COUNT))), np.arange(COUNT) < COUNT - 1
  masks[~has_mask] = 0
  images = np.full((COUNT, 16, 16, 3), 127.5)
  return Split(names, images, masks, np.zeros(COUNT, np.int32), has_mask, names, (b'',) * COUNT)


def test_a_policy_that_knows_the_difficulty(split):
  """It masks the 8 hardest of 16: their mean error is 12.5, that of all is 8.5, which 8 draws of
  20 images come close to.
  """
  probability = DIFFICULTY / 17
  result = measure(masks(probability, DIFFICULTY > 8), split)
  assert result['difficulty_rank_correlation'] == pytest.approx(1)
  assert result['mask_ratio'] == 0.5
  assert result['loss'] == pytest.approx(0.125, rel=1e-5)
  assert result['uniform_loss'] == pytest.approx(0.085, rel=0.05)
  assert result['hardness_ratio'] == pytest.approx(result['loss'] / result['uniform_loss'])
  border, outside = probability[0, 1:3], np.append(probability[0, 3], probability[1:])
  assert result['border_lift'] == pytest.approx(border.mean() / outside.mean(), rel=1e-5)


def test_a_policy_that_seeks_what_is_easy(split):
  result = measure(masks(1 / DIFFICULTY, DIFFICULTY <= 4), split)
  assert result['difficulty_rank_correlation'] == pytest.approx(-1)
  assert result['loss'] == pytest.approx(0.025, rel=1e-5)
  assert result['mask_ratio'] == 0.25
  assert result['hardness_ratio'] == pytest.approx(2.5 / 8.5, rel=0.05)


def test_uniform_masks_rank_nothing(split):
  context = Context(MASKING, None, None, None)
  result = measure(registry.build(context), split)
  assert result['difficulty_rank_correlation'] == 0
  assert result['hardness_ratio'] == pytest.approx(1, abs=0.05)
  assert result['border_lift'] == pytest.approx(1)
  assert result['mask_ratio'] == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize('chosen', [DIFFICULTY > 8, DIFFICULTY <= 4, DIFFICULTY == 16])
def test_the_difficulty_of_an_image_is_its_loss_where_the_agent_masks_it(chosen):
  nets = Nets(masks(DIFFICULTY / 17, chosen), MASKING)
  state = SimpleNamespace(params=jnp.float32(0.01), batch_stats={}, extra=())
  grey = np.full((3, 16, 16, 3), 127.5)
  # Normalised, the second is 1 everywhere, and the third 2.
  images = grey + np.array([0, 63.75, 127.5])[:, None, None, None]
  found = image_difficulty(nets, state, images, batch_size=2)
  error = np.sqrt(0.01 * DIFFICULTY[chosen])
  expected = [np.mean((error - level) ** 2) for level in (0, 1, 2)]
  np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_border_lift_by_hand():
  """One border patch of 0.8.

  Two without lesion, of 0.2 and 0.6; one that is all lesion does not count.
  """
  masks = np.zeros((1, 8, 8), np.uint8)
  masks[0, :4, :4], masks[0, 0, 4] = 1, 1
  probability = np.array([[[0.1, 0.8], [0.2, 0.6]]])
  assert border_lift(probability, masks, 4) == pytest.approx(2)
  assert np.isnan(border_lift(probability, np.zeros_like(masks), 4))
  assert np.isnan(border_lift(probability, np.ones_like(masks), 4))
  assert np.isnan(border_lift(probability[:0], masks[:0], 4))


def test_metrics_of_patches_of_single_modalities(split):
  """Of two, of which the second is three times as hard."""
  masking = dataclasses.replace(MASKING, per_modality=True)
  split = dataclasses.replace(split, images=np.full((COUNT, 16, 16, 2), 128, np.uint8))
  chosen = np.concatenate([np.zeros((GRID, GRID)), np.ones((GRID, GRID))], 1)

  def metrics(policy):
    both = [jnp.asarray(x, jnp.float32) for x in (chosen, policy)]

    def propose(state, images, key, progress, train):
      del state, key, progress, train
      return Proposal(*(jnp.broadcast_to(x, (len(images), GRID, 2 * GRID)) for x in both))

    strategy = Strategy(None, propose, None)
    state = SimpleNamespace(params=jnp.float32(0.01), batch_stats={}, extra=())
    return learning_metrics(Nets(strategy, masking, Unet((1, 3))), state, split)

  difficulty = np.concatenate([DIFFICULTY, 3 * DIFFICULTY], 1)
  found = metrics(difficulty / 50)
  assert found['difficulty_rank_correlation'] > 0.99
  # Masks of the second modality alone cost 3 units, uniform ones (1 + 3) / 2.
  assert found['hardness_ratio'] == pytest.approx(1.5, rel=0.05)
  assert found['mask_ratio'] == 0.5
  assert found['border_lift'] == pytest.approx(
    border_lift(
      np.broadcast_to(2 * DIFFICULTY / 50, (COUNT, GRID, GRID))[split.has_mask],
      split.masks[split.has_mask],
      PATCH,
    )
  )
