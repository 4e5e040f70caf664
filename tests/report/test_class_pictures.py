import numpy as np
import pytest

from ahm_jax.evaluation import compare
from ahm_jax.report import class_pictures, pictures
from ahm_jax.report import page as report
from ahm_jax.report.class_pictures import class_overlay, class_swatch

CLASSES = 12


def grey(picture):
  return np.asarray(picture, np.float32) @ np.array((0.299, 0.587, 0.114), np.float32)


def test_background_is_left_alone_and_classes_are_where_the_mask_is():
  image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
  mask = np.zeros((32, 48), np.uint8)  # Half the picture's size.
  mask[4:12, 4:20], mask[20:30, 24:40] = 1, 2
  shown = class_overlay(image, mask)
  assert shown.shape == image.shape and shown.dtype == np.uint8
  stretched = mask.repeat(2, 0).repeat(2, 1)
  np.testing.assert_array_equal(shown[stretched == 0], image[stretched == 0])
  for k in (1, 2):
    there = shown[stretched == k].astype(float)
    colour = class_pictures.COLOURS[k - 1]
    fill = there[(there.min(1) > 0) & (there.max(1) < 255)]  # Without lines and border.
    greys = grey(image[stretched == k])
    np.testing.assert_allclose(fill.mean(0), 0.65 * colour + 0.35 * greys.mean(), atol=12)
    assert len(fill) > 0.4 * len(there)
  np.testing.assert_array_equal(class_overlay(image, 0 * mask), image)


def test_classes_that_touch_have_a_border_between_them():
  mask = np.ones((40, 40), np.uint8)
  mask[:, 20:] = 2
  shown = class_overlay(np.full((40, 40, 3), 128, np.uint8), mask)
  assert (shown[:, 19] == 0).all() and (shown[:, 20] == 255).all()


@pytest.mark.parametrize('ground', [0, 90, 255])
def test_lines_show_without_colour_over_dark_and_light_images(ground):
  """In grey, the lines of each class differ from its fill by 40 levels at least."""
  image = np.full((60, 60, 3), ground, np.uint8)
  for k in range(1, len(class_pictures.COLOURS) + 1):
    levels = np.unique(grey(class_overlay(image, np.full((60, 60), k, np.uint8))).round())
    assert len(levels) == 2 and levels[1] - levels[0] > 40, k


def test_patterns_and_colours_differ():
  """Without colour, six classes can be told by their lines; with it, 42."""
  swatches = [class_swatch(k, 40, 40) for k in range(1, 43)]
  lines = [np.isin(swatch[1:-1, 1:-1], (0, 255)).all(-1) for swatch in swatches]
  for a in range(6):
    for b in range(a):
      assert (lines[a] != lines[b]).mean() > 0.1, (a, b)
  assert len({swatch.tobytes() for swatch in swatches}) == 42


def make_example(name='one'):
  truth = np.zeros((40, 60), np.uint8)
  truth[5:20, 5:30], truth[25:35, 30:50] = 1, 2
  image = np.full((32, 32, 3), 200, np.uint8)
  hidden = np.eye(4, dtype=bool)
  dice = {'disc': 0.75, 'cup': float('nan')}
  return pictures.Example(
    image, hidden * 0.6, hidden, image, truth, np.roll(truth, 5, 1), name, 0.75, dice
  )


def test_panels_of_classes():
  shown = pictures.panels(make_example(), side=90)
  assert tuple(shown) == pictures.CLASS_PANELS
  assert all(picture.shape == (60, 90, 3) for picture in shown.values())
  changed = [(shown[name] != 200).any(-1) for name in ('truth', 'prediction')]
  assert (
    changed[0].sum() == pytest.approx(changed[1].sum(), rel=0.1)
    and (changed[0] != changed[1]).any()
  )


def make_results(names):
  rng = np.random.default_rng(0)
  cells, per_image, by_class = [], {}, {name: {} for name in names}
  for method in ('scratch', 'ahm'):
    key = method, 20, 0
    for name in names:
      by_class[name][key] = {str(i): float(rng.uniform(0.4, 0.7)) for i in range(20)}
    per_image[key] = {str(i): 0.5 for i in range(20)}
    mean = {name: float(np.mean(list(by_class[name][key].values()))) for name in names}
    cells.append(
      {'method': method, 'labels': 20, 'seed': 0, 'dice': 0.5}
      | ({'dice_by_class': mean} if names else {})
    )
  summary = compare.summarise_grid(cells, per_image, 200, by_class=by_class)
  return {
    'dataset': 'x',
    'split': 'test',
    'config': {},
    'cells': cells,
    'summary': summary,
    'agent': {},
  }


def test_the_report_has_a_table_and_a_legend_of_classes(tmp_path):
  results = make_results(('disc', 'cup'))
  report.write_report(
    results, [], report.Shown([make_example()], [make_example('worst')]), tmp_path / 'report.html'
  )
  page = (tmp_path / 'report.html').read_text('utf-8')
  for row in results['summary']:
    for name, value in row['dice_by_class'].items():
      low, high = row['dice_by_class_ci95'][name]
      assert f'<td>{value:.3f}<small>{low:.3f} to {high:.3f}</small></td>' in page
  assert '<span>Dice 0.75, disc 0.75, cup -</span>' in page
  for k, name in enumerate(('disc', 'cup'), 1):
    swatch = pictures.data_uri(class_swatch(k))
    item = f'<li><img src="{swatch}" alt="colour and pattern of {name}"> {name}</li>'
    assert page.count(item) == 2  # One a group.
  assert '<th scope="col">dice by class disc</th>' in page
  assert 'alt="True classes on image worst"' in page and 'true border on image' not in page


def test_a_report_of_binary_masks_speaks_of_no_classes(tmp_path):
  report.write_report(make_results(()), [], report.Shown(), tmp_path / 'report.html')
  page = (tmp_path / 'report.html').read_text('utf-8')
  assert 'Dice of each class' not in page and 'legend' not in page.split('</style>')[1]
