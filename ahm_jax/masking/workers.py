"""The images of all workers of a step, through a network as one batch."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax


def as_one_batch(
  network: nn.Module, **options: Any
) -> Callable[[Any, Any, jax.Array], tuple[Any, Any]]:
  """A network in training, to be called under a vmap of workers.

  There all workers' images go through the network as one batch, and batch statistics are those of
  them all. Left to vmap, every worker would have a kernel gradient of its own from
  `ahm_jax.models.convolution`, in a grouped convolution, which is slow.

  Args:
    network: takes images [b, H, W, C], `train` and `options`, and has batch statistics.

  Returns:
    apply(params, batch_stats, images) -> outputs, a pytree of [b, ...], and new batch_stats.
    `images` are one worker's; parameters and statistics are the same for all of them. It has no
    gradient elsewhere than under a vmap.
  """

  def apply(params, batch_stats, images):
    variables = {'params': params, 'batch_stats': batch_stats}
    outputs, updates = network.apply(
      variables, images, train=True, mutable=['batch_stats'], **options
    )
    return outputs, updates['batch_stats']

  by_worker = jax.custom_batching.custom_vmap(apply)

  @by_worker.def_vmap
  def together(workers, in_batched, params, batch_stats, images):
    del in_batched
    outputs, new_stats = apply(params, batch_stats, images.reshape(-1, *images.shape[2:]))
    outputs = jax.tree.map(lambda x: x.reshape(workers, -1, *x.shape[1:]), outputs)
    return (outputs, new_stats), (
      jax.tree.map(lambda _: True, outputs),
      jax.tree.map(lambda _: False, new_stats),
    )

  return by_worker
