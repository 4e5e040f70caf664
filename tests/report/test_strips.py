"""Pseudo-masks and failures on the report's page."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from ahm_jax.evaluation.tables import COLUMNS
from ahm_jax.report import failures, pseudo_masks
from ahm_jax.report import page as report
from ahm_jax.report.failures import Failure, Failures
from ahm_jax.report.pseudo_masks import Course, Watched
from tests.report.made_up import NASTY
from tests.report.test_page import Page, make_example

SIDE = 16
STEPS = (10, 40, 160)


def make_truth(classes=()):
  truth = np.zeros((SIDE, SIDE), np.uint8 if classes else bool)
  truth[4:12, 4:12] = 1
  return truth


def make_course(method='ahm', known=(True, False), classes=(), own_teacher=True):
  """At the first step nothing is found, then half of the lesion, then all of it."""
  truth = make_truth(classes)
  half = np.where(np.arange(SIDE) < 8, truth, 0).astype(truth.dtype)
  masks = dict(zip(STEPS, (0 * half, half, truth), strict=True))
  found = masks if classes else {step: np.float32(0.8) * mask for step, mask in masks.items()}
  image = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), np.uint8)
  images = [
    Watched(f'{method}{i}', image, truth if has else None, found) for i, has in enumerate(known)
  ]
  return Course(method, 20, 3, own_teacher, images, 0.5, classes)


def make_failures(method='scratch', classes=()):
  truth = make_truth(classes)
  image = np.zeros((SIDE, SIDE, 1), np.uint8)
  found = [Failure(image, truth, np.roll(truth, 4, 1), f'{method}{i}', i / 10) for i in range(3)]
  return Failures(method, 0, 1, found)


def write(path, classes=(), **shown):
  """The page of a grid that has no scores but those of classes."""
  row = {'method': 'ahm', 'labels': 20, 'dice': None, 'dice_ci95': None, 'seeds': 1}
  row |= {'images': 9, 'groups': 9, 'vs_scratch': None, 'vs_uniform': None, 'vs_ahm': None}
  row |= dict.fromkeys([name for name, _, _ in COLUMNS])
  row |= {'dice_by_class': dict.fromkeys(classes), 'dice_by_class_ci95': dict.fromkeys(classes)}
  results = {'dataset': 'x', 'split': 'test', 'config': {}, 'cells': [], 'agent': {}}
  results['summary'] = [row] if classes else []
  report.write_report(results, [], report.Shown(**shown), path / 'report.html')
  return Page((path / 'report.html').read_text('utf-8'))


def pixels(figure):
  return np.asarray(Image.open(io.BytesIO(base64.b64decode(figure['src'].split(',')[1]))), int)


def test_the_page_shows_pseudo_masks_with_their_steps_and_dice(tmp_path):
  page = write(tmp_path, courses=[make_course(), make_course('scratch', own_teacher=False)])
  assert page.open == []
  (text,) = re.findall(r'Pseudo-masks over training (.*?) Every run', page.text)
  steps = 'Step 10, Dice 0.00 Step 40, Dice 0.67 Step 160, Dice 1.00'
  known, unknown = f'Image {steps} True mask', 'Image Step 10 Step 40 Step 160'
  for method in ('ahm', 'scratch'):
    assert f'{method} 20 labels, seed 3 ' in text
    assert f'{method}0 {known} {method}1 {unknown}' in text
  assert text.count('Its teacher is another network') == 1
  alts = [attributes['alt'] for tag, attributes in page.tags if tag == 'img']
  assert alts.count('Pseudo-mask of image ahm0 at step 40: 12.5 % of it') == 1
  assert alts.count('Pseudo-mask of image ahm1 at step 10: nothing') == 1
  rows = [each['style'] for _, each in page.tags if each.get('class') == 'row' and 'style' in each]
  assert rows == ['--columns: 5'] * 4


def test_a_heat_map_has_the_borders_that_are_known():
  course = make_course()
  first, half, *_ = (pixels(figure) for figure in pseudo_masks.view(course)['rows'][0]['figures'])
  known, unknown = (pixels(row['figures'][2]) for row in pseudo_masks.view(course)['rows'])

  def border(picture, colour):
    return (np.abs(picture - colour).max(-1) < 60).sum()

  assert border(known, report.pictures.TRUTH_COLOUR) > 300
  assert border(unknown, report.pictures.TRUTH_COLOUR) < 30
  for picture in (known, unknown):
    assert border(picture, report.pictures.PREDICTION_COLOUR) > 100
  assert first.shape == half.shape == (pseudo_masks.SIDE, pseudo_masks.SIDE, 3)


def test_classes_have_their_colours_and_a_legend(tmp_path):
  classes = 'disc', 'cup'
  course, others = make_course(classes=classes), [make_failures(classes=classes)]
  page = write(tmp_path, classes, courses=[course], others=others)
  assert page.text.count(' disc cup ') == 2 and 'the most probable class is shown' in page.text
  assert page.open == [] and 'Step 40, Dice 0.67' in page.text
  figures = pseudo_masks.view(course)['rows'][0]['figures']
  np.testing.assert_array_equal(pixels(figures[3]), pixels(figures[4]))  # All of it is found.
  assert 'scratch0, Dice 0.00, true scratch0, Dice 0.00, predicted' in page.text


def test_images_without_lesion_have_no_dice():
  course = make_course(known=(True,))
  empty = Watched('x', course.images[0].image, make_truth() & False, course.images[0].found)
  row = pseudo_masks._figures(course, empty)
  assert [figure['caption'] for figure in row[1:3]] == ['Step 10, both empty', 'Step 40, Dice 0.00']


def test_failures_of_the_other_methods(tmp_path):
  page = write(tmp_path, failures=[make_example('worst')], others=[make_failures()])
  assert page.open == []
  assert re.search(
    r' Failures of other methods .* scratch all labels, seed 1 '
    r'scratch0, Dice 0.00 scratch1, Dice 0.10 scratch2, Dice 0.20 ',
    page.text,
  )
  page = write(tmp_path, others=[make_failures()])
  assert ' Failures The held-out images of the lowest Dice ' in page.text


def test_the_lowest_dice_comes_first_and_what_has_none_is_left_out():
  assert failures.worst([0.5, float('nan'), 0.1, 0.9, 0.3], 3) == [2, 4, 0]
  assert failures.worst([float('nan')], 3) == []


def test_without_any_there_is_no_figure(tmp_path):
  text = write(tmp_path, failures=[make_example('worst')]).text
  assert 'has room for' not in text
  assert 'Pseudo-mask' not in text and 'other methods' not in text


@pytest.mark.parametrize('name', [NASTY, '"><svg onload=alert(1)>'])
def test_hostile_names_stay_text(tmp_path, name):
  page = write(tmp_path, courses=[make_course(name)], others=[make_failures(name)])
  assert page.open == [] and page.text.count(name) >= 6
  assert all(tag != 'script' and 'onload' not in attributes for tag, attributes in page.tags)


def test_no_more_methods_than_the_page_has_room_for(tmp_path, monkeypatch):
  monkeypatch.setattr(report, '_STRIP_BYTES', 2 * 10**5)
  page = write(tmp_path, courses=[make_course(f'm{i}') for i in range(5)])
  shown = page.text.count('20 labels, seed 3')
  assert 0 < shown < 5 and f'The page has room for {shown} of 5 methods.' in page.text
