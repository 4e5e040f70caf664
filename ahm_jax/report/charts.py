"""Charts of the report as SVG, drawn in the colours of its light theme.

`themed` makes them follow a page's light or dark theme, `as_file` makes files of them.
"""

import html
import io
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from ahm_jax.config import folder_name
from ahm_jax.evaluation.compare import Labels, Row, baselines
from ahm_jax.evaluation.tables import label_count
from ahm_jax.runtime import durable

# (light, dark) of the page's text and lines.
TEXT, LINE = ('#1b1f26', '#e8eaee'), ('#d5d9e0', '#3a414c')
# The same of methods, from the colour-blind-safe set of Okabe and Ito; a method has the same colour
# and marker in every chart.
PALETTE = (
  ('#6b7280', '#a3aab5'),
  ('#0072b2', '#56b4e9'),
  ('#d55e00', '#f08a3c'),
  ('#00805e', '#2fc79a'),
  ('#b0528a', '#dd93bd'),
  ('#9a6a00', '#e6b422'),
  ('#5b4bb7', '#a99cf0'),
  ('#a3123f', '#f2708f'),
  ('#0b7285', '#5cc8d7'),
  ('#5c7a00', '#b3cc4d'),
  ('#7a4a2b', '#cf9b7b'),
)
_MARKERS = 'osD^vPX<>ph'
_KNOWN = ('scratch', 'uniform', 'ahm', 'untrained', 'reinforce')  # These have fixed colours.
# The page's CSS variable for each colour of a chart.
_VARIABLES = {TEXT[0]: '--text', LINE[0]: '--line'} | {
  light: f'--method-{k}' for k, (light, _) in enumerate(PALETTE)
}
# Between the methods of one number of labels, whose next lies at 1; less where there are many.
_SPACING = 0.12
_MAX_POINTS = 300
_STYLE = {
  'svg.fonttype': 'none',
  'font.size': 11,
  'axes.titlesize': 12,
  'axes.titleweight': 'bold',
  'axes.titlelocation': 'left',
  'axes.edgecolor': LINE[0],
  'axes.labelcolor': TEXT[0],
  'axes.titlecolor': TEXT[0],
  'text.color': TEXT[0],
  'xtick.color': LINE[0],
  'ytick.color': LINE[0],
  'xtick.labelcolor': TEXT[0],
  'ytick.labelcolor': TEXT[0],
  'grid.color': LINE[0],
  'grid.linewidth': 0.6,
  'axes.spines.top': False,
  'axes.spines.right': False,
  'legend.frameon': False,
}


class Curves(NamedTuple):
  """Training curves of runs that share charts, one for each metric."""

  title: str
  metrics: Sequence[tuple[str, str]]  # Names in metrics.jsonl, and titles.
  runs: Sequence[tuple[str, Sequence[Mapping[str, Any]]]]  # Method, lines of its metrics.jsonl.


def style_numbers(methods: Sequence[str]) -> dict[str, int]:
  """Each method's place in PALETTE; known ones have a fixed one, others follow in their order."""
  others = [method for method in dict.fromkeys(methods) if method not in _KNOWN]
  order = [*_KNOWN, *others]
  return {method: order.index(method) % len(PALETTE) for method in methods}


def summary_charts(summary: Sequence[Row], styles: Mapping[str, int]) -> dict[str, str]:
  """'dice' and 'vs_BASELINE' charts of what there is in a summary.

  See `style_numbers`.
  """
  if not any(row['dice'] is not None for row in summary):
    return {}
  gains = {f'vs_{name}': gain_chart(summary, styles, name) for name in baselines(summary)}
  return {'dice': dice_chart(summary, styles)} | {name: svg for name, svg in gains.items() if svg}


def write_summary_charts(summary: Sequence[Row], folder: Path) -> None:
  """Writes dice.svg and a vs_BASELINE.svg for each baseline into a folder: the report's charts,
  for a paper.
  """
  styles = style_numbers([row['method'] for row in summary])
  for name, svg in summary_charts(summary, styles).items():
    durable.write(Path(folder) / f'{folder_name(name)}.svg', as_file(svg).encode())


def dice_chart(summary: Sequence[Row], styles: Mapping[str, int]) -> str:
  """Mean Dice with 95 % intervals over the number of labels."""
  alt = 'Mean Dice for each number of labels, one line a method'
  return _over_labels(summary, styles, 'dice', 'Mean Dice', alt)


def gain_chart(summary: Sequence[Row], styles: Mapping[str, int], baseline: str) -> str:
  """Difference of Dice to a baseline, in points, with 95 % intervals over the number of labels.

  '' if there is none.
  """
  rows = [row for row in summary if row[f'vs_{baseline}'] is not None]
  if not rows:
    return ''
  title = f'Difference to {baseline}, points of Dice'
  return _over_labels(rows, styles, f'vs_{baseline}', title, title, scale=100, zero=True)


def curve_charts(curves: Curves, styles: Mapping[str, int]) -> list[str]:
  """A chart for each metric that is known of any run."""
  found = []
  for name, title in curves.metrics:
    drawn = [(method, *_series(lines, name)) for method, lines in curves.runs]
    drawn = [curve for curve in drawn if curve[1]]
    if drawn:
      found.append(curve_chart(drawn, styles, title, curves.title))
  return found


def curve_chart(
  curves: Sequence[tuple[str, Sequence[float], Sequence[float]]],
  styles: Mapping[str, int],
  title: str,
  stage: str,
  over: str = 'training steps',
) -> str:
  """Training curves, or others.

  Args:
    curves: (method, steps, values) of each run; runs of a method share a colour.
    styles: see `style_numbers`.
    title: what the values are.
    stage: where they come from, for those who hear the page.
    over: what the horizontal axis counts.
  """
  every = np.concatenate([np.asarray(values, float) for _, _, values in curves])
  with matplotlib.style.context(_STYLE):
    figure, axes = _panel(2.5, title)
    named: set[str] = set()
    for method, steps, values in curves:
      stride = math.ceil(len(steps) / _MAX_POINTS)
      axes.plot(
        steps[::stride],
        values[::stride],
        color=PALETTE[styles[method]][0],
        label=None if method in named else method,
        linewidth=1.3,
        marker=_MARKERS[styles[method]] if len(steps) <= 12 else 'none',
        markersize=4,
      )
      named.add(method)
    if every.min() > 0 and every.max() > 10 * every.min():
      axes.set_yscale('log')
      axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
      axes.yaxis.set_major_formatter('{x:g}')
      axes.yaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_xlabel(over)
    return _drawn(figure, f'{stage}: {title} over {over}, one line a run')


def themed(svg: str) -> str:
  """A chart to be put into a page, whose light or dark theme gives its colours."""
  return re.sub(r'(?<=: )#[0-9a-f]{6}\b', lambda found: f'var({_VARIABLES[found[0]]})', svg)


def as_file(svg: str) -> str:
  """A chart as an SVG file, for a paper or a README: dark on white."""
  return svg.replace('<svg ', '<svg style="background: #ffffff; font-family: sans-serif" ', 1)


def _over_labels(
  summary: Sequence[Row],
  styles: Mapping[str, int],
  key: str,
  title: str,
  alt: str,
  scale: float = 1,
  zero: bool = False,
) -> str:
  """A score with its intervals over the number of labels; with `zero` a line at 0 and none between
  the points.
  """
  counts = list(dict.fromkeys(row['labels'] for row in summary))
  places = _places(summary, key)
  with matplotlib.style.context(_STYLE):
    figure, axes = _panel(2.8, title)
    if zero:
      axes.axhline(0, color=TEXT[0], linewidth=1)
    for method in dict.fromkeys(row['method'] for row in summary):
      rows = [row for row in summary if row['method'] == method and row[key] is not None]
      values = np.array([row[key] for row in rows]) * scale
      ends = np.array([row[f'{key}_ci95'] or [row[key], row[key]] for row in rows]) * scale
      axes.errorbar(
        [counts.index(row['labels']) + places[method, row['labels']] for row in rows],
        values,
        np.abs(ends.T.reshape(2, -1) - values),
        label=method,
        color=PALETTE[styles[method]][0],
        marker=_MARKERS[styles[method]],
        markersize=6,
        linestyle='none' if zero else '-',
        linewidth=1.5,
        capsize=3,
      )
    axes.set_xticks(range(len(counts)), [label_count(count) for count in counts])
    axes.set_xlim(-0.5, len(counts) - 0.5)
    axes.set_xlabel('labelled images')
    return _drawn(figure, alt)


def _places(summary: Sequence[Row], key: str) -> dict[tuple[str, Labels], float]:
  """How far beside the tick of a number of labels each method stands, so that intervals do not hide
  each other.
  """
  beside: dict[Labels, list[str]] = {}
  for row in summary:
    if row[key] is not None:
      beside.setdefault(row['labels'], []).append(row['method'])
  spacing = min(_SPACING, 0.7 / len({row['method'] for row in summary}))
  return {
    (method, labels): spacing * (k - (len(methods) - 1) / 2)
    for labels, methods in beside.items()
    for k, method in enumerate(methods)
  }


def _series(lines: Sequence[Mapping[str, Any]], name: str) -> tuple[list[float], list[float]]:
  """Steps and finite values of one metric.

  Lines without it, or with null for what was not finite, are passed over.
  """
  points = [
    (line['step'], line[name])
    for line in lines
    if line.get(name) is not None and math.isfinite(line[name])
  ]
  return [step for step, _ in points], [value for _, value in points]


def _panel(height: float, title: str) -> tuple[Figure, Axes]:
  figure = Figure(figsize=(4.6, height), layout='constrained')
  axes = figure.add_subplot(title=title)
  axes.grid(axis='y')
  axes.set_axisbelow(True)
  return figure, axes


def _drawn(figure: Figure, alt: str) -> str:
  """A figure as SVG without what would reach or clash with the rest of a page."""
  _add_legend(figure)
  file = io.StringIO()
  with matplotlib.rc_context({'svg.hashsalt': alt}):
    figure.savefig(
      file,
      format='svg',
      transparent=True,
      metadata=dict.fromkeys(('Date', 'Creator', 'Format', 'Type')),
    )
  svg = file.getvalue()
  svg = svg[svg.index('<svg') :]
  # Ids that nothing refers to are the same in every chart.
  svg = re.sub(r'<g id="[^"]*"', '<g', svg)
  # A style sheet would reach the whole page, whose own font is to be used.
  svg = re.sub(r'<defs>\s*<style.*?</defs>', '', svg, count=1, flags=re.DOTALL)
  svg = re.sub(r' font-family: [^;]*;', '', svg)
  return svg.replace('<svg ', f'<svg role="img" aria-label="{html.escape(alt)}" ', 1)


def _add_legend(figure: Figure) -> None:
  """Below the axes, in as many columns as the figure is wide for.

  The figure grows by its height.
  """
  for columns in range(4, 0, -1):
    legend = figure.legend(loc='outside lower center', ncols=columns)
    extent = legend.get_window_extent()
    if extent.width <= figure.bbox.width:
      break
    if columns > 1:
      legend.remove()
  figure.set_figheight(figure.get_figheight() + extent.height / figure.dpi)
