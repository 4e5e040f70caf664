"""Which images the VGG16 of a file was trained on, as far as the file says it."""

from collections.abc import Mapping
from pathlib import Path

from ahm_jax.errors import UserError
from ahm_jax.models.inputs import CAFFE, OWN, SCALINGS, TORCHVISION
from ahm_jax.models.vgg16 import STAGES
from ahm_jax.runtime import schema
from ahm_jax.runtime.npz import Stored
from ahm_jax.weights.names import FIRST_KERAS, FIRST_TORCHVISION

MARK = 'vgg_input'  # In the metadata of our exports: one of SCALINGS.
_OF_OLD = {'stage', 'digest'}  # In those of our exports that have no such mark.
_WHOSE = {TORCHVISION: "by torchvision's names", CAFFE: "by Keras's names"}


def check(
  path: Path, weights: Mapping[str, Stored], texts: Mapping[str, str], own: str
) -> dict[str, str]:
  """Makes sure that a network sees of images what a VGG16 in a file was trained on.

  A mark of ours is believed. Else the config is, and where that says nothing the names are: those
  of torchvision and Keras stand for what their weights were trained on, but for a classifier behind
  a mean over positions, which we have exported without a mark, and torchvision has not.

  Args:
    weights: by tidy foreign names.
    texts: metadata of the file.
    own: what the network sees, one of SCALINGS.

  Returns:
    For a report: 'input', what that is, and 'input_known_by'.

  Raises:
    UserError: it sees something else.
  """
  mark = texts.get(MARK, OWN if texts.keys() >= _OF_OLD else None)
  if mark is not None and mark not in SCALINGS:
    raise UserError(
      f'{path} says that its VGG16 sees {schema.shown(mark)}, which is none of '
      f'{", ".join(filter(None, SCALINGS))}; export it again'
    )
  told = mark if mark is not None else own or _by_name(weights)
  if told != own:
    whose = 'that we exported' if mark is not None else _WHOSE[told]
    doubt = ', or caffe where it comes from Caffe' if mark is None and told != CAFFE else ''
    raise UserError(
      f'{path} is a VGG16 {whose}, trained on images scaled as {SCALINGS[told].said}, and '
      f'nothing is loaded; give --config.model.vgg_input={told or repr(told)}{doubt}'
    )
  known_by = 'the file' if mark is not None else 'config.model.vgg_input' if own else 'its shape'
  return {'input': SCALINGS[own].said, 'input_known_by': known_by}


def _by_name(weights: Mapping[str, Stored]) -> str:
  if FIRST_KERAS in weights:
    return CAFFE
  first, dense = weights.get(FIRST_TORCHVISION), weights.get('classifier.0.weight')
  pooled = (
    first is not None
    and dense is not None
    and dense.shape[1:] == tuple(STAGES[-1][0] * width for width in first.shape[:1])
  )
  return OWN if pooled else TORCHVISION
