"""The report's viewer: what it holds, and that the page around it is sound.

What it does is in test_viewer_browser.py.
"""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from ahm_jax.report import page as report
from ahm_jax.report import pictures, viewer

NASTY = '</script><script>alert(1)</script><!--<img src=x onerror=alert(2)>'
NAN = float('nan')


def make_entry(name='one', dice=(0.5, 0.75), side=8, classes=False):
  truth = np.zeros((10, 20), np.uint8 if classes else bool)
  truth[2:6, 4:14] = 1  # 40 of 200 pixels.
  prediction = np.roll(truth, 5, 1)  # Half of it is right.
  image = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
  hidden = np.eye(2, dtype=bool)
  pretrained = viewer.Made(
    prediction, dice[1], viewer.Masking(np.array([[0.25, 0.5], [1, 0.75]]), hidden, image)
  )
  return viewer.entry(
    name, image, truth, [('scratch', viewer.Made(prediction, dice[0])), ('ahm', pretrained)]
  )


def write(path, entries, count=None, runs=('scratch', 'ahm')):
  results = {
    'dataset': 'x',
    'split': 'test',
    'config': {},
    'cells': [],
    'summary': [],
    'agent': {run: {} for run in runs},
  }
  shown = report.Shown(viewer=viewer.Viewer(runs, 20, 3, entries, count or len(entries)))
  report.write_report(results, [], shown, path)
  return path.read_text('utf-8')


class Tags(HTMLParser):
  """Tags with their attributes, and the text of each script."""

  def __init__(self, html):
    super().__init__()
    self.tags, self.scripts, self._in_script = [], [], False
    self.feed(html)

  def handle_starttag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))
    self._in_script = tag == 'script'
    if self._in_script:
      self.scripts.append('')

  def handle_endtag(self, _tag):
    self._in_script = False

  def handle_data(self, data):
    if self._in_script:
      self.scripts[-1] += data


def test_the_worst_and_random_ones_are_chosen_by_turns():
  dice = [0.9, 0.1, NAN, 0.5, 0.3, 0.7]
  order = viewer.chosen(dice, 6)
  assert sorted(order) == list(range(6)) and order[0] == 1
  assert viewer.chosen(dice, 4) == order[:4] and viewer.chosen(dice, 99) == order
  drawn = np.random.default_rng(0).permutation(6).tolist()
  assert order[1] == next(i for i in drawn if i != 1)
  assert viewer.chosen([NAN, NAN], 2) == np.random.default_rng(0).permutation(2).tolist()
  many = viewer.chosen(np.linspace(0, 1, 1000), 100)
  assert set(range(45)) <= set(many) and np.mean(np.sort(many)[50:]) == pytest.approx(500, abs=120)


def test_alternative_texts_say_what_one_sees():
  item = make_entry()
  scratch, ahm = (run['layers'] for run in item['runs'])
  assert item['layers']['image']['alt'] == 'Image one, 20 by 10 pixels.'
  assert item['layers']['truth']['alt'] == 'The true mask on image one: 20.0 % of it.'
  assert set(scratch) == {'prediction', 'error'} and len(ahm) == 5
  assert scratch['prediction']['alt'] == 'What scratch found in image one: 20.0 % of it.'
  assert (
    ahm['error']['alt']
    == 'Where ahm is wrong in image one: 10.0 % of it found but not there, 10.0 % missed.'
  )
  assert (
    ahm['policy']['alt'] == 'How likely ahm is to mask each patch of image one: from 0.25 to 1.00.'
  )
  assert (
    ahm['hidden']['alt']
    == 'One mask that ahm sampled for image one: 50 % of the patches are masked (grey).'
  )
  assert ahm['reconstruction']['base'].startswith('data:image/jpeg;base64,')
  assert 'taken for another class' in make_entry(classes=True)['runs'][0]['layers']['error']['alt']


def test_nothing_at_all_is_said_so():
  empty = np.zeros((4, 4), bool)
  item = viewer.entry(
    'none', np.zeros((4, 4, 1), np.uint8), empty, [('scratch', viewer.Made(empty, NAN))]
  )
  assert item['runs'][0]['dice'] is None
  assert item['layers']['truth']['alt'] == 'The true mask on image none: nothing.'
  assert 'nowhere, there is no lesion' in item['runs'][0]['layers']['error']['alt']


def test_the_page_is_self_contained_and_lets_only_its_own_script_run(tmp_path):
  page = write(tmp_path / 'report.html', [make_entry()])
  parsed = Tags(page)
  for tag, attributes in parsed.tags:
    assert all(
      attributes.get(name, 'data:').startswith('data:')
      for name in ('src', 'href', 'srcset', 'action')
    ), tag
    assert not [name for name in attributes if name.startswith('on')]
  data, code = parsed.scripts
  assert json.loads(data)['runs'] == ['scratch', 'ahm']
  digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
  policy = next(
    attributes['content'] for _, attributes in parsed.tags if 'http-equiv' in attributes
  )
  assert f"script-src 'sha256-{digest}'" in policy and "default-src 'none'" in policy
  assert 'http' not in code


def test_controls_have_names_and_ids_are_unique(tmp_path):
  page = write(tmp_path / 'report.html', [make_entry()])
  tags = Tags(page).tags
  ids = [attributes['id'] for _, attributes in tags if 'id' in attributes]
  assert len(ids) == len(set(ids))
  assert [
    attributes['for'] for tag, attributes in tags if tag == 'label' and 'for' in attributes
  ] == ['viewer-sort']
  assert page.count('<label><input type="radio"') == sum(tag == 'input' for tag, _ in tags) == 7 + 2
  assert page.count('<fieldset>') == page.count('<legend>') == 2
  assert [
    attributes['aria-labelledby'] in ids
    for _, attributes in tags
    if 'aria-labelledby' in attributes
  ] == [True]
  images = [
    attributes for tag, attributes in tags if tag == 'img' and attributes.get('data-part') != 'over'
  ]
  assert all(attributes['alt'] for attributes in images)
  assert [attributes['aria-live'] for _, attributes in tags if 'aria-live' in attributes] == [
    'polite'
  ]


def test_hostile_names_stay_inside_the_data(tmp_path):
  page = write(tmp_path / 'report.html', [make_entry(NASTY)], runs=('scratch', NASTY))
  parsed = Tags(page)
  assert len(parsed.scripts) == 2 and 'alert' not in parsed.scripts[1]
  held = json.loads(parsed.scripts[0])
  assert held['images'][0]['name'] == held['runs'][1] == NASTY
  assert not [tag for tag, attributes in parsed.tags if 'onerror' in attributes]


def test_a_page_stays_under_its_limit_and_says_what_it_left_out(tmp_path, monkeypatch):
  assert report.PAGE_BYTES == 10 * 2**20
  monkeypatch.setattr(report, 'PAGE_BYTES', 200_000)
  entries = [make_entry(f'image{i}', side=64) for i in range(40)]
  page = write(tmp_path / 'report.html', entries, count=1000)
  held = json.loads(Tags(page).scripts[0])['images']
  assert 0 < len(held) < 40 and [item['name'] for item in held] == [
    f'image{i}' for i in range(len(held))
  ]
  size = (tmp_path / 'report.html').stat().st_size
  assert 200_000 - 2 * len(json.dumps(entries[0])) < size <= 200_000
  assert re.search(
    rf'{len(held)} of the 1000 images of the test split .* 20 labels and seed 3\.',
    ' '.join(page.split()),
  )
  monkeypatch.setattr(report, 'PAGE_BYTES', 0)
  assert 'viewer-data' not in write(tmp_path / 'report.html', entries)


def test_examples_leave_room(tmp_path, monkeypatch):
  monkeypatch.setattr(report, '_GALLERY_BYTES', 0)
  hidden, mask = np.eye(2, dtype=bool), np.ones((4, 4), bool)
  image = np.zeros((4, 4, 3), np.uint8)
  example = pictures.Example(image, hidden * 0.5, hidden, image, mask, mask, 'one', 1.0)
  results = {'dataset': 'x', 'split': 'test', 'config': {}, 'cells': [], 'summary': [], 'agent': {}}
  report.write_report(results, [], report.Shown([example]), tmp_path / 'report.html')
  assert 'Held-out images' not in (tmp_path / 'report.html').read_text('utf-8')


def test_modalities_are_layers(tmp_path):
  names = ('flair', 't1', 't2', '"><b>')
  image = np.random.default_rng(0).integers(0, 256, (8, 8, 4), np.uint8)
  truth = np.zeros((8, 8), bool)
  made = [('scratch', viewer.Made(truth, NAN))]
  found = viewer.entry('one', image, truth, made, names)
  own = {key: layer for key, layer in found['layers'].items() if key.startswith('modality')}
  assert [layer['alt'] for layer in own.values()] == [f'{name} of image one.' for name in names]
  for k, layer in enumerate(own.values()):
    assert layer['base'] == pictures.data_uri(np.repeat(image[..., k : k + 1], 3, -1))
  assert found['image'] == own['modality0']['base']
  page = viewer.Viewer(['scratch'], 20, 3, [found], 1, names)
  assert page.layers == (*viewer.LAYERS, *((f'modality{k}', names[k], True) for k in range(4)))
  results = {'dataset': 'x', 'split': 'test', 'config': {'data': {'modalities': names[:2]}}}
  results |= {'cells': [], 'summary': [], 'agent': {'scratch': {}}}
  report.write_report(results, [], report.Shown(viewer=page), tmp_path / 'report.html')
  text = (tmp_path / 'report.html').read_text('utf-8')
  assert '"><b>' not in text
  radios = [tag for _, tag in Tags(text).tags if tag.get('name') == 'viewer-layer']
  assert [radio['value'] for radio in radios] == [key for key, *_ in page.layers]
  assert '<kbd>9</kbd> for the layers' in text
