"""Web pages from the templates of this folder, in the report's style."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from ahm_jax.evaluation.intervals import Interval
from ahm_jax.evaluation.tables import label_count
from ahm_jax.report import charts, overlays, pictures

TEMPLATES = Path(__file__).parent / 'templates'
MINUS = '\N{MINUS SIGN}'


def render(template: str, **values: Any) -> str:
  """A page of a template of this folder.

  All values but Markup are escaped.
  """
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(TEMPLATES),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
  )
  environment.filters |= {
    'number': number,
    'signed': signed,
    'interval': interval,
    'labels': label_count,
  }
  style = {
    'text': charts.TEXT,
    'line': charts.LINE,
    'palette': charts.PALETTE,
    'truth_colour': _hex(pictures.TRUTH_COLOUR),
    'prediction_colour': _hex(pictures.PREDICTION_COLOUR),
    'confused_colour': _hex(overlays.CONFUSED_COLOUR),
    'allowed_script': "'none'",
  }
  return environment.get_template(template).render(**style | values)


def charts_page(title: str, note: str, svgs: Sequence[str]) -> str:
  """A page of charts, which are SVG as `charts` draws it."""
  return render('charts.html', title=title, note=note, charts=[chart(svg) for svg in svgs])


def chart(svg: str) -> Markup:
  """A chart to be put into a page, in the colours of the page's theme."""
  return Markup(charts.themed(svg))


def number(value: float | str | None, digits: int = 3) -> str:
  """As tables have it; '-' where it is not known."""
  if isinstance(value, str) or value is None:
    return value or '-'
  if isinstance(value, int):
    return str(value)
  return f'{value:.{digits}f}' if math.isfinite(value) else '-'


def signed(value: float | None) -> str:
  """A difference, as tables have it."""
  return '-' if value is None else f'{value:+.3f}'.replace('-', MINUS)


def interval(ends: Interval, sign: str = '') -> str:
  """The interval of a score; with `sign` '+' of a difference."""
  return '' if ends is None else f'{ends[0]:{sign}.3f} to {ends[1]:{sign}.3f}'.replace('-', MINUS)


def _hex(colour: tuple[int, int, int]) -> str:
  return '#{:02x}{:02x}{:02x}'.format(*colour)
