"""Charts of the report as inline SVG. Colours are CSS variables, so that they follow the page's
light or dark theme.

`as_file` gives one colours of its own.
"""

import io
import math
import re
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from ahm_jax.evaluation.compare import label_count

# (light, dark) of the colour-blind-safe set of Okabe and Ito; an method has the same colour and
# marker in every chart.
_KNOWN = ('scratch', 'uniform', 'ahm', 'untrained', 'reinforce')
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
# Between the methods of one number of labels, whose next lies at 1; less where there are many.
_SPACING = 0.12
# Colours that matplotlib writes and `_to_svg` replaces by CSS variables.
_TEXT, _GRID = '#010101', '#020202'
_MAX_POINTS = 300
_STYLE = {
  'svg.fonttype': 'none',
  'font.size': 11,
  'axes.titlesize': 12,
  'axes.titleweight': 'bold',
  'axes.titlelocation': 'left',
  'axes.edgecolor': _GRID,
  'axes.labelcolor': _TEXT,
  'axes.titlecolor': _TEXT,
  'text.color': _TEXT,
  'xtick.color': _GRID,
  'ytick.color': _GRID,
  'xtick.labelcolor': _TEXT,
  'ytick.labelcolor': _TEXT,
  'grid.color': _GRID,
  'grid.linewidth': 0.6,
  'axes.spines.top': False,
  'axes.spines.right': False,
  'legend.frameon': False,
}


def style_numbers(methods: Sequence[str]) -> dict[str, int]:
  """Each method's place in PALETTE; known ones have a fixed one, others follow in their order."""
  others = [method for method in dict.fromkeys(methods) if method not in _KNOWN]
  order = [*_KNOWN, *others]
  return {method: order.index(method) % len(PALETTE) for method in methods}


def dice_chart(summary: Sequence[Mapping], styles: Mapping[str, int]) -> str:
  """Mean Dice with 95 % intervals over the number of labels."""
  return _over_labels(
    summary, styles, 'dice', 'Mean Dice', 'Mean Dice for each number of labels, one line an method'
  )


def gain_chart(summary: Sequence[Mapping], styles: Mapping[str, int], baseline: str) -> str:
  """Difference of Dice to a baseline, in points, with 95 % intervals over the number of labels.

  '' if there is none.
  """
  rows = [row for row in summary if row[f'vs_{baseline}'] is not None]
  if not rows:
    return ''
  title = f'Difference to {baseline}, points of Dice'
  return _over_labels(rows, styles, f'vs_{baseline}', title, title, scale=100, zero=True)


def _over_labels(
  summary, styles, key: str, title: str, alt: str, scale: float = 1, zero: bool = False
) -> str:
  counts = list(dict.fromkeys(row['labels'] for row in summary))
  methods = list(dict.fromkeys(row['method'] for row in summary))
  beside = {
    count: [row['method'] for row in summary if row['labels'] == count and row[key] is not None]
    for count in counts
  }
  spacing = min(_SPACING, 0.7 / len(methods))
  with matplotlib.rc_context(_STYLE):
    figure = Figure(figsize=(4.6, 2.8), layout='constrained')
    axes = figure.add_subplot(title=title)
    if zero:
      axes.axhline(0, color=_TEXT, linewidth=1)
    for method in methods:
      rows = [row for row in summary if row['method'] == method and row[key] is not None]
      # Side by side, so that intervals do not hide each other.
      places = [(beside[row['labels']].index(method), len(beside[row['labels']])) for row in rows]
      x = [
        counts.index(row['labels']) + spacing * (k - (n - 1) / 2)
        for row, (k, n) in zip(rows, places, strict=True)
      ]
      y = np.array([row[key] for row in rows]) * scale
      ends = [row[f'{key}_ci95'] or [row[key], row[key]] for row in rows]
      margins = np.abs(np.array(ends).T.reshape(2, -1) * scale - y)
      colour = _init_colour(styles[method])
      line = 'none' if zero else '-'
      axes.errorbar(
        x,
        y,
        margins,
        label=method,
        color=colour,
        marker=_MARKERS[styles[method]],
        markersize=6,
        linestyle=line,
        linewidth=1.5,
        capsize=3,
      )
    axes.set_xticks(range(len(counts)), [label_count(count) for count in counts])
    axes.set_xlim(-0.5, len(counts) - 0.5)
    axes.set_xlabel('labelled images')
    axes.grid(axis='y')
    axes.set_axisbelow(True)
    _add_legend(figure)
    return _to_svg(figure, alt)


def curve_chart(
  curves: Sequence[tuple[str, Sequence[float], Sequence[float]]],
  styles: Mapping[str, int],
  title: str,
  stage: str,
  over: str = 'training steps',
) -> str:
  """Training curves, or others.

  Args:
    curves: (method, steps, values) of each run; runs of an method share a colour.
    styles: see `style_numbers`.
    title: what the values are.
    stage: where they come from, for those who hear the page.
    over: what the horizontal axis counts.
  """
  every = np.concatenate([np.asarray(values, float) for _, _, values in curves])
  with matplotlib.rc_context(_STYLE):
    figure = Figure(figsize=(4.6, 2.5), layout='constrained')
    axes = figure.add_subplot(title=title)
    named = set()
    for method, steps, values in curves:
      stride = math.ceil(len(steps) / _MAX_POINTS)
      label = None if method in named else method
      named.add(method)
      marker = {'marker': _MARKERS[styles[method]], 'markersize': 4} if len(steps) <= 12 else {}
      axes.plot(
        steps[::stride],
        values[::stride],
        color=_init_colour(styles[method]),
        label=label,
        linewidth=1.3,
        **marker,
      )
    if every.min() > 0 and every.max() > 10 * every.min():
      axes.set_yscale('log')
      axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
      axes.yaxis.set_major_formatter('{x:g}')
      axes.yaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_xlabel(over)
    axes.grid(axis='y')
    axes.set_axisbelow(True)
    _add_legend(figure)
    return _to_svg(figure, f'{stage}: {title} over {over}, one line a run')


def as_file(svg: str) -> str:
  """A chart as an SVG file, for a paper or a README: dark on white, with every colour written
  out.
  """
  colours = {'text': '#1b1f26', 'line': '#d5d9e0'} | {
    f'method-{k}': light for k, (light, _) in enumerate(PALETTE)
  }
  svg = re.sub(r'var\(--([\w-]+)\)', lambda found: colours[found[1]], svg)
  return svg.replace('<svg ', '<svg style="background: #ffffff; font-family: sans-serif" ', 1)


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


def _init_colour(number: int) -> str:
  return f'#0303{number:02d}'


def _to_svg(figure: Figure, alt: str) -> str:
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
  svg = re.sub(r'<g id="[^"]*"', '<g', svg)  # Ids that nothing refers to, the same in every chart.
  svg = re.sub(
    r'<defs>\s*<style.*?</defs>', '', svg, count=1, flags=re.DOTALL
  )  # It would reach the whole page.
  svg = re.sub(r' font-family: [^;]*;', '', svg)  # The page's own.
  for colour, variable in ((_TEXT, '--text'), (_GRID, '--line')):
    svg = svg.replace(colour, f'var({variable})')
  svg = re.sub(r'#0303(\d\d)', lambda found: f'var(--method-{int(found[1])})', svg)
  return svg.replace('<svg ', f'<svg role="img" aria-label="{alt}" ', 1)
