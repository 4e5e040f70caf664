"""What a grid shows, in sentences: good news or bad, as far as the intervals allow to say it."""

from collections.abc import Sequence

from ahm_jax.config import pretraining_of
from ahm_jax.evaluation.compare import BASELINES, Row
from ahm_jax.evaluation.tables import label_count
from ahm_jax.report.render import MINUS

_NAMES = {
  'scratch': 'training from scratch',
  'uniform': 'uniform masking',
  'ahm': 'adaptive hard masking',
}


def conclusions(summary: Sequence[Row]) -> list[str]:
  """A sentence for each number of labels (or mean over several) and baseline.

  It speaks of 'ahm', or where the grid lacks it of the first method that is no baseline, or else of
  'uniform'; and of the last method, where that is no baseline: what a grid leads up to. An interval
  that holds 0 shows no difference, whatever the estimate.
  """
  methods = list(dict.fromkeys(row['method'] for row in summary))
  pretrained = [method for method in methods if pretraining_of(method)]
  others = [method for method in pretrained if method not in BASELINES]
  first = next((name for name in ('ahm', *others, 'uniform') if name in pretrained), None)
  last = methods[-1] if methods and methods[-1] not in BASELINES else None
  subjects = dict.fromkeys(subject for subject in (first, last) if subject)
  if not subjects:
    return ['This grid has no pre-trained network to compare.']
  sentences = [
    _conclusion(row, baseline)
    for subject in subjects
    for row in summary
    for baseline in BASELINES
    if row['method'] == subject and row[f'vs_{baseline}'] is not None
  ]
  return sentences or [f'This grid has nothing to compare {_named(next(iter(subjects)))} with.']


def _conclusion(row: Row, baseline: str) -> str:
  gain, interval = row[f'vs_{baseline}'], row[f'vs_{baseline}_ci95']
  subject, other, start = _named(row['method']), _named(baseline), _start(row)
  if interval is None:
    return (
      f'{start} the difference between {subject} and {other} was {_points(gain)} points of Dice; '
      'too few images for an interval.'
    )
  low, high = interval
  bounds = f'(95 % interval {_points(low)} to {_points(high)})'
  if low <= 0 <= high:
    text = (
      f'{start} no difference was shown between {subject} and {other}: '
      f'{_points(gain)} points of Dice {bounds}.'
    )
  else:
    verb = 'gained' if gain > 0 else 'lost'
    text = (
      f'{start} {subject} {verb} {abs(100 * gain):.1f} points of Dice against {other} {bounds}.'
    )
  return text + (' One seed: runs may differ by more than this.' if row['seeds'] == 1 else '')


def _start(row: Row) -> str:
  labels = row['labels']
  if isinstance(labels, tuple):
    return f'On average over {" and ".join(map(str, labels))} labelled images,'
  return f'With {label_count(labels)} labelled images,'


def _points(difference: float) -> str:
  return f'{100 * difference:+.1f}'.replace('-', MINUS)


def _named(method: str) -> str:
  return _NAMES.get(method, method)
