"""One self-contained web page of what a grid of runs showed.

What it says it reads off the intervals, good news or bad.
"""

import base64
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import jinja2
import numpy as np
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup
from PIL import Image

from ahm_jax.config import pretraining_of
from ahm_jax.evaluation.compare import (
  BASELINES,
  COLUMNS,
  baselines,
  best_rows,
  label_count,
  mask_classes,
  seed_counts,
)
from ahm_jax.evaluation.results import PER_IMAGE
from ahm_jax.report import charts, overlays, pictures
from ahm_jax.report import viewer as viewing
from ahm_jax.report.class_pictures import class_swatch
from ahm_jax.report.pictures import Example, write_masks_picture

__all__ = [
  'Example',
  'Shown',
  'conclusions',
  'render',
  'write_charts',
  'write_masks_picture',
  'write_report',
]

TEMPLATES = Path(__file__).parent / 'templates'
_TEMPLATE = 'report.html'
_GALLERY_BYTES = 3 * 2**20  # Of each group of examples.
_SPARE = 1024  # Bytes for numbers that get longer.
_MINUS = '\N{MINUS SIGN}'
_NAMES = {
  'scratch': 'training from scratch',
  'uniform': 'uniform masking',
  'ahm': 'adaptive hard masking',
}
_AGENT = (
  (
    'difficulty_rank_correlation',
    'Difficulty rank correlation',
    'Does it prefer the patches that are hard to repair? 1: it ranks them exactly by difficulty; 0: no relation; below 0: it '
    'prefers easy ones.',
  ),
  (
    'hardness_ratio',
    'Hardness ratio',
    'How much harder to repair is what it hides than what uniform masks of the same ratio hide? 1: no harder; 1.5: half as '
    'much error again.',
  ),
  (
    'border_lift',
    'Border lift',
    "How much likelier does it hide a patch that the lesion's border crosses than one without lesion? 1: no likelier. It has "
    'never seen a lesion mask.',
  ),
  (
    'mask_ratio',
    'Mask ratio',
    'The share of patches that it hides, which the configured budget fixes.',
  ),
)
# For each stage, the metrics of metrics.jsonl that are drawn, and their titles.
_CURVES = {
  'pretrain': (
    ('loss', 'Loss on hidden patches'),
    ('validation/uniform_loss', 'Held-out loss under uniform masks'),
    ('validation/difficulty_rank_correlation', 'Difficulty rank correlation'),
    ('validation/hardness_ratio', 'Hardness ratio'),
  ),
  'segment': (('loss', 'Training loss'), ('validation/dice', 'Validation Dice')),
  'classify': (
    ('loss', 'Training loss'),
    ('validation/balanced_accuracy', 'Validation balanced accuracy'),
  ),
}
_STAGES = {'pretrain': 'Pre-training', 'segment': 'Segmentation', 'classify': 'Classification'}


class Shown(NamedTuple):
  """What the report shows of held-out images."""

  examples: Sequence[Example] = ()  # As they come.
  failures: Sequence[Example] = ()  # Those of the lowest Dice, worst first.
  strategies: Image.Image | None = None  # Where each strategy hides, see `pictures.policies_sheet`.
  movement: Image.Image | None = None  # How the last one's policy moved in training.
  viewer: viewing.Viewer | None = (
    None  # Images to page through; those that the page has no room for are left out.
  )


def write_report(
  results: Mapping, curves: Mapping[str, Sequence[Mapping]], shown: Shown, path: Path
) -> None:
  """Writes report.html.

  Args:
    results: what results.json holds: 'dataset', 'split', 'config', 'cells', 'summary'
      (`compare.summarise_grid`), 'agent', and where it has them 'over_labels', rows like those of
      'summary'.
    curves: the lines of each run's metrics.jsonl, by its name 'STAGE/INIT/...', with 'labelsN' in
      it for runs of a label count.
    shown: held-out images.
    path: file to write.
  """
  summary = results['summary']
  rows = [*summary, *results.get('over_labels', ())]
  methods = [row['method'] for row in summary] + list(results['agent'])
  styles = charts.style_numbers(methods + [_run_parts(name)[1] for name in curves])
  values = dict(
    title=f'{results["dataset"]}: what masked pre-training gained',
    results=results,
    styles=styles,
    rows=rows,
    conclusions=conclusions([*rows[len(summary) :], *summary]),
    best=best_rows(rows),
    columns=_known_columns(summary),
    mask_classes=mask_classes(summary),
    baselines=baselines(summary),
    seeds=seed_counts(rows),
    images=max((row['images'] for row in summary), default=0),
    group_count=max((row['groups'] for row in summary), default=0),
    unit='groups' if any(row['groups'] < row['images'] for row in summary) else 'images',
    charts=[Markup(svg) for svg in summary_charts(summary, styles).values()],
    agent_metrics=_AGENT,
    curves=_curve_charts(curves, styles),
    sheets=[
      (title, note, pictures.data_uri(np.asarray(sheet)))
      for title, note, sheet in _sheets(shown)
      if sheet is not None
    ],
    groups=[
      ('Held-out images', '', _example_views(shown.examples)),
      ('Failures', 'The lowest Dice of the same run, worst first.', _example_views(shown.failures)),
    ],
    colour_bar=pictures.data_uri(pictures.colour_bar(120, 10)),
    legend=[
      (name, pictures.data_uri(class_swatch(k))) for k, name in enumerate(mask_classes(summary), 1)
    ],
    cells=(cells := [_flat(cell) for cell in results['cells']]),
    cell_columns=list(dict.fromkeys(key for cell in cells for key in cell)),
    config=json.dumps(results['config'], indent=2, ensure_ascii=False),
  )
  page = render(_TEMPLATE, **values, **_viewer_values(None))
  if shown.viewer and shown.viewer.entries:
    room = viewing.PAGE_BYTES - len(
      render(_TEMPLATE, **values, **_viewer_values(replace(shown.viewer, entries=()))).encode()
    )
    fitted = replace(shown.viewer, entries=viewing.fitting(shown.viewer.entries, room - _SPARE))
    page = render(_TEMPLATE, **values, **_viewer_values(fitted)) if fitted.entries else page
  Path(path).write_text(page, encoding='utf-8')


def write_charts(summary: Sequence[Mapping], folder: Path) -> None:
  """Writes dice.svg and a vs_BASELINE.svg for each baseline into a folder: the report's charts,
  for a paper.
  """
  styles = charts.style_numbers([row['method'] for row in summary])
  for name, svg in summary_charts(summary, styles).items():
    (Path(folder) / f'{name}.svg').write_text(charts.as_file(svg), encoding='utf-8')


def _viewer_values(viewer: viewing.Viewer | None) -> dict:
  if viewer is None:
    return {'viewer': None}
  script = (TEMPLATES / 'viewer.js').read_text(encoding='utf-8')
  digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
  return {
    'viewer': viewer,
    'viewer_data': htmlsafe_json_dumps({'runs': viewer.runs, 'images': viewer.entries}),
    'viewer_script': Markup(script),
    'allowed_script': f"'sha256-{digest}'",
    'layers': viewing.LAYERS,
    'start': viewing.START,
  }


def _flat(cell: Mapping) -> dict:
  """The scores of a cell, with those of each class as columns of their own.

  Those of each image are left out.
  """
  flat = {}
  for key, value in cell.items():
    if key == PER_IMAGE:
      continue
    flat |= (
      {f'{key} {name}': single for name, single in value.items()}
      if isinstance(value, Mapping)
      else {key: value}
    )
  return flat


def charts_page(title: str, note: str, svgs: Sequence[str]) -> str:
  """A page of charts in the report's style."""
  return render('charts.html', title=title, note=note, charts=[Markup(svg) for svg in svgs])


def render(template: str, **values) -> str:
  """A page of a template of this folder, in the report's style.

  All values but Markup are escaped.
  """
  loader = jinja2.FileSystemLoader(TEMPLATES)
  environment = jinja2.Environment(
    loader=loader,
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
  )
  environment.filters |= {
    'number': _number,
    'signed': _signed,
    'interval': _interval,
    'labels': label_count,
  }
  style = {
    'palette': charts.PALETTE,
    'truth_colour': '#{:02x}{:02x}{:02x}'.format(*pictures.TRUTH_COLOUR),
    'prediction_colour': '#{:02x}{:02x}{:02x}'.format(*pictures.PREDICTION_COLOUR),
    'confused_colour': '#{:02x}{:02x}{:02x}'.format(*overlays.CONFUSED_COLOUR),
    'allowed_script': "'none'",
  }
  return environment.get_template(template).render(**style | values)


def conclusions(summary: Sequence[Mapping]) -> list[str]:
  """What the intervals allow to say, a sentence for each number of labels (or mean over several)
  and baseline.

  It speaks of 'ahm', or where the grid lacks it of the first method that is no baseline, or else of
  'uniform'. An interval that holds 0 shows no difference, whatever the estimate.
  """
  methods = [
    method for method in dict.fromkeys(row['method'] for row in summary) if pretraining_of(method)
  ]
  candidates = [
    method
    for method in ('ahm', *(method for method in methods if method not in BASELINES), 'uniform')
    if method in methods
  ]
  if not candidates:
    return ['This grid has no pre-trained network to compare.']
  sentences = [
    _conclusion(row, baseline)
    for row in summary
    for baseline in BASELINES
    if row['method'] == candidates[0] and row[f'vs_{baseline}'] is not None
  ]
  return sentences or [f'This grid has nothing to compare {_named(candidates[0])} with.']


def _conclusion(row: Mapping, baseline: str) -> str:
  gain, interval = row[f'vs_{baseline}'], row[f'vs_{baseline}_ci95']
  labels = row['labels']
  over = (
    f'On average over {" and ".join(map(str, labels))}'
    if isinstance(labels, tuple)
    else f'With {label_count(labels)}'
  )
  start = f'{over} labelled images, '
  sides = f'{_named(row["method"])} and {_named(baseline)}'
  if interval is None:
    return f'{start}the difference between {sides} was {_points(gain)} points of Dice; too few images for an interval.'
  low, high = interval
  bounds = f'95 % interval {_points(low)} to {_points(high)}'
  if low <= 0 <= high:
    text = (
      f'{start}no difference was shown between {sides}: {_points(gain)} points of Dice ({bounds}).'
    )
  else:
    verb = 'gained' if gain > 0 else 'lost'
    text = f'{start}{_named(row["method"])} {verb} {abs(100 * gain):.1f} points of Dice against {_named(baseline)} ({bounds}).'
  return text + (' One seed: runs may differ by more than this.' if row['seeds'] == 1 else '')


def _points(difference: float) -> str:
  return f'{100 * difference:+.1f}'.replace('-', _MINUS)


def _named(method: str) -> str:
  return _NAMES.get(method, method)


def _known_columns(summary: Sequence[Mapping]) -> list[tuple[str, str, int]]:
  known = [column for column in COLUMNS if any(row[column[0]] is not None for row in summary)]
  return [(name, title[0].upper() + title[1:], digits) for name, title, digits in known]


def summary_charts(summary: Sequence[Mapping], styles: Mapping[str, int]) -> dict[str, str]:
  """'dice' and 'vs_BASELINE' charts, as SVG, of what there is in a summary.

  See `charts.style_numbers`.
  """
  if not any(row['dice'] is not None for row in summary):
    return {}
  gains = {
    f'vs_{baseline}': charts.gain_chart(summary, styles, baseline)
    for baseline in baselines(summary)
  }
  return {'dice': charts.dice_chart(summary, styles)} | {
    name: svg for name, svg in gains.items() if svg
  }


def _curve_charts(
  curves: Mapping[str, Sequence[Mapping]], styles: Mapping[str, int]
) -> dict[str, list[Markup]]:
  """The charts of each stage and number of labels, by heading.

  Runs of one heading share its charts.
  """
  groups = {}
  for name, lines in curves.items():
    stage, method, labels = _run_parts(name)
    groups.setdefault((stage, labels), []).append((method, lines))
  order = sorted(groups, key=lambda key: (list(_STAGES).index(key[0]), key[1] == 0, key[1] or 0))
  headings = {}
  for stage, labels in order:
    heading = _STAGES[stage] + ('' if labels is None else f', {label_count(labels)} labels')
    for name, title in _CURVES[stage]:
      drawn = [(method, *_series(lines, name)) for method, lines in groups[stage, labels]]
      drawn = [curve for curve in drawn if curve[1]]
      if drawn:
        headings.setdefault(heading, []).append(
          Markup(charts.curve_chart(drawn, styles, title, heading))
        )
  return headings


def _run_parts(name: str) -> tuple[str, str, int | None]:
  """Stage, method and number of labels (None if the name has none) of a run's name."""
  parts = re.split(r'[/\s]+', name)
  stage = parts[0] if parts[0] in _STAGES else 'segment'
  labels = re.search(r'labels(\d+)', name)
  return stage, parts[1] if len(parts) > 1 else name, int(labels[1]) if labels else None


def _series(lines: Sequence[Mapping], name: str) -> tuple[list[float], list[float]]:
  """Steps and finite values of one metric.

  Lines without it, or with null for what was not finite, are passed over.
  """
  points = [
    (line['step'], line[name])
    for line in lines
    if line.get(name) is not None and math.isfinite(line[name])
  ]
  return [step for step, _ in points], [value for _, value in points]


def _sheets(shown: Shown) -> list[tuple[str, str, Image.Image | None]]:
  return [
    (
      'Where each strategy hides',
      'Chance of being hidden after pre-training, on the same held-out images.',
      shown.strategies,
    ),
    (
      'How the policy moved',
      'Chance of being hidden, on validation images, in the course of one pre-training.',
      shown.movement,
    ),
  ]


def _example_views(examples: Sequence[Example]) -> list[dict]:
  views = (
    {
      'id': example.id,
      'dice': example.dice,
      'dice_by_class': example.dice_by_class,
      'hidden_share': float(example.hidden.mean()),
      'pictures': {
        name: pictures.data_uri(picture) for name, picture in pictures.panels(example).items()
      },
    }
    for example in examples
  )
  return viewing.fitting(views, _GALLERY_BYTES)


def _number(value, digits: int = 3) -> str:
  if isinstance(value, str) or value is None:
    return value or '-'
  if isinstance(value, int):
    return str(value)
  return f'{value:.{digits}f}' if math.isfinite(value) else '-'


def _signed(value: float | None) -> str:
  return '-' if value is None else f'{value:+.3f}'.replace('-', _MINUS)


def _interval(ends: Sequence[float] | None, sign: str = '') -> str:
  return '' if ends is None else f'{ends[0]:{sign}.3f} to {ends[1]:{sign}.3f}'.replace('-', _MINUS)
