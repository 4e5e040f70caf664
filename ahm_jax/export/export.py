"""What was trained, written for others: a record a format, all into a new folder that appears
whole.
"""

import contextlib
import dataclasses
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ahm_jax.config import paths
from ahm_jax.errors import UserError
from ahm_jax.export import card, onnx_model, stablehlo
from ahm_jax.models.inputs import OWN, SCALINGS
from ahm_jax.models.unet import DIAGNOSIS, RECONSTRUCTION
from ahm_jax.models.vgg16 import VGG16
from ahm_jax.pipeline.stages import STAGES
from ahm_jax.runs import checkpoints
from ahm_jax.runs.trained import VARIABLES, Trained, load
from ahm_jax.runtime import durable, places
from ahm_jax.weights import files, inputs, names, norms, saving

WEIGHTS = 'weights'


class Format(NamedTuple):
  """A format that what was trained can be written in.

  Attributes:
    write: (trained, folder, platforms) -> what the model card says of the files, by heading.
    check: (platforms), before anything is loaded; raises a UserError where that cannot be written.
    runs: whether it holds a program, of a network that finds something in images.
  """

  write: Callable[[Trained, Path, Sequence[str]], dict[str, str]]
  check: Callable[[Sequence[str]], object] = lambda _: None
  runs: bool = False


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
  out, form = Path(out).expanduser(), FORMATS[kind]
  if out.exists() and not (out.is_dir() and not any(out.iterdir())):
    raise UserError(
      f'--out={out} is there already, and nothing is written over; choose a folder that is empty '
      'or not there'
    )
  if form is FORMATS['orbax']:
    paths.check_named(out, '--out', paths.SAVING)
  form.check(platforms)
  stages = [stage for stage in STAGES if stage.probabilities or not form.runs]
  trained = load(source, stages)
  with _appearing(out) as home:
    notes = form.write(trained, home, platforms)
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
    with places.kept(scratch):
      yield scratch
    durable.sync_tree(scratch)
    scratch.rename(out)  # Onto an empty folder too, and onto no other.
    durable.sync_folder(out.parent)
  except OSError as error:
    if out.exists() and scratch.exists() and any(out.iterdir()):
      raise UserError(
        f'--out={out} was filled meanwhile, and nothing is written over; choose another'
      ) from error
    raise
  finally:
    shutil.rmtree(scratch, ignore_errors=True)


def _orbax(trained: Trained, home: Path, _: Sequence[str]) -> dict[str, str]:
  checkpoints.write_variables(home / VARIABLES, trained.variables)
  written = dataclasses.replace(trained, variables=checkpoints.read_variables(home / VARIABLES))
  if written.digest != trained.digest:
    raise UserError(f'{home.parent} does not give back what was written; choose another --out')
  return {'files': f"`{VARIABLES}/`, for Orbax's StandardCheckpointer, float32"}


def _stablehlo(trained: Trained, home: Path, platforms: Sequence[str]) -> dict[str, str]:
  stablehlo.write(trained, home, platforms)
  return {
    'files': f'`{stablehlo.PROGRAM}`, of `jax.export`; `{stablehlo.WEIGHTS}`; '
    f'`{stablehlo.LOADER}`, which runs them',
    'takes': f'uint8 [b, h, w, {trained.channels}], any number of images of any one size; resizes '
    'them itself',
    'platforms': ', '.join(platforms),
  }


def _onnx(trained: Trained, home: Path, _: Sequence[str]) -> dict[str, str]:
  difference = onnx_model.write(trained, home)
  side, channels = trained.image_size, trained.channels
  return {
    'files': f'`{onnx_model.MODEL}`',
    'takes': f'`images`, uint8 [batch, {side}, {side}, {channels}], resized before as in training '
    '(Pillow, bicubic)',
    'gives': ', '.join(f'`{name}`' for name in onnx_model.output_names(trained)) + ', float32',
    'difference': f'at most {difference:.1e} between onnxruntime and JAX, on images of noise, at '
    'the export',
  }


def _weights(trained: Trained, home: Path, suffix: str) -> dict[str, str]:
  header = {'format': 'pt', 'stage': trained.stage.name, 'digest': trained.digest}
  origin, seen = 'milesial/Pytorch-UNet', OWN
  if isinstance(trained.network, VGG16):
    kind, seen = 'vgg16_bn' if trained.network.norm else 'vgg16', trained.network.input
    origin = f'torchvision.models.{kind}, with AdaptiveAvgPool2d(1)'
    header[inputs.MARK] = seen
  in_three = ', a grey one in each channel' if seen != OWN and trained.channels == 1 else ''
  files.write(home / f'{WEIGHTS}{suffix}', state_dict(trained), header)
  left_out = ', which has no diagnosis: those layers are left out' if trained.diagnoses else ''
  return {
    'files': f'`{WEIGHTS}{suffix}`, by the names and layouts of {origin}{left_out}',
    'takes': f'images scaled as {SCALINGS[seen].said}{in_three}',
  }


def state_dict(trained: Trained) -> dict[str, Any]:
  """The weights as a PyTorch state dict has them, with its counters."""
  network = trained.network
  if not isinstance(network, VGG16):
    arrays = saving.outward(_of_masks(trained.variables), names.unet())
  else:
    arrays = saving.outward(
      trained.variables, names.vgg16(network.width, network.norm, network.input)
    )
    arrays = norms.with_zero_biases(arrays) if network.norm else arrays
  return saving.with_counters(arrays, trained.step)


def _of_masks(variables: Any) -> Any:
  """A U-Net's variables without those of its other tasks."""
  others = DIAGNOSIS, RECONSTRUCTION
  params = {name: part for name, part in variables['params'].items() if name not in others}
  return {**variables, 'params': params}


FORMATS = {
  'orbax': Format(_orbax),
  'stablehlo': Format(_stablehlo, stablehlo.check, runs=True),
  'onnx': Format(_onnx, lambda _: onnx_model.check(), runs=True),
  'safetensors': Format(
    lambda trained, home, _: _weights(trained, home, '.safetensors'),
    lambda _: files.safetensors_numpy(),
  ),
  'npz': Format(lambda trained, home, _: _weights(trained, home, '.npz')),
}
