"""What was trained, written for others: one function a format, all into a new folder that
appears whole.
"""

import contextlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ahm_jax.errors import UserError
from ahm_jax.export import card, onnx_model, stablehlo
from ahm_jax.pipeline.stages import CLASSIFY, SEGMENT, STAGES
from ahm_jax.runs import checkpoints
from ahm_jax.runs.trained import VARIABLES, Trained, load
from ahm_jax.weights import files, loading, names

WEIGHTS = 'weights'
_RUNS = (SEGMENT, CLASSIFY)  # What can be used on images: it has an output that means something.


def export(
  source: Path,
  kind: str,
  out: Path,
  licence: str = '',
  platforms: Sequence[str] = stablehlo.PLATFORMS,
) -> Trained:
  """Exports what was trained, with MODEL_CARD.md and export.json beside it.

  Args:
    source: the workdir of a run, or an Orbax export.
    kind: one of FORMATS.
    out: the folder, which is made; it may be there if it is empty.
    licence: of the weights, for the card.
    platforms: that a StableHLO program is to run on.

  Raises:
    UserError: the format or a platform is not known, `source` holds nothing to export, a package is
      missing, or `out` is taken.
  """
  if kind not in FORMATS:
    raise UserError(f'--format is {kind!r}; it may be {", ".join(FORMATS)}')
  out = Path(out).expanduser()
  if out.exists() and not (out.is_dir() and not any(out.iterdir())):
    raise UserError(
      f'--out={out} is there already, and nothing is written over; choose a folder that is empty or not there'
    )
  if kind == 'stablehlo':
    stablehlo.check(platforms)
  elif kind == 'onnx':
    onnx_model.check()
  elif kind == 'safetensors':
    files.safetensors_numpy()
  trained = load(source, _RUNS if kind in ('stablehlo', 'onnx') else STAGES)
  with _appearing(out) as home:
    notes = FORMATS[kind](trained, home, platforms)
    facts = {'format': kind, 'licence': licence, 'versions': card.versions(), 'notes': notes}
    card.write(trained, home, facts)
  return trained


@contextlib.contextmanager
def _appearing(out: Path) -> Iterator[Path]:
  """A new folder that takes its place as `out` when the context is left, and goes where that
  fails.
  """
  out.parent.mkdir(parents=True, exist_ok=True)
  scratch = out.with_name(f'.{out.name}.{uuid.uuid4().hex}.tmp')
  scratch.mkdir()
  try:
    yield scratch
    os.rename(scratch, out)  # Onto an empty folder too, and onto no other.
  except OSError as error:
    if out.exists() and scratch.exists() and any(out.iterdir()):
      raise UserError(
        f'--out={out} was filled meanwhile, and nothing is written over; choose another'
      ) from error
    raise
  finally:
    shutil.rmtree(scratch, ignore_errors=True)


def _orbax(trained: Trained, home: Path, platforms: Sequence[str]) -> dict[str, Any]:
  del platforms
  checkpoints.write_variables(home / VARIABLES, trained.variables)
  return {'files': f"`{VARIABLES}/`, for Orbax's StandardCheckpointer, float32"}


def _stablehlo(trained: Trained, home: Path, platforms: Sequence[str]) -> dict[str, Any]:
  stablehlo.write(trained, home, platforms)
  return {
    'files': f'`{stablehlo.PROGRAM}`, of `jax.export`; `{stablehlo.WEIGHTS}`; `{stablehlo.LOADER}`, which runs them',
    'takes': f'uint8 [b, h, w, {trained.config.data.channels}], any number of images of any one size; resizes them itself',
    'platforms': ', '.join(platforms),
  }


def _onnx(trained: Trained, home: Path, platforms: Sequence[str]) -> dict[str, Any]:
  del platforms
  difference = onnx_model.write(trained, home)
  side, _, channels = trained.shape
  return {
    'files': f'`{onnx_model.MODEL}`',
    'takes': f'`images`, uint8 [batch, {side}, {side}, {channels}], resized before as in training (Pillow, bicubic)',
    'gives': '`probabilities`, float32',
    'difference': f'at most {difference:.1e} between onnxruntime and JAX, on images of noise, at the export',
  }


def _weights(suffix: str) -> Callable[[Trained, Path, Sequence[str]], dict[str, Any]]:
  def write(trained: Trained, home: Path, platforms: Sequence[str]) -> dict[str, Any]:
    del platforms
    arrays = foreign_arrays(trained)
    files.write(
      home / f'{WEIGHTS}{suffix}',
      arrays,
      {'format': 'pt', 'stage': trained.stage.name, 'digest': trained.digest},
    )
    vgg = f'torchvision.models.vgg16{"_bn" if trained.config.model.vgg_norm else ""}, with AdaptiveAvgPool2d(1)'
    names_of = vgg if trained.stage is CLASSIFY else 'milesial/Pytorch-UNet'
    return {
      'files': f'`{WEIGHTS}{suffix}`, by the names and layouts of {names_of}',
      'takes': 'images scaled as (value / 255 - 0.5) / 0.25',
    }

  return write


def foreign_arrays(trained: Trained) -> dict[str, Any]:
  """The weights as a PyTorch state dict has them, with its counters."""
  model = trained.config.model
  is_vgg = trained.stage is CLASSIFY
  arrays = loading.outward(
    trained.variables, names.vgg16(model.vgg_width, model.vgg_norm) if is_vgg else names.unet()
  )
  return loading.with_counters(
    loading.with_zero_biases(arrays) if is_vgg and model.vgg_norm else arrays, trained.step
  )


FORMATS: dict[str, Callable[[Trained, Path, Sequence[str]], dict[str, Any]]] = {
  'orbax': _orbax,
  'stablehlo': _stablehlo,
  'onnx': _onnx,
  'safetensors': _weights('.safetensors'),
  'npz': _weights('.npz'),
}
