"""A trained network as a function that every platform and format can carry."""

from collections.abc import Callable
from typing import Any

import jax

from ahm_jax.models.convolution import as_lax
from ahm_jax.runs.trained import Trained, in_float32


def outputs(trained: Trained) -> Callable[[Any, jax.Array], tuple[jax.Array, ...]]:
  """`Trained.outputs` as a pure function (variables, images uint8 [B, S, S, C]) of plain
  operations alone, in float32 whatever the training computed in.
  """
  plain = in_float32(trained)

  def function(variables, images):
    with as_lax():
      return plain.outputs(variables, images)

  return function
