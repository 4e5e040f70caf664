"""Masks that nothing is learnt for: uniform, blockwise, and by saliency."""

import math

import jax
import jax.numpy as jnp

from ahm_jax.masking.patches import budget_shift, centred, patch_mean
from ahm_jax.masking.policy import policy_logits
from ahm_jax.masking.rollout import Proposal
from ahm_jax.masking.strategy import Context, Strategy, draw, grid_shape, learn_nothing

# Rectangles drawn for an image; those that come after the budget is used up are not looked at.
_BLOCKS = 32
_BLOCK_AREAS = 16 / 196, 0.3  # Of the grid. The smallest is that of BEiT.
_ASPECTS = 0.3, 1 / 0.3  # Height to width, as in BEiT.
_EPSILON = 1e-4


def uniform(context: Context) -> Strategy:
  """Every patch is masked with the same probability, independently of the others."""
  masking = context.masking

  def propose(state, images, key, progress, train):
    del state, progress, train
    logits = jnp.zeros(grid_shape(images, masking))
    return draw(key, logits + budget_shift(logits, masking.mask_ratio))

  return Strategy(init=no_state, propose=propose, learn=learn_nothing)


def blockwise(context: Context) -> Strategy:
  """Rectangles of patches, one after the other until the budget is used up (after BEiT, arXiv
  2106.08254, algorithm 1).

  Their area is uniform between 8 % and 30 % of the grid, their aspect ratio log-uniform between 0.3
  and 1 / 0.3; of the last rectangle, so many rows are taken as the budget still allows. What leaves
  the image on one side comes in on the other, so that every patch is masked as often as any other,
  where BEiT masks the middle most. The number of masked patches is mask_ratio * N, rounded at
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
    order = jax.vmap(lambda key: block_order(key, rows, columns))(jax.random.split(block_key, b))
    hidden = (order < count).astype(jnp.float32)
    return Proposal(hidden, jnp.full_like(hidden, masking.mask_ratio))

  return Strategy(init=no_state, propose=propose, learn=learn_nothing)


def block_order(key: jax.Array, rows: int, columns: int) -> jax.Array:
  """In which order random rectangles cover the patches of a grid: a permutation of 0 .. rows *
  columns - 1, [rows, columns].

  The rectangles are laid down one after the other. Each numbers the patches that no earlier one
  covered, row by row from its own top left corner, and goes on at the opposite side where it leaves
  the grid; what none covers comes last. On 3 x 4 patches, a rectangle of 2 x 2 from the second row
  and the last column, and then the whole first row:

    4 5 6 7
    1 . . 0
    3 . . 2
  """
  height, width, top, left = _rectangles(key, rows, columns)
  # Of every patch from the top left corner of every rectangle, [rows, columns, blocks] together.
  down = (jnp.arange(rows)[:, None, None] - top) % rows
  right = (jnp.arange(columns)[:, None] - left) % columns
  covers = (down < height) & (right < width)
  covered = covers.any(-1)
  block = jnp.where(covered, covers.argmax(-1), _BLOCKS - 1)  # The first that covers the patch.
  within = jnp.take_along_axis(down * columns + right, block[..., None], -1)[..., 0]
  place = jnp.where(covered, block, _BLOCKS) * rows * columns + within
  return jnp.argsort(jnp.argsort(place.ravel())).reshape(rows, columns)


def _rectangles(
  key: jax.Array, rows: int, columns: int
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
  """Height, width, top row and left column of random rectangles, each [blocks], in patches."""
  area_key, aspect_key, top_key, left_key = jax.random.split(key, 4)
  smallest, largest = _BLOCK_AREAS
  shares = jax.random.uniform(area_key, (_BLOCKS,), minval=smallest, maxval=largest)
  area = shares * rows * columns
  low, high = (math.log(aspect) for aspect in _ASPECTS)
  aspect = jnp.exp(jax.random.uniform(aspect_key, (_BLOCKS,), minval=low, maxval=high))
  height, width = jnp.round(jnp.sqrt(area * aspect)), jnp.round(jnp.sqrt(area / aspect))
  top = jax.random.randint(top_key, (_BLOCKS,), 0, rows)
  left = jax.random.randint(left_key, (_BLOCKS,), 0, columns)
  return jnp.maximum(height, 1), jnp.maximum(width, 1), top, left


def saliency(context: Context) -> Strategy:
  """Masks what looks busy, by the edges in each patch, warmed up as an agent's policy is."""
  masking = context.masking
  sign = 1 if masking.polarity == 'hard' else -1

  def propose(state, images, key, progress, train):
    del state, train
    scores = _standardised(gradient_energy(images, masking.patch_size))
    return draw(key, policy_logits(sign * scores, progress, masking))

  return Strategy(init=no_state, propose=propose, learn=learn_nothing)


def gradient_energy(images: jax.Array, patch_size: int) -> jax.Array:
  """Logarithm of the mean squared difference of neighbouring pixels of every patch: [b, H, W, C]
  -> [b, g, g].
  """
  down, right = jnp.diff(images, axis=1) ** 2, jnp.diff(images, axis=2) ** 2
  # The last row and column have no neighbour, and take the difference before.
  down = jnp.pad(down, [(0, 0), (0, 1), (0, 0), (0, 0)], mode='edge')
  right = jnp.pad(right, [(0, 0), (0, 0), (0, 1), (0, 0)], mode='edge')
  return jnp.log(patch_mean((down + right).mean(-1), patch_size) + _EPSILON)


def _standardised(scores: jax.Array) -> jax.Array:
  return centred(scores) / (scores.std((-2, -1), keepdims=True) + _EPSILON)


def no_state(key, images, variables):
  """The `init` of a strategy that keeps nothing."""
  del key, images, variables
  return ()
