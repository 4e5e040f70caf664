"""The report: one self-contained web page of what a grid of runs showed."""

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup
from PIL import Image

from ahm_jax.evaluation.compare import Row, baselines, best_rows, mask_classes, seed_counts
from ahm_jax.evaluation.results import PER_IMAGE
from ahm_jax.evaluation.tables import COLUMNS
from ahm_jax.report import charts, failures, pictures, pseudo_masks
from ahm_jax.report import viewer as viewing
from ahm_jax.report.charts import Curves
from ahm_jax.report.class_pictures import class_swatch
from ahm_jax.report.conclusions import conclusions
from ahm_jax.report.failures import Failures
from ahm_jax.report.pictures import Example
from ahm_jax.report.pseudo_masks import Course
from ahm_jax.report.render import TEMPLATES, chart, render
from ahm_jax.runtime import durable

PAGE_BYTES = 10 * 2**20  # What a report has at most.
_GALLERY_BYTES = 3 * 2**20  # Of each group of examples.
_STRIP_BYTES = 3 * 2**19  # Of the pseudo-masks, and of the failures of other methods.
_SPARE = 1024  # Bytes for numbers that get longer.
# Key, title and meaning of the agents' learning metrics.
_AGENT = (
  (
    'difficulty_rank_correlation',
    'Difficulty rank correlation',
    'Does it prefer the patches that are hard to reconstruct? 1: it ranks them exactly by '
    'difficulty; 0: no relation; below 0: it prefers easy ones.',
  ),
  (
    'hardness_ratio',
    'Hardness ratio',
    'How much harder to reconstruct are the patches that it masks than those of uniform masks of '
    'the same ratio? 1: no harder; 1.5: half as much error again.',
  ),
  (
    'border_lift',
    'Border lift',
    "How much more likely is it to mask a patch that the lesion's border crosses than one without "
    'lesion? 1: no more likely. It has never seen a lesion mask.',
  ),
  (
    'mask_ratio',
    'Mask ratio',
    'The share of patches that it masks, which the configured budget fixes.',
  ),
)


class Shown(NamedTuple):
  """What the report shows of held-out images."""

  examples: Sequence[Example] = ()  # As they come.
  failures: Sequence[Example] = ()  # Those of the lowest Dice, worst first.
  # Where each strategy masks, see `pictures.policies_sheet`.
  strategies: Image.Image | None = None
  movement: Image.Image | None = None  # How the last one's policy moved in training.
  # Images without their masks in the course of trainings.
  courses: Sequence[Course] = ()
  others: Sequence[Failures] = ()  # Of runs of other methods than those above.
  # Images to page through; those that the page has no room for are left out.
  viewer: viewing.Viewer | None = None
  colours: str = ''  # What pictures show of images with modalities, in sentences.


def write_report(
  results: Mapping[str, Any], curves: Sequence[Curves], shown: Shown, path: Path
) -> None:
  """Writes report.html.

  Args:
    results: what results.json holds: 'dataset', 'split', 'config', 'cells', 'summary'
      (`compare.summarise_grid`), 'agent', and where it has them 'over_labels', rows like those of
      'summary'.
    curves: of the runs, in groups that share charts.
    shown: held-out images.
    path: file to write.
  """
  summary = results['summary']
  over = results.get('over_labels', ())
  named = [method for group in curves for method, _ in group.runs]
  named += [course.method for course in shown.courses] + [run.method for run in shown.others]
  styles = charts.style_numbers([*(row['method'] for row in summary), *results['agent'], *named])
  values = {
    'title': f'{results["dataset"]}: what masked pre-training gained',
    'results': results,
    'styles': styles,
    'conclusions': conclusions([*over, *summary]),
    'charts': [chart(svg) for svg in charts.summary_charts(summary, styles).values()],
    'agent_metrics': _AGENT,
    'curves': _curve_charts(curves, styles),
    'config': json.dumps(results['config'], indent=2, ensure_ascii=False),
    'colours': shown.colours,
    **_table_values(summary, over),
    **_cell_values(results['cells']),
    **_picture_values(shown),
  }
  durable.write(Path(path), _with_viewer(values, shown.viewer).encode())


def _table_values(summary: Sequence[Row], over: Sequence[Row]) -> dict[str, Any]:
  """Of the tables of methods, and of what is said of their images."""
  rows = [*summary, *over]
  known = [column for column in COLUMNS if any(row[column[0]] is not None for row in summary)]
  classes = mask_classes(summary)
  return {
    'rows': rows,
    'best': best_rows(rows),
    'seeds': seed_counts(rows),
    'baselines': baselines(summary),
    'columns': [(name, title[0].upper() + title[1:], digits) for name, title, digits in known],
    'mask_classes': classes,
    'legend': [(name, pictures.data_uri(class_swatch(k))) for k, name in enumerate(classes, 1)],
    'images': max((row['images'] for row in summary), default=0),
    'group_count': max((row['groups'] for row in summary), default=0),
    'unit': 'groups' if any(row['groups'] < row['images'] for row in summary) else 'images',
  }


def _cell_values(cells: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
  """Of the table of every cell."""
  flat = [_flat(cell) for cell in cells]
  return {'cells': flat, 'cell_columns': list(dict.fromkeys(key for cell in flat for key in cell))}


def _flat(cell: Mapping[str, Any]) -> dict[str, Any]:
  """The scores of a cell, with those of each class as columns of their own.

  Those of each image are left out.
  """
  flat: dict[str, Any] = {}
  for key, value in cell.items():
    if isinstance(value, Mapping) and key != PER_IMAGE:
      flat |= {f'{key} {name}': single for name, single in value.items()}
    elif key != PER_IMAGE:
      flat[key] = value
  return flat


def _curve_charts(
  curves: Sequence[Curves], styles: Mapping[str, int]
) -> list[tuple[str, list[Markup]]]:
  """A title and its charts for each group of runs that has any."""
  drawn = [(group.title, charts.curve_charts(group, styles)) for group in curves]
  return [(title, [chart(svg) for svg in svgs]) for title, svgs in drawn if svgs]


def _picture_values(shown: Shown) -> dict[str, Any]:
  sheets = (
    (
      'Where each strategy masks',
      'Probability of being masked after pre-training, on the same held-out images.',
      shown.strategies,
    ),
    (
      'How the policy moved',
      'Probability of being masked, on validation images, in the course of one pre-training.',
      shown.movement,
    ),
  )
  return {
    'sheets': [
      (title, note, pictures.data_uri(np.asarray(sheet)))
      for title, note, sheet in sheets
      if sheet is not None
    ],
    'groups': [
      ('Held-out images', '', _example_views(shown.examples)),
      ('Failures', 'The lowest Dice of the same run, worst first.', _example_views(shown.failures)),
    ],
    'courses': _fitting(map(pseudo_masks.view, shown.courses), _STRIP_BYTES),
    'courses_count': len(shown.courses),
    'others_count': len(shown.others),
    'others_title': 'Failures of other methods' if shown.failures else 'Failures',
    'others': _fitting(map(failures.view, shown.others), _STRIP_BYTES),
    'colour_bar': pictures.data_uri(pictures.colour_bar(120, 10)),
  }


def _example_views(examples: Sequence[Example]) -> list[Mapping[str, Any]]:
  """The first examples that a gallery has room for."""
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
  return _fitting(views, _GALLERY_BYTES)


def _with_viewer(values: Mapping[str, Any], viewer: viewing.Viewer | None) -> str:
  """The page, with as many of the viewer's images as it has room for; without it if there are
  none.
  """

  def page(viewer: viewing.Viewer | None) -> str:
    return render('report.html', **values, **_viewer_values(viewer))

  if viewer and viewer.entries:
    room = PAGE_BYTES - _SPARE - len(page(replace(viewer, entries=())).encode())
    if entries := _fitting(viewer.entries, room):
      return page(replace(viewer, entries=entries))
  return page(None)


def _viewer_values(viewer: viewing.Viewer | None) -> dict[str, Any]:
  if viewer is None:
    return {'viewer': None}
  script = (TEMPLATES / 'viewer.js').read_text(encoding='utf-8')
  digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
  return {
    'viewer': viewer,
    'viewer_data': htmlsafe_json_dumps({'runs': viewer.runs, 'images': viewer.entries}),
    'viewer_script': Markup(script),
    'allowed_script': f"'sha256-{digest}'",
    'layers': viewer.layers,
    'start': viewing.START,
  }


def _fitting(entries: Iterable[Mapping[str, Any]], room: int) -> list[Mapping[str, Any]]:
  """The first entries that take no more than `room` bytes of a page."""
  kept = []
  for item in entries:
    room -= len(htmlsafe_json_dumps(item)) + 2
    if room < 0:
      break
    kept.append(item)
  return kept
