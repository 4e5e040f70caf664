"""CutMix: images in pairs, each of which shows a box of the other (Yun et al., arXiv 1905.04899; of
unlabelled images: French et al., arXiv 1906.01916).
"""

import jax
import jax.numpy as jnp

from ahm_jax.config import UnlabelledConfig


def partners(x: jax.Array) -> jax.Array:
  """[u, ...], where each two in a row have changed places."""
  return x.reshape(-1, 2, *x.shape[1:])[:, ::-1].reshape(x.shape)


def boxes(key: jax.Array, pairs: jax.Array, size: int, config: UnlabelledConfig) -> jax.Array:
  """Where each of u images shows its partner: bool [u, size, size], a box or nothing.

  A box has a share of the area from `cutmix_area` and a random aspect ratio, as French et al. draw
  them: its height is that share to the power of a uniform number.

  Args:
    pairs: int [u], a number for each pair; both of its images have the same box.
  """

  def box(pair):
    any_key, area_key, height_key, corner_key = jax.random.split(jax.random.fold_in(key, pair), 4)
    low, high = config.cutmix_area
    area = jax.random.uniform(area_key, minval=low, maxval=high)
    height = area ** jax.random.uniform(height_key)
    sides = jnp.stack([height, area / height])
    corner = jax.random.uniform(corner_key, (2,)) * (1 - sides)
    centres = (jnp.arange(size) + 0.5) / size
    rows, columns = (
      (start <= centres) & (centres < start + side)
      for start, side in zip(corner, sides, strict=True)
    )
    return jax.random.bernoulli(any_key, config.cutmix) & rows[:, None] & columns

  return jax.vmap(box)(pairs)
