"""The format stablehlo: a program that takes images of any size and needs nothing of ours to
run.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ahm_jax.errors import UserError
from ahm_jax.export import loader, resizing
from ahm_jax.export.portable import probabilities as portable
from ahm_jax.pipeline.stages import SEGMENT
from ahm_jax.runs.trained import Trained
from ahm_jax.runtime import trees
from ahm_jax.weights import files

PROGRAM = 'program.stablehlo'
WEIGHTS = 'weights.npz'
LOADER = 'load.py'
PLATFORMS = ('cpu', 'cuda')  # That we lower for; JAX knows more, which nobody has tried here.


def check(platforms: Sequence[str]) -> None:
  """Raises a UserError where the program cannot be lowered for a platform, or a package is
  missing.
  """
  for name in platforms:
    if name not in PLATFORMS:
      raise UserError(
        f'--platforms has {name!r}, which there is no export for; choose among {", ".join(PLATFORMS)}'
      )
  if not platforms:
    raise UserError(f'--platforms is empty; choose among {", ".join(PLATFORMS)}')
  try:
    import flatbuffers  # noqa: F401
  except ImportError as error:
    raise files.missing('--format=stablehlo', 'flatbuffers') from error


def write(trained: Trained, home: Path, platforms: Sequence[str]) -> None:
  """Writes the program, its weights and the loader into a folder."""
  weights = trees.flatten(trained.variables)
  files.write(home / WEIGHTS, weights, {})
  abstract = {
    name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in weights.items()
  }
  images = jax.export.symbolic_shape(f'b, h, w, {trained.config.data.channels}')
  exported = jax.export.export(jax.jit(function(trained)), platforms=tuple(platforms))(
    abstract, jax.ShapeDtypeStruct(images, np.uint8)
  )
  (home / PROGRAM).write_bytes(exported.serialize())
  (home / LOADER).write_text(loader.text(trained.stage.name, trained.config.data.channels))


def function(trained: Trained) -> Callable[[dict[str, Any], jax.Array], dict[str, jax.Array]]:
  """The whole way from images to masks.

  Returns:
    A pure function (weights by path, images uint8 [b, h, w, C]) -> of a segmentation {'mask': uint8
    [b, h, w], 'probabilities': float32 [b, h, w]}, the mask 0 and 1 or class indices and the
    probabilities with K classes [b, h, w, K + 1]; of a classification {'class': int32 [b],
    'probabilities': [b, classes]}.
  """
  side, threshold = trained.config.data.image_size, trained.config.evaluate.threshold
  network = portable(trained)

  def segmented(weights, images):
    _, height, width, _ = images.shape
    probabilities = network(trees.unflatten(weights), resizing.squashed(images, side))
    probabilities = resizing.at_size(probabilities, height, width)
    mask = probabilities >= threshold if probabilities.ndim == 3 else probabilities.argmax(-1)
    return {'mask': mask.astype(jnp.uint8), 'probabilities': probabilities}

  def classified(weights, images):
    probabilities = network(trees.unflatten(weights), resizing.squashed(images, side))
    return {'class': probabilities.argmax(-1).astype(jnp.int32), 'probabilities': probabilities}

  return segmented if trained.stage is SEGMENT else classified
