"""The format stablehlo: a program that takes images of any size, and runs without this package."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from ahm_jax.errors import UserError
from ahm_jax.export import portable, resizing, shared
from ahm_jax.runs.trained import Trained
from ahm_jax.runtime import trees
from ahm_jax.weights import files

PROGRAM = 'program.stablehlo'
WEIGHTS = 'weights.npz'
LOADER = 'load.py'
TEMPLATE = Path(__file__).with_name('load_template.py')
PLATFORMS = ('cpu', 'cuda')  # That we lower for; JAX knows more, which nobody has tried here.


def check(platforms: Sequence[str]) -> None:
  """Raises a UserError where the program cannot be lowered for a platform, or a package is
  missing.
  """
  for name in platforms:
    if name not in PLATFORMS:
      raise UserError(
        f'--platforms has {name!r}, which there is no export for; choose among '
        f'{", ".join(PLATFORMS)}'
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
  sizes = jax.export.symbolic_shape(f'b, h, w, {trained.channels}')
  images = jax.ShapeDtypeStruct(sizes, np.uint8)
  compiled = jax.jit(function(trained))
  with shared.without_source_folders():
    exported = jax.export.export(compiled, platforms=tuple(platforms))(abstract, images)
  program = exported.serialize()
  (home / PROGRAM).write_bytes(program)
  if (home / PROGRAM).read_bytes() != program:
    raise UserError(f'{home / PROGRAM} does not hold what was written; choose another --out')
  results = jax.tree.unflatten(exported.out_tree, exported.out_avals)
  text = loader(images, results, digests(home))
  (home / LOADER).write_text(text, encoding='utf-8')


def digests(home: Path) -> dict[str, str]:
  """SHA-256 of what load.py reads."""
  return {
    name: hashlib.sha256((home / name).read_bytes()).hexdigest() for name in (PROGRAM, WEIGHTS)
  }


def loader(images: Any, results: Mapping[str, Any], whole: Mapping[str, str]) -> str:
  """The text of load.py: the template, which says what the program takes and gives.

  Args:
    images, results: shapes and dtypes.
    whole: as of `digests`.
  """
  gives = ', and '.join(f'{name}, {_text(result)}' for name, result in results.items())
  text = TEMPLATE.read_text(encoding='utf-8')
  text = text.replace('IMAGES', _text(images)).replace('RESULTS', gives)
  for name, digest in whole.items():
    text = text.replace(f"'{name}': ''", f"'{name}': '{digest}'")
  return text


def _text(array: Any) -> str:
  """'float32 [b, h, w, 3]'."""
  return f'{array.dtype} [{", ".join(map(str, array.shape))}]'


def function(trained: Trained) -> Callable[[dict[str, Any], jax.Array], dict[str, jax.Array]]:
  """The whole way from images to masks, or to diagnoses.

  Returns:
    A pure function (weights by path, images uint8 [b, h, w, C]) -> of a network that sees pixels
    {'mask': uint8 [b, h, w], 'probabilities': float32 [b, h, w]}, the mask 0 and 1 or class indices
    and the probabilities with K classes [b, h, w, K + 1], and where it tells diagnoses {'class':
    int32 [b], 'class_probabilities': [b, classes]} too; of one that sees images as a whole
    {'class': int32 [b], 'probabilities': [b, classes]}.
  """
  threshold = trained.config.evaluate.threshold
  network = portable.outputs(trained)

  def run(weights: dict[str, Any], images: jax.Array) -> dict[str, jax.Array]:
    _, height, width, _ = images.shape
    seen = resizing.squashed(images, trained.image_size)
    probabilities, *told = network(trees.unflatten(weights), seen)
    if probabilities.ndim == 2:
      return {'class': probabilities.argmax(-1).astype(jnp.int32), 'probabilities': probabilities}
    probabilities = resizing.at_size(probabilities, height, width)
    mask = probabilities >= threshold if probabilities.ndim == 3 else probabilities.argmax(-1)
    found = {'mask': mask.astype(jnp.uint8), 'probabilities': probabilities}
    for diagnoses in told:
      found |= {'class': diagnoses.argmax(-1).astype(jnp.int32), 'class_probabilities': diagnoses}
    return found

  return run
