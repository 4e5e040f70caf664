"""One row an image: its scores by a trained run, its group, and per_image.csv, which keeps them."""

import csv
import io
import math
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ahm_jax.config.ranges import LARGEST
from ahm_jax.data.dataset import Split
from ahm_jax.evaluation.confidence import confidence
from ahm_jax.evaluation.masks import predicted_mask
from ahm_jax.evaluation.metrics import COUNTS, OVERLAP_SCORES, ROUNDING, mask_scores
from ahm_jax.runtime import durable, json_files

Row = dict[str, Any]
_SAID = 80  # Characters of what is wrong.
_TEXTS = ('image', 'label', 'predicted')
# What a text begins with that a spreadsheet may take for a formula.
_FORMULA = ('=', '+', '-', '@', '\t', '\r', "'")


def segmentation_rows(
  probabilities: np.ndarray, split: Split, threshold: float, mask_classes: Sequence[str] = ()
) -> list[Row]:
  """One `mask_row` for each image that has a mask, and the network's 'confidence' in what it found.

  Args:
    probabilities: float32 [N, S, S] of the split's N images; with K classes [N, S, S, K + 1].
    threshold: see `predicted_mask`.
    mask_classes: names of the K classes; none: lesion and background.
  """
  rows = []
  for i in np.flatnonzero(split.has_mask).tolist():
    truth = split.full_mask(i)
    prediction = predicted_mask(probabilities[i], truth.shape, threshold)
    row = mask_row(split, i, prediction, truth, mask_classes)
    rows.append(row | {'confidence': confidence(probabilities[i], prediction)})
  return rows


def mask_row(
  split: Split, i: int, prediction: np.ndarray, truth: np.ndarray, mask_classes: Sequence[str] = ()
) -> Row:
  """`mask_scores` of image i of a split, with its name under 'image'."""
  return {'image': split.ids[i], **mask_scores(prediction, truth, mask_classes, split.spacing[i])}


def classification_rows(
  probabilities: np.ndarray, split: Split, class_names: Sequence[str]
) -> list[Row]:
  """One row an image with a label: its name, class, predicted class, and the probability of each
  class.

  Args:
    probabilities: [N, C] of the split's N images.
  """
  rows = []
  for i in np.flatnonzero(split.labels >= 0).tolist():
    row = {
      'image': split.ids[i],
      'label': class_names[split.labels[i]],
      'predicted': class_names[probabilities[i].argmax()],
    }
    for name, value in zip(class_names, probabilities[i], strict=True):
      row[f'probability_{name}'] = float(value)
    rows.append(row)
  return rows


def group_numbers(split: Split) -> dict[str, int]:
  """The number of each image's group, by the image's name, from 0 on.

  The group's own name may be a patient's.
  """
  numbers: dict[str, int] = {}
  return {
    name: numbers.setdefault(group, len(numbers))
    for name, group in zip(split.ids, split.groups, strict=True)
  }


def with_groups(rows: Sequence[Row], split: Split) -> list[Row]:
  """Rows of images of `split`, each with the number of its group under 'group'."""
  groups = group_numbers(split)
  return [{'image': row['image'], 'group': groups[row['image']], **row} for row in rows]


def write(path: Path, rows: Sequence[Row]) -> None:
  """Writes one line an image as CSV; columns are the rows' keys in the order in which they first
  occur.

  Keys: 'image' (its name), 'group' (see `group_numbers`), those of `metrics.segmentation_scores` or
  `metrics.class_scores`, and where there is a classifier 'label' and 'predicted' (class names, ''
  if unknown) and one 'probability_CLASS' for each class. Texts that begin like a formula get an
  apostrophe before them, so that a spreadsheet does not run them (OWASP, CSV injection); `read`
  takes it off.
  """
  columns = list(dict.fromkeys(key for row in rows for key in row))
  with durable.replacing(path) as scratch, scratch.open('w', newline='', encoding='utf-8') as file:
    writer = csv.DictWriter(file, columns, restval='')
    writer.writeheader()
    writer.writerows({key: spreadsheet_safe(value) for key, value in row.items()} for row in rows)


def read(path: Path, columns: Collection[str] = ()) -> list[Row]:
  """Reads what `write` wrote: names as str, groups and counts as int, all else as float, nan for an
  empty field.

  Args:
    columns: that it must have besides 'image'.

  Raises:
    json_files.Damaged: it is not there, or does not hold what was written.
    UserError: it cannot be read.
  """
  try:
    data = json_files.read_bytes(path)
    if data is None:
      raise ValueError('it is missing')
    return _rows(data.decode(), {'image', *columns})
  except (ValueError, csv.Error) as error:
    said = ' '.join(str(error).split())[:_SAID]
    raise json_files.Damaged(f'{path} is damaged: {said}; score the run again') from error


def _rows(text: str, columns: set[str]) -> list[Row]:
  rows = []
  for number, row in enumerate(csv.DictReader(io.StringIO(text, newline=''), strict=True), 1):
    if None in row or None in row.values() or columns - row.keys():
      raise ValueError(f'row {number} has not the cells that it is to have')
    rows.append({key: _parse(key, field) for key, field in row.items()})
  if not rows or len({row['image'] for row in rows}) < len(rows) or '\0' in text:
    raise ValueError('it holds no row, an image twice, or NUL characters')
  return rows


def spreadsheet_safe(value: Any) -> Any:
  """A cell of a CSV; a text that begins like a formula with an apostrophe before it."""
  return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _parse(key: str, text: str) -> str | int | float:
  if key in _TEXTS:
    return text.removeprefix("'")
  kind = key.partition('_')[0]
  if kind in (*COUNTS, 'group') and text:
    return _within(key, int(text), LARGEST)
  most = 1 + ROUNDING if kind in (*OVERLAP_SCORES, 'probability') else sys.float_info.max
  return _within(key, float(text), most) if text else math.nan


def _within(key: str, value: Any, most: float) -> Any:
  if not (0 <= value <= most or math.isnan(value)):
    raise ValueError(f'{key[:_SAID]} is {value}')
  return value
