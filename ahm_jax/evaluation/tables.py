"""Results as text: how scores are written, and the table of a grid for a terminal."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from ahm_jax.config import is_tuned
from ahm_jax.evaluation.compare import (
  Labels,
  Row,
  baselines,
  best_rows,
  mask_classes,
  seed_counts,
)
from ahm_jax.evaluation.intervals import Interval

# Score, title, digits.
COLUMNS = (
  ('iou', 'IoU', 3),
  ('hd95', 'HD95, px', 1),
  ('accuracy', 'accuracy', 3),
  ('balanced_accuracy', 'balanced accuracy', 3),
  ('auc', 'AUC', 3),
  ('lesion_dice', 'Dice, lesions only', 3),
  ('group_dice', 'Dice, whole groups', 3),
  ('false_alarm_rate', 'false alarms', 3),
)
_GAIN = 'balanced_accuracy_vs_scratch'
Column = tuple[str, list[str]]  # A title, and a text for each row; '-' is what is not known.


NO_VARIANTS: Mapping[str, Any] = MappingProxyType({})


def label_count(labels: Labels) -> str:
  """How a number of labels is written; 0 stands for all there are."""
  if isinstance(labels, tuple):
    return 'mean of ' + ', '.join(map(str, labels))
  return 'all' if labels == 0 else str(labels)


def interval_text(value: float | None, interval: Interval, sign: str = '') -> str:
  """A score with its interval, as tables have it; with `sign` '+' a difference."""
  if value is None:
    return '-'
  ends = '' if interval is None else f' [{interval[0]:{sign}.3f}, {interval[1]:{sign}.3f}]'
  return f'{value:{sign}.3f}{ends}'


def aligned(rows: Sequence[Sequence[str]], left: int = 0) -> list[str]:
  """Lines of a table: columns as wide as their widest cell, to the right but for column `left`."""
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  return [
    '  '.join(
      cell.ljust(width) if k == left else cell.rjust(width)
      for k, (cell, width) in enumerate(zip(row, widths, strict=True))
    )
    for row in rows
  ]


def table(
  summary: Sequence[Row], over: Sequence[Row] = (), variants: Mapping[str, Any] = NO_VARIANTS
) -> str:
  """What `compare.summarise_grid` found, for a terminal: Dice and its differences, Dice of each
  class, the means of the other scores.

  Rows of means over label counts, `over`, come last. One line a method; the highest Dice of each
  label count is starred, see `best_rows`. Numbers of seeds stand there where they are unequal.
  Scores that no cell has are left out. `variants` are those of the grid.
  """
  rows = [*summary, *over]

  def scores(name: str, sign: str = '') -> list[str]:
    return [interval_text(row.get(name), row.get(f'{name}_ci95'), sign) for row in rows]

  differences = [(f'vs {name}', scores(f'vs_{name}', '+')) for name in baselines(rows)]
  others = [
    (title, [_number(row.get(name), digits) for row in rows]) for name, title, digits in COLUMNS
  ]
  blocks = [
    [
      *_block(rows, [_seeds(rows), ('Dice', scores('dice')), *differences]),
      _footnote(rows, variants),
    ],
    _block(rows, _class_columns(rows)),
    [*_block(rows, [*others, ('balanced accuracy vs scratch', scores(_GAIN, '+'))])],
  ]
  if any(row.get(f'{_GAIN}_ci95') for row in rows):
    blocks[-1].append('95 % interval over seeds.')
  return '\n\n'.join('\n'.join(block) for block in blocks if block)


def _seeds(rows: Sequence[Row]) -> Column:
  fewest, most = seed_counts(rows)
  return 'seeds', ['-' if fewest == most else str(row['seeds']) for row in rows]


def _class_columns(rows: Sequence[Row]) -> list[Column]:
  return [
    (
      f'Dice {name}',
      [interval_text(row['dice_by_class'][name], row['dice_by_class_ci95'][name]) for row in rows],
    )
    for name in mask_classes(rows)
  ]


def _number(value: float | None, digits: int) -> str:
  return '-' if value is None else f'{value:.{digits}f}'


def _block(rows: Sequence[Row], columns: Sequence[Column]) -> list[str]:
  """Lines of one table; columns of which nothing is known are left out, and so is a table without
  any other.
  """
  known = [(title, cells) for title, cells in columns if any(cell != '-' for cell in cells)]
  if not known:
    return []
  best = best_rows(rows)
  starred = [row['method'] + ' *' * ((row['method'], row['labels']) in best) for row in rows]
  labels = [label_count(row['labels']) for row in rows]
  full = [('labels', labels), ('method', starred), *known]
  header, *lines = aligned(list(zip(*([title, *cells] for title, cells in full), strict=True)), 1)
  rule = '-' * len(header)
  text = [header]
  for i, line in enumerate(lines):
    if i == 0 or rows[i]['labels'] != rows[i - 1]['labels']:
      text.append(rule)
    text.append(line)
  return [line.rstrip() for line in [*text, rule]]


def _footnote(rows: Sequence[Row], variants: Mapping[str, Any]) -> str:
  fewest, most = seed_counts(rows)
  images, groups = rows[0]['images'], rows[0]['groups']
  unit = f'{groups} groups of images' if groups < images else 'images'
  covered = f'cover {unit} only (one seed)' if most == 1 else f'cover seeds and {unit}'
  if fewest == 1 < most:
    covered += f' ({unit} only where there is one seed)'
  note = '* highest. ' if best_rows(rows) else ''
  note += f'Mean over images, then over seeds, with 95 % intervals that {covered}.'
  if fewest < most:
    note += (
      '\nWhere methods have unequal numbers of seeds, none is starred: compare the differences, '
      'which are over the seeds that both have.'
    )
  if any(row.get('false_alarm_rate') is not None for row in rows):
    note += (
      '\nDifferences leave out images without a Dice on one side: no lesion is there, and none '
      'was found.'
    )
  untuned = [name for name in baselines(rows) if not is_tuned(name, variants)]
  if untuned and any(is_tuned(row['method'], variants) for row in rows):
    verb = 'is' if len(untuned) == 1 else 'are'
    note += f'\n{", ".join(untuned)} {verb} fine-tuned with the settings of the config itself.'
  return note
