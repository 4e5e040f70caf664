"""The format onnx, by jax2onnx: a network without the resizing around it, for onnxruntime and
others.
"""

import logging
import os
import warnings
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ahm_jax.errors import UserError
from ahm_jax.export import portable, shared
from ahm_jax.runs.trained import Trained
from ahm_jax.weights import files

OUTPUTS = ('probabilities', 'class_probabilities')
MODEL = 'model.onnx'
TOLERANCE = 1e-4  # Of probabilities, between onnxruntime and JAX.


def check() -> None:
  """Raises a UserError where a package is missing."""
  _packages()


def write(trained: Trained, home: Path) -> float:
  """Writes the model, whose input is uint8 [batch, S, S, C] and whose outputs, named OUTPUTS, are
  those of `portable.outputs`.

  Returns:
    the largest difference between its probabilities, by onnxruntime, and JAX's, on images of noise.

  Raises:
    UserError: that is more than TOLERANCE.
  """
  jax2onnx, onnx, onnxruntime = _packages()
  variables, outputs = trained.variables, portable.outputs(trained)
  shape = ('batch', *trained.shape)
  for name in ('onnx_ir', 'jax2onnx'):  # They warn of values whose types they then infer.
    logging.getLogger(name).setLevel(logging.ERROR)
  with warnings.catch_warnings(), shared.without_source_folders():
    warnings.simplefilter('ignore')
    model = jax2onnx.to_onnx(
      lambda images: outputs(variables, images),
      [jax.ShapeDtypeStruct(shape, np.uint8)],
      model_name=f'ahm_jax_{trained.stage}',
      input_names=['images'],
      output_names=list(output_names(trained)),
    )
  # The converter notes some shapes as they were before it moved axes; they can be inferred.
  del model.graph.value_info[:]
  onnx.checker.check_model(model)
  onnx.save(model, home / MODEL)
  images = np.random.default_rng(0).integers(0, 256, (3, *trained.shape), np.uint8)
  found = run(home / MODEL, images, onnxruntime)
  expected = jax.jit(outputs)(variables, images)
  difference = max(
    float(np.abs(one - np.asarray(other)).max()) for one, other in zip(found, expected, strict=True)
  )
  if not difference <= TOLERANCE:
    raise UserError(
      f'the ONNX model is off by {difference:.1e}, more than {TOLERANCE:.0e}; choose another '
      '--format'
    )
  return difference


def output_names(trained: Trained) -> tuple[str, ...]:
  """Of the model's outputs, in order."""
  return OUTPUTS if trained.diagnoses else OUTPUTS[:1]


def run(path: Path, images: np.ndarray, onnxruntime: Any = None) -> list[np.ndarray]:
  """What onnxruntime's CPU provider makes of uint8 images [B, S, S, C]: each of the outputs."""
  onnxruntime = onnxruntime or _packages()[2]
  session = onnxruntime.InferenceSession(os.fspath(path), providers=['CPUExecutionProvider'])
  return session.run(None, {'images': images})


def _packages() -> tuple[Any, Any, Any]:
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')  # The converter looks at old names of JAX.
      import jax2onnx
      import onnx
      import onnxruntime
  except ImportError as error:
    raise files.missing('--format=onnx', error.name or 'onnx') from error
  return jax2onnx, onnx, onnxruntime
