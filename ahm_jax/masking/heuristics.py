"""Masks that nothing is learnt for: uniform, blockwise, and by saliency."""

import math

import jax
import jax.numpy as jnp

from ahm_jax.config import MaskingConfig
from ahm_jax.masking.agents import policy_logits
from ahm_jax.masking.patches import budget_shift, patch_mean
from ahm_jax.masking.strategy import (
  Context,
  Strategy,
  action_ratio,
  draw,
  grid_shape,
  hidden_count,
  proposal,
  stay,
)

# Rectangles drawn for an image; those that come after the budget is used up are not looked at.
_BLOCKS = 32
_BLOCK_AREAS = 16 / 196, 0.3  # Of the grid. The smallest is that of BEiT.
_ASPECTS = 0.3, 1 / 0.3  # Height to width, as in BEiT.
_BINS = 16  # Of the histogram of grey levels.
_EPSILON = 1e-4


def uniform(context: Context) -> Strategy:
  """Every patch is hidden with the same probability, independently of the others."""
  masking = context.masking

  def propose(state, images, key, progress, train):
    del state, progress, train
    logits = jnp.zeros(grid_shape(images, masking))
    return draw(key, logits + budget_shift(logits, action_ratio(masking)), masking)

  return Strategy(init=_no_state, propose=propose, learn=stay)


def blockwise(context: Context) -> Strategy:
  """Rectangles of patches, one after the other until the budget is used up (after BEiT, arXiv
  2106.08254, algorithm 1).

  Their area is uniform between 8 % and 30 % of the grid, their aspect ratio log-uniform between 0.3
  and 1 / 0.3; of the last rectangle, so many rows are taken as the budget still allows. What leaves
  the image on one side comes in on the other, so that every patch is hidden as often as any other,
  where BEiT hides the middle most. The number of hidden patches is mask_ratio * N, rounded at
  random so that this is its mean.
  """
  masking = context.masking

  def propose(state, images, key, progress, train):
    del state, progress, train
    b, rows, columns = grid_shape(images, masking)
    block_key, count_key = jax.random.split(key)
    count = jnp.floor(
      masking.mask_ratio * rows * columns + jax.random.uniform(count_key, (b, 1, 1))
    )
    if masking.exact_count:
      count = jnp.full((b, 1, 1), hidden_count(masking, rows * columns))
    order = jax.vmap(lambda key: block_order(key, rows, columns))(jax.random.split(block_key, b))
    hidden = (order < count).astype(jnp.float32)
    return proposal(hidden, jnp.full_like(hidden, masking.mask_ratio), masking)

  return Strategy(init=_no_state, propose=propose, learn=stay)


def block_order(key: jax.Array, rows: int, columns: int) -> jax.Array:
  """In which order random rectangles cover the patches of a grid: a permutation of 0 .. rows *
  columns - 1, [rows, columns].

  Patches of one rectangle follow each other row by row from its first corner; those that no
  rectangle covers come last.
  """
  area_key, aspect_key, top_key, left_key = jax.random.split(key, 4)
  area = (
    jax.random.uniform(area_key, (_BLOCKS,), minval=_BLOCK_AREAS[0], maxval=_BLOCK_AREAS[1])
    * rows
    * columns
  )
  low, high = (math.log(aspect) for aspect in _ASPECTS)
  aspect = jnp.exp(jax.random.uniform(aspect_key, (_BLOCKS,), minval=low, maxval=high))
  height, width = jnp.round(jnp.sqrt(area * aspect)), jnp.round(jnp.sqrt(area / aspect))
  top, left = (
    jax.random.randint(top_key, (_BLOCKS,), 0, rows),
    jax.random.randint(left_key, (_BLOCKS,), 0, columns),
  )
  down = (
    jnp.arange(rows)[:, None, None] - top
  ) % rows  # From the rectangle's corner, [rows, 1, blocks].
  right = (jnp.arange(columns)[:, None] - left) % columns
  covers = (down < jnp.maximum(height, 1)) & (
    right < jnp.maximum(width, 1)
  )  # [rows, columns, blocks]
  first = jnp.where(covers.any(-1), covers.argmax(-1), _BLOCKS - 1)
  within = jnp.take_along_axis(down * columns + right, first[..., None], -1)[..., 0]
  place = jnp.where(covers.any(-1), first, _BLOCKS) * rows * columns + within
  return jnp.argsort(jnp.argsort(place.ravel())).reshape(rows, columns)


def saliency(context: Context) -> Strategy:
  """Hides what looks busy, by a measure of the image alone (`masking.saliency`), easing in as an
  agent's policy does.
  """
  masking = context.masking
  measure = {'gradient': gradient_energy, 'entropy': grey_entropy}[masking.saliency]

  def propose(state, images, key, progress, train):
    del state, train
    scores = _standardised(measure(images, masking.patch_size))
    return draw(key, policy_logits(_directed(scores, masking), progress, masking), masking)

  return Strategy(init=_no_state, propose=propose, learn=stay)


def gradient_energy(images: jax.Array, patch_size: int) -> jax.Array:
  """Logarithm of the mean squared difference of neighbouring pixels of every patch: [b, H, W, C]
  -> [b, g, g].
  """
  squares = []
  for axis in (1, 2):
    step = jnp.diff(images, axis=axis) ** 2
    squares.append(jnp.pad(step, [(0, int(i == axis)) for i in range(4)], mode='edge'))
  return jnp.log(patch_mean(sum(squares).mean(-1), patch_size) + _EPSILON)


def grey_entropy(images: jax.Array, patch_size: int) -> jax.Array:
  """Entropy in nats of the histogram of grey levels of every patch, 16 bins of [-2, 2]: [b, H,
  W, C] -> [b, g, g].
  """
  grey = images.mean(-1)
  bins = jnp.clip(jnp.floor((grey + 2) / 4 * _BINS), 0, _BINS - 1).astype(jnp.int32)
  shares = patch_mean(jnp.moveaxis(jax.nn.one_hot(bins, _BINS), -1, 0), patch_size)
  return jax.scipy.special.entr(shares).sum(0)


def _standardised(scores: jax.Array) -> jax.Array:
  centred = scores - scores.mean((-2, -1), keepdims=True)
  return centred / (scores.std((-2, -1), keepdims=True) + _EPSILON)


def _directed(scores: jax.Array, masking: MaskingConfig) -> jax.Array:
  """Scores as logits of action 1: high where the patch is to be hidden."""
  hides = (masking.polarity == 'hard') == (masking.action_means == 'mask')
  return scores if hides else -scores


def _no_state(key, images, variables):
  del key, images, variables
  return ()
