import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from ahm_jax.evaluation import compare
from ahm_jax.evaluation.tables import label_count
from ahm_jax.report import page as report
from ahm_jax.report import pictures
from ahm_jax.report.charts import Curves
from tests.report.made_up import NASTY, make_results


class Page(HTMLParser):
  """Tags with their attributes, visible text, and whether every tag is closed in its turn."""

  VOID = ('meta', 'link', 'img', 'br', 'input')

  def __init__(self, html):
    super().__init__()
    self.tags, self.words, self.open = [], [], []
    self.feed(html)
    self.text = ' '.join(' '.join(self.words).split())

  def handle_starttag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))
    if tag not in self.VOID:
      self.open.append(tag)

  def handle_startendtag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    if not {'style', 'script'} & set(self.open):
      self.words.append(data)


def make_example(name='image1'):
  truth = np.zeros((40, 30), bool)
  truth[10:20, 10:20] = True
  image = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)
  hidden = np.arange(16).reshape(4, 4) < 10
  return pictures.Example(image, hidden * 0.6, hidden, image, truth, truth, name, 0.876)


SEGMENTATION = (('loss', 'Training loss'), ('validation/dice', 'Validation Dice'))
CURVES = [
  Curves(
    'Pre-training',
    (('loss', 'Loss on masked patches'), ('validation/hardness_ratio', 'Hardness ratio')),
    [
      (
        'ahm',
        [
          {'step': 1, 'loss': 1.0},
          {'step': 2, 'loss': 0.02},
          {'step': 2, 'validation/hardness_ratio': 1.2},
        ],
      )
    ],
  ),
  Curves(
    'Segmentation, 20 labels',
    SEGMENTATION,
    [
      (
        'ahm',
        [
          {'step': 1, 'loss': 0.9},
          {'step': 2, 'loss': math.nan},
          {'step': 2, 'validation/dice': 0.4},
        ],
      ),
      ('scratch', [{'step': 1, 'loss': 0.8}, {'step': 2, 'loss': None, 'validation/dice': 0.4}]),
    ],
  ),
  Curves('Segmentation, all labels', SEGMENTATION, [('ahm', [{'step': 1, 'loss': 0.7}])]),
  Curves('Unknown', (('validation/auc', 'AUC'),), [('ahm', [{'step': 1, 'loss': 0.7}])]),
  Curves('Classification, 20 labels', (('loss', 'Loss'),), [(NASTY, [{'step': 1, 'loss': 0.7}])]),
]


@pytest.fixture(scope='module')
def page(tmp_path_factory):
  path = tmp_path_factory.mktemp('report') / 'report.html'
  sheet = pictures.policies_sheet(
    np.zeros((1, 8, 8, 3), np.uint8), {NASTY: np.full((1, 2, 2), 0.5)}
  )
  shown = report.Shown([make_example(), make_example(NASTY)], [make_example('worst')], sheet, sheet)
  report.write_report(make_results(), CURVES, shown, path)
  return path.read_text(encoding='utf-8')


def test_page_is_self_contained(page):
  for tag, attributes in Page(page).tags:
    for name in ('src', 'href', 'xlink:href', 'srcset', 'action', 'data'):
      assert attributes.get(name, 'data:').startswith(('data:', '#')), (tag, name)
    assert tag not in ('script', 'iframe', 'object')
  assert 'url(http' not in page and '@import' not in page


def test_page_is_well_formed_and_names_are_escaped(page):
  parsed = Page(page)
  assert parsed.open == []
  assert '<script' not in page and parsed.text.count(NASTY) >= 3


def test_colours_of_modalities_are_said_beside_pictures(page, tmp_path):
  said = 'In false colours: a & b.'
  path = tmp_path / 'report.html'
  shown = report.Shown([make_example()], [make_example()], colours=said)
  report.write_report(make_results(), CURVES, shown, path)
  assert said in Page(path.read_text(encoding='utf-8')).text and said not in Page(page).text


@pytest.mark.parametrize(
  'name', ['<img src=x onerror=alert(1)>', '"><svg onload=alert(1)>', "x' onmouseover='alert(1)"]
)
def test_hostile_names_stay_text(tmp_path, name):
  """As the name of an image, a class of a run, a data set and a cell.

  No tag and no attribute comes of it.
  """
  results = {**make_results(seeds=1), 'dataset': name, 'config': {'data': {'root': name}}}
  results['cells'][0]['method'] = name
  curves = [Curves(name, (('loss', 'Training loss'),), [(name, [{'step': 1, 'loss': 0.7}])])]
  path = tmp_path / 'report.html'
  report.write_report(
    results, curves, report.Shown([make_example(name)], [make_example(name)]), path
  )
  parsed = Page(path.read_text(encoding='utf-8'))
  assert parsed.open == []
  assert not [key for _, attributes in parsed.tags for key in attributes if key.startswith('on')]
  assert all(
    attributes['src'].startswith('data:') for tag, attributes in parsed.tags if tag == 'img'
  )
  assert parsed.text.count(name) >= 2


def test_page_can_be_read_aloud(page):
  tags = Page(page).tags
  assert all(attributes.get('alt') for tag, attributes in tags if tag == 'img')
  assert all(attributes.get('aria-label') for tag, attributes in tags if tag == 'svg')
  assert all(attributes.get('scope') in ('row', 'col') for tag, attributes in tags if tag == 'th')
  assert dict(tags)['html'] == {'lang': 'en'}
  assert [tag for tag, _ in tags].count('h1') == 1
  ids = [attributes['id'] for _, attributes in tags if 'id' in attributes]
  assert len(ids) == len(set(ids))


def test_page_holds_every_summary_and_every_cell(page):
  text, results = Page(page).text, make_results()
  for row in results['summary']:
    low, high = row['dice_ci95']
    name = row['method'] + (
      ' best' if (row['method'], row['labels']) in compare.best_rows(results['summary']) else ''
    )
    assert f'{label_count(row["labels"])} {name} {row["dice"]:.3f} {low:.3f} to {high:.3f}' in text
  for cell in results['cells']:
    name = f'{cell["method"]} {label_count(cell["labels"])} {cell["seed"]}'
    assert f'{name} {cell["dice"]:.3f} 0.400 {cell["accuracy"]:.3f} -' in text
  assert 'Scores of each of the 18 cells' in text and '"seed": 5' in text


def test_page_says_where_methods_have_unequal_numbers_of_seeds(page, tmp_path):
  results = make_results()
  results['summary'][0]['seeds'] = 1
  path = tmp_path / 'report.html'
  report.write_report(results, [], report.Shown([], []), path)
  text = Page(path.read_text(encoding='utf-8')).text
  assert (
    '1 to 3 seeds' in text
    and 'unequal numbers of seeds' in text
    and 'Where there is one seed' in text
  )
  assert '20 scratch 1 ' in text and '20 uniform 3 ' in text and text.count(' best ') == 1
  assert '· 3 seeds' in Page(page).text and 'unequal numbers' not in Page(page).text


def test_page_shows_agents_examples_and_curves(page):
  text = Page(page).text
  assert re.search(r'Difficulty rank correlation .*? 0\.48 0\.48', text)
  assert re.search(r'Border lift .*? - -', text)
  assert 'image1 Dice 0.88' in text and 'Sampled mask, 62 % of patches' in text
  assert re.search(
    r' Where each strategy masks .* How the policy moved .* Held-out images .* image1 '
    r'.* Failures .* worst Dice ',
    text,
  )
  for heading in (
    'Pre-training',
    'Segmentation, 20 labels',
    'Segmentation, all labels',
    'Classification, 20 labels',
  ):
    assert f' {heading} ' in text
  assert ' Unknown ' not in text  # None of its metrics is known.
  assert page.count('Validation Dice over training steps') == 1
  assert page.count('Hardness ratio over training steps') == 1


def test_means_over_numbers_of_labels_come_first_and_in_the_table(tmp_path):
  results = make_results(gain=0.1)
  cells = [
    cell | {'labels': labels}
    for cell in results['cells']
    for labels in (20, 50)
    if cell['labels'] == 20
  ]
  per_image = {
    (cell['method'], cell['labels'], cell['seed']): {
      'a': cell['dice'] + 0.02,
      'b': cell['dice'],
      'c': cell['dice'],
    }
    for cell in cells
  }
  counts = compare.over_labels(cells)
  means = compare.summarise_grid(
    compare.averaged_cells(cells, counts), compare.averaged(per_image, counts), 200
  )
  report.write_report(
    results | {'over_labels': means}, [], report.Shown(), tmp_path / 'report.html'
  )
  page = (tmp_path / 'report.html').read_text(encoding='utf-8')
  headline = re.search(r'class="headline">([^<]*)<', page)[1]
  assert headline.startswith(
    'On average over 20 and 50 labelled images, adaptive hard masking gained 10.'
  )
  assert Page(page).text.count('mean of 20, 50') == 3


def test_page_says_that_no_difference_was_shown(tmp_path):
  report.write_report(make_results(gain=0.0), [], report.Shown(), tmp_path / 'report.html')
  headline = re.search(
    r'class="headline">([^<]*)<', (tmp_path / 'report.html').read_text(encoding='utf-8')
  )[1]
  assert (
    'no difference was shown between adaptive hard masking and training from scratch' in headline
  )


def test_one_seed_is_said(tmp_path):
  report.write_report(make_results(seeds=1), [], report.Shown(), tmp_path / 'report.html')
  assert (
    'covers the choice of images and not the spread between runs'
    in Page((tmp_path / 'report.html').read_text('utf-8')).text
  )


@pytest.mark.parametrize('methods', [('scratch',), ('ahm',)])
def test_a_grid_without_a_comparison_has_a_page(tmp_path, methods):
  report.write_report(make_results(methods=methods), [], report.Shown(), tmp_path / 'report.html')
  assert Page((tmp_path / 'report.html').read_text('utf-8')).open == []
