"""What a grid shows, in sentences: good news or bad, as far as the intervals allow to say it."""

from collections.abc import Sequence

from ahm_jax.config import pretraining_of
from ahm_jax.evaluation.compare import Row, compared_with
from ahm_jax.evaluation.tables import label_count
from ahm_jax.report.render import MINUS

_SMALLEST_GAP = 0.01  # Of Dice, of which a share says something.
_NAMES = {
  'scratch': 'training from scratch',
  'uniform': 'uniform masking',
  'ahm': 'adaptive hard masking',
}


def conclusions(summary: Sequence[Row]) -> list[str]:
  """A sentence for each number of labels (or mean over several) and baseline.

  It speaks of the last method, what a grid leads up to; where that is a baseline, of 'ahm', or
  where the grid lacks it of the first method that is no baseline, or else of 'uniform'. An interval
  that holds 0 shows no difference, whatever the estimate.
  """
  baselines = compared_with(summary)
  methods = list(dict.fromkeys(row['method'] for row in summary))
  pretrained = [method for method in methods if pretraining_of(method)]
  others = [method for method in pretrained if method not in baselines]
  last = [method for method in methods[-1:] if method not in baselines]
  subject = next((name for name in (*last, 'ahm', *others, 'uniform') if name in methods), None)
  if not subject:
    return ['This grid has no pre-trained network to compare.']
  sentences = [
    _conclusion(row, baseline) + (_share_of_gap(row, summary) if baseline == 'scratch' else '')
    for row in summary
    for baseline in baselines
    if row['method'] == subject and row[f'vs_{baseline}'] is not None
  ]
  return sentences or [f'This grid has nothing to compare {_named(subject)} with.']


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


def _share_of_gap(row: Row, summary: Sequence[Row]) -> str:
  """How much of what all labels would gain this is; '' where that is unknown or small."""
  scratch = {other['labels']: other['dice'] for other in summary if other['method'] == 'scratch'}
  if row['labels'] == 0 or scratch.get(0) is None:
    return ''
  gap = scratch[0] - scratch[row['labels']]
  if gap < _SMALLEST_GAP:
    return ''
  share = (row['dice'] - scratch[row['labels']]) / gap
  return f' All labels gain {_points(gap)[1:]} points from scratch; this is {share:.0%} of it.'


def _start(row: Row) -> str:
  labels = row['labels']
  if isinstance(labels, tuple):
    return f'On average over {" and ".join(map(str, labels))} labelled images,'
  return f'With {label_count(labels)} labelled images,'


def _points(difference: float) -> str:
  return f'{100 * difference:+.1f}'.replace('-', MINUS)


def _named(method: str) -> str:
  return _NAMES.get(method, method)
