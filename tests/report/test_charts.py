import re
from xml.etree import ElementTree

import pytest

from ahm_jax.report import charts


def row(method, labels, dice, interval, gain=None, gain_interval=None):
  return {
    'method': method,
    'labels': labels,
    'dice': dice,
    'dice_ci95': interval,
    'vs_scratch': gain,
    'vs_scratch_ci95': gain_interval,
    'vs_uniform': None,
    'vs_uniform_ci95': None,
  }


SUMMARY = [
  row('scratch', 20, 0.5, [0.4, 0.6]),
  row('ahm', 20, 0.6, [0.5, 0.7], 0.1, [0.05, 0.15]),
  row('scratch', 0, 0.7, None),
  row('ahm', 0, 0.65, [0.6, 0.7], -0.05, [-0.2, 0.1]),
]
STYLES = charts.style_numbers(['scratch', 'ahm'])


def texts(svg):
  return [
    element.text for element in ElementTree.fromstring(svg).iter('{http://www.w3.org/2000/svg}text')
  ]


def test_known_methods_keep_their_style_whatever_else_is_there():
  few, many = (
    charts.style_numbers(['ahm', 'scratch']),
    charts.style_numbers(['baseline', 'uniform', 'scratch', 'ahm', 'other']),
  )
  assert all(few[method] == many[method] for method in few)
  assert len(set(many.values())) == 5
  assert max(many.values()) < len(charts.PALETTE)


def test_dice_chart_names_methods_and_label_counts():
  svg = charts.themed(charts.dice_chart(SUMMARY, STYLES))
  assert {'Mean Dice', '20', 'all', 'scratch', 'ahm'} <= set(texts(svg))
  assert all(f'var(--method-{STYLES[method]})' in svg for method in ('scratch', 'ahm'))
  assert svg.startswith('<svg role="img" aria-label="Mean Dice')


def test_interval_is_drawn_to_scale():
  """The error bar of ahm at 20 labels runs from 5 to 15 points, and the axis' ticks say where
  these lie.
  """
  svg = charts.themed(charts.gain_chart(SUMMARY, STYLES, 'scratch'))
  svg = svg.replace('\N{MINUS SIGN}', '-')
  ticks = {}
  for label, y in re.findall(
    r'text-anchor: end; fill: var\(--text\)" x="[\d.]+" y="([\d.]+)"[^>]*>([-\d.]+)<', svg
  ):
    ticks[float(y)] = float(label)
  low, high = min(ticks), max(ticks)
  per_point = (ticks[high] - ticks[low]) / (high - low)
  colour = rf'stroke: var\(--method-{STYLES["ahm"]}\)'
  bars = re.findall(rf'd="M [\d.]+ ([\d.]+) \nL [\d.]+ ([\d.]+) \n" clip-path[^>]*{colour}', svg)
  lengths = sorted(abs(float(b) - float(a)) / abs(per_point) for a, b in bars)
  assert lengths == pytest.approx([10, 30], rel=1e-3)


def test_gain_chart_without_a_baseline_is_empty():
  assert charts.gain_chart(SUMMARY, STYLES, 'uniform') == ''


def test_curve_chart_thins_long_runs_and_names_each_method_once():
  steps = list(range(5000))
  curve = [1 + step / 5000 for step in steps]
  svg = charts.curve_chart(
    [('ahm', steps, curve), ('ahm', steps, curve), ('scratch', steps, curve)],
    STYLES,
    'Loss',
    'Pre-training',
  )
  assert texts(svg).count('ahm') == 1 and texts(svg).count('scratch') == 1
  assert svg.count('\nL ') < 3 * 400
  assert 'aria-label="Pre-training: Loss over training steps' in svg


def test_names_are_escaped():
  styles = charts.style_numbers(['<b>x</b>'])
  svg = charts.curve_chart([('<b>x</b>', [1, 2], [0.1, 10.0])], styles, 'Loss', '"<b>')
  assert '<b>' not in svg and '<b>x</b>' in texts(svg)


def test_on_a_page_every_colour_is_that_of_its_theme():
  for svg in (
    charts.dice_chart(SUMMARY, STYLES),
    charts.gain_chart(SUMMARY, STYLES, 'scratch'),
    charts.curve_chart([('ahm', [1, 2], [0.1, 10.0])], STYLES, 'Loss', 'Pre-training'),
  ):
    assert re.search('(fill|stroke): #', svg) and not re.search(
      '(fill|stroke): #', charts.themed(svg)
    )


def test_charts_share_no_id_and_touch_no_style_of_the_page():
  both = charts.dice_chart(SUMMARY, STYLES) + charts.gain_chart(SUMMARY, STYLES, 'scratch')
  ids = re.findall(r' id="([^"]*)"', both)
  assert len(ids) == len(set(ids)) > 0
  assert '<style' not in both and 'font-family' not in both


def extent(svg):
  """Width of the picture, and the rightmost end of its texts, each character taken for 0.58 of
  an 11 px font (DejaVu Sans).
  """
  root = ElementTree.fromstring(svg)
  ends = []
  for element in root.iter('{http://www.w3.org/2000/svg}text'):
    if not re.search('text-anchor: (middle|end)', element.get('style')):
      ends.append(float(element.get('x')) + 0.58 * 11 * len(element.text))
  return float(root.get('viewBox').split()[2]), max(ends)


@pytest.mark.parametrize('count', [2, 5, 12])
def test_a_legend_stays_inside_the_picture_whatever_the_number_of_methods(count):
  methods = ['scratch', 'ahm:reward=progress', *(f'a_baseline_{k}' for k in range(count))]
  rows = [row(method, labels, 0.5, [0.4, 0.6]) for labels in (20, 50) for method in methods]
  svg = charts.dice_chart(rows, charts.style_numbers(methods))
  width, end = extent(svg)
  assert set(methods) <= set(texts(svg)) and end <= width
  root = ElementTree.fromstring(svg)
  assert all(
    float(element.get('x')) >= 0 for element in root.iter('{http://www.w3.org/2000/svg}text')
  )


def test_methods_of_one_number_of_labels_stand_around_its_tick_and_not_near_the_next():
  methods = [f'baseline{k}' for k in range(11)]
  rows = [row(method, 20, 0.5 + k / 100, None) for k, method in enumerate(methods)]
  rows += [row(method, 50, 0.6, None) for method in methods[3:5]]
  svg = charts.themed(charts.dice_chart(rows, charts.style_numbers(methods)))
  found = re.findall(r'text-anchor: middle; fill: var\(--text\)" x="([\d.]+)"[^>]*>(20|50)<', svg)
  ticks = {name: float(x) for x, name in found}
  bars = [
    float(x)
    for x, _ in re.findall(
      r'd="M ([\d.]+) ([\d.]+) \nL \1 \2 \n" clip-path[^>]*var\(--method-', svg
    )
  ]
  middle = (ticks['20'] + ticks['50']) / 2
  few, many = [x for x in bars if x > middle], [x for x in bars if x < middle]
  assert (len(many), len(few)) == (11, 2)
  assert sum(many) / 11 == pytest.approx(ticks['20'], abs=1e-3) and sum(few) / 2 == pytest.approx(
    ticks['50'], abs=1e-3
  )


def test_a_file_has_every_colour_written_out_and_a_font_and_background():
  svg = charts.as_file(charts.gain_chart(SUMMARY, STYLES, 'scratch'))
  root = ElementTree.fromstring(svg)
  assert 'var(' not in svg and charts.PALETTE[STYLES['ahm']][0] in svg
  assert 'background: #ffffff' in root.get('style') and 'font-family' in root.get('style')


def test_charts_of_baselines_whose_name_holds_a_path_are_files_of_the_folder(tmp_path):
  name = 'scratch:data.labelled_from=a/50%.csv'
  summary = [
    {**row('ahm', 20, 0.6, [0.5, 0.7]), f'vs_{name}': 0.1, f'vs_{name}_ci95': [0.0, 0.2]},
    {**row('ahm', 50, 0.7, [0.6, 0.8]), f'vs_{name}': 0.2, f'vs_{name}_ci95': [0.1, 0.3]},
  ]
  charts.write_summary_charts(summary, tmp_path)
  assert {path.name for path in tmp_path.iterdir()} == {
    'dice.svg',
    'vs_scratch:data.labelled_from=a%2F50%25.csv.svg',
  }
