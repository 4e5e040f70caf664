"""What is written for one image: its files, and its row of the table."""

import errno
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ahm_jax.evaluation.masks import at_own_size
from ahm_jax.predict import measures
from ahm_jax.predict.findings import concluded, overlay
from ahm_jax.predict.listing import as_cell
from ahm_jax.predict.options import Predictor
from ahm_jax.predict.output import OK, Output
from ahm_jax.predict.reading import Problem, Slice

COMPRESSION = 3  # Of PNG: half the time of the usual 6, for files that are a third larger.

Row = dict[str, Any]  # Of the table, by column.


def columns(predictor: Predictor) -> list[str]:
  """Of the table, in order."""
  about = ['image', 'slice', 'mask', 'status', 'width', 'height', 'pages']
  if predictor.segmenter.config.data.modality_dropout:
    about.append('lacking')
  measured = measures.columns(predictor.segmenter.mask_classes)
  names = predictor.class_names
  if not names:
    return [*about, *measured]
  return [*about, *measured, 'class_probability', *(f'class_probability_{name}' for name in names)]


class Written(NamedTuple):
  """What was written of a slice, or of a problem."""

  row: Row
  files: dict[str, int]  # Size of each by its path below the folder.
  last: bool  # Of its image.


def write(found: Slice | Problem, predictor: Predictor, output: Output) -> Written:
  """Writes the files of a slice in which all was found; of a problem, or of a name that is too long
  for its files, there is only the row that says so.
  """
  image = as_cell(found.image)
  if isinstance(found, Problem):
    return Written({'image': image, 'status': found.text}, {}, found.last)
  files: dict[str, int] = {}

  def put(place: str, write_file: Callable[[Path], object]) -> None:
    files[place] = output.put(place, write_file)

  try:
    row = _write_slice(found, predictor, put)
  except MemoryError:
    row = {'image': image, 'status': f'the mask of {image} does not fit into memory; free some'}
  except OSError as error:
    if error.errno != errno.ENAMETOOLONG:
      raise
    row = {'image': image, 'status': f'{image} has too long a name for its mask; rename it'}
  return Written(row, files, found.last)


def _write_slice(
  item: Slice, predictor: Predictor, put: Callable[[str, Callable[[Path], object]], None]
) -> Row:
  probabilities, mask, measured = concluded(item, predictor)
  place = f'masks/{item.name}.png'
  row = {
    'image': as_cell(item.image),
    'slice': item.number,
    'mask': place,
    'status': OK,
    'width': item.size[1],
    'height': item.size[0],
    'pages': item.pages,
    **({'lacking': ' '.join(item.lacking)} if item.lacking else {}),
    **measured,
  }
  put(place, functools.partial(write_mask, mask=mask))
  if item.volume and item.volume.add(int(item.number or 0), mask):
    put(item.volume.place, item.volume.write)
  if predictor.options.probabilities:
    for folder, plane in planes(probabilities, predictor.segmenter.mask_classes):
      write_plane = functools.partial(write_probabilities, plane=plane, size=item.size)
      put(f'probabilities/{folder}{item.name}.png', write_plane)
  if item.shown is not None:
    write_picture = functools.partial(write_overlay, image=item.shown, mask=mask)
    put(f'overlays/{item.name}.jpg', write_picture)
  return row


def write_mask(path: Path, mask: np.ndarray) -> None:
  """Writes a PNG of 8 bits: of bool [h, w] 0 and 255, of class indices uint8 [h, w] these."""
  values = mask.astype(np.uint8) * np.uint8(255) if mask.dtype == bool else mask
  Image.fromarray(values).save(path, 'PNG', compress_level=COMPRESSION)


def planes(
  probabilities: np.ndarray, mask_classes: Sequence[str]
) -> Iterator[tuple[str, np.ndarray]]:
  """Of probabilities [S, S], or with K classes [S, S, K + 1], each class's, with the folder it goes
  to ('' or 'NAME/').
  """
  if probabilities.ndim == 2:
    yield '', probabilities
  for k, name in enumerate(mask_classes, 1):
    yield f'{name}/', np.ascontiguousarray(probabilities[..., k])


def write_probabilities(path: Path, plane: np.ndarray, size: tuple[int, int]) -> None:
  """Writes a PNG of 16 bits and `size` (h, w), in which 65535 stands for a probability of 1."""
  own = at_own_size(plane, size)
  picture = Image.fromarray((np.clip(own, 0, 1) * 65535 + 0.5).astype(np.uint16))
  picture.save(path, 'PNG', compress_level=COMPRESSION)


def write_overlay(path: Path, image: np.ndarray, mask: np.ndarray) -> None:
  """Writes `overlay` as a JPEG."""
  Image.fromarray(overlay(image, mask)).save(path, 'JPEG', quality=90)
