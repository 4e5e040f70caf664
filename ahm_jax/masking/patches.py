"""Patches: from pixels to the patch grid and back, and the budget: how many are masked.

Where every modality has patches of its own (masking.per_modality), the g x g patches of M of them
lie side by side, those of the first one first: a map is [..., g, M g], and all that is the same for
every patch, as the budget, needs not know of it.
"""

import jax
import jax.numpy as jnp
from jax import lax

_BISECTIONS = 40


def patch_mean(x: jax.Array, patch_size: int) -> jax.Array:
  """Mean over every patch: [..., H, W] -> [..., H / patch_size, W / patch_size]."""
  *batch, height, width = x.shape
  tiles = x.reshape(*batch, height // patch_size, patch_size, width // patch_size, patch_size)
  return tiles.mean((-3, -1))


def patch_losses(
  reconstruction: jax.Array, images: jax.Array, patch_size: int, per_modality: bool = False
) -> jax.Array:
  """Mean squared error of every patch: two of [..., H, W, C] -> [..., g, g], g = H / patch_size;
  per modality -> [..., g, C g].
  """
  errors = (reconstruction - images) ** 2
  if per_modality:
    return side_by_side(patch_mean(jnp.moveaxis(errors, -1, -3), patch_size))
  return patch_mean(errors.mean(-1), patch_size)


def side_by_side(maps: jax.Array) -> jax.Array:
  """Maps of M modalities as one: [..., M, g, g] -> [..., g, M g]."""
  *batch, count, rows, columns = maps.shape
  return maps.swapaxes(-3, -2).reshape(*batch, rows, count * columns)


def apart(grid: jax.Array, count: int) -> jax.Array:
  """The inverse of `side_by_side` for M = `count`."""
  *batch, rows, columns = grid.shape
  return grid.reshape(*batch, rows, count, columns // count).swapaxes(-3, -2)


def to_pixels(grid: jax.Array, patch_size: int) -> jax.Array:
  """Repeats every cell over its patch: [..., g, g] -> [..., g * patch_size, g * patch_size]."""
  return jnp.repeat(jnp.repeat(grid, patch_size, -2), patch_size, -1)


def over_images(grid: jax.Array, images: jax.Array, patch_size: int) -> jax.Array:
  """Repeats every cell over its patch of images [..., H, W, C]: of [..., g, g] -> [..., H, W, 1];
  of patches of each modality, [..., g, C g] -> [..., H, W, C].
  """
  count = grid.shape[-1] * patch_size // images.shape[-2]
  if count == 1:
    return to_pixels(grid, patch_size)[..., None]
  return jnp.moveaxis(to_pixels(apart(grid, count), patch_size), -3, -1)


def mask_patches(images: jax.Array, hidden: jax.Array, patch_size: int) -> jax.Array:
  """Images [b, H, W, C] with the patches where `hidden` is 1 set to 0, mid-grey.

  Args:
    hidden: [b, g, g]; per modality [b, g, C g].
  """
  return images * (1 - over_images(hidden, images, patch_size))


def centred(logits: jax.Array) -> jax.Array:
  """Logits [..., g, g] less their mean over each image."""
  return logits - logits.mean((-2, -1), keepdims=True)


def bound_logits(logits: jax.Array, bound: float) -> jax.Array:
  """Bounds logits of any shape smoothly, c * tanh(z / c), so that no patch saturates."""
  return bound * jnp.tanh(logits / bound)


def budget_shift(logits: jax.Array, ratio: float) -> jax.Array:
  """The shift b for which mean(sigmoid(logits + b)) equals `ratio` in every image.

  Found by bisection: the mean grows with b; it lies below the ratio where the largest logit is
  shifted to logit(ratio), and above it where the smallest is. The result is a constant to the
  gradient; log-probabilities must use the shifted logits.

  Args:
    logits: [..., g, g], finite; exact to about 1e-5 of the mean for logits in [-50, 50].
    ratio: in (0, 1).

  Returns:
    [..., 1, 1].
  """
  logits = lax.stop_gradient(logits)
  target = jnp.log(ratio) - jnp.log1p(-ratio)
  low = target - logits.max((-2, -1), keepdims=True)
  high = target - logits.min((-2, -1), keepdims=True)

  def halve(_, bracket):
    low, high = bracket
    middle = (low + high) / 2
    too_few = jax.nn.sigmoid(logits + middle).mean((-2, -1), keepdims=True) < ratio
    return jnp.where(too_few, middle, low), jnp.where(too_few, high, middle)

  low, high = lax.fori_loop(0, _BISECTIONS, halve, (low, high))
  return (low + high) / 2


def tile_budget_shift(logits: jax.Array, ratio: float, tile: int) -> jax.Array:
  """As `budget_shift`, in every square of `tile` x `tile` patches: [..., g, g] -> [..., g, g].

  Args:
    tile: a divisor of g.
  """
  *batch, rows, columns = logits.shape
  tiles = logits.reshape(*batch, rows // tile, tile, columns // tile, tile).swapaxes(-3, -2)
  return to_pixels(budget_shift(tiles, ratio)[..., 0, 0], tile)


def draw_bernoulli(key: jax.Array, logits: jax.Array) -> jax.Array:
  """One independent draw per patch: actions [..., g, g] in {0, 1}, float32, with P(1) =
  sigmoid(logits).
  """
  return jax.random.bernoulli(key, jax.nn.sigmoid(logits)).astype(jnp.float32)


def draw_exact(key: jax.Array, logits: jax.Array, count: int) -> jax.Array:
  """Exactly `count` ones in every image, drawn without replacement by Gumbel top-k (Kool et al.,
  arXiv 1903.06059).

  Higher logits are likelier to be drawn; inclusion probabilities are near sigmoid(logits +
  budget_shift), not equal to it.

  Args:
    logits: [..., g, g]

  Returns:
    Actions [..., g, g] in {0, 1}, float32.
  """
  flat = logits.reshape(*logits.shape[:-2], -1)
  perturbed = flat + jax.random.gumbel(key, flat.shape)
  _, chosen = lax.top_k(perturbed, count)
  actions = jax.nn.one_hot(chosen, flat.shape[-1]).sum(-2)
  return actions.reshape(logits.shape)
