import math

import numpy as np
import pytest
from scipy import stats

from ahm_jax.errors import UserError
from ahm_jax.evaluation import compare, tables
from tests.evaluation.made_up import grid


def by_key(summary):
  return {(row['method'], row['labels']): row for row in summary}


def test_means_and_differences_by_hand():
  dice = {
    ('ahm', 20): [[0.8, 0.6, 0.4], [0.7, 0.7, 0.7]],
    ('scratch', 20): [[0.5, 0.5, 0.5], [0.6, 0.6, 0.3]],
    ('uniform', 20): [[0.6, 0.6, 0.6], [0.8, 0.5, 0.2]],
  }
  summary = by_key(compare.summarise_grid(*grid(dice), samples=200))
  ahm, scratch = summary['ahm', 20], summary['scratch', 20]
  assert ahm['dice'] == pytest.approx((0.6 + 0.7) / 2)
  assert ahm['vs_scratch'] == pytest.approx(0.65 - 0.5)
  assert ahm['vs_uniform'] == pytest.approx(0.65 - 0.55)
  assert scratch['vs_uniform'] == pytest.approx(0.5 - 0.55)
  assert scratch['vs_scratch'] is None and scratch['vs_scratch_ci95'] is None
  for name in ('dice', 'vs_scratch', 'vs_uniform'):
    low, high = ahm[f'{name}_ci95']
    assert low < ahm[name] < high
  assert (ahm['seeds'], ahm['images'], ahm['interval_covers']) == (2, 3, 'seeds and images')


def test_means_over_numbers_of_labels_by_hand():
  """All labels do not count among them, and an image that one of them does not score is left
  out.
  """
  dice = {
    ('ahm', 20): [[0.8, 0.6, 0.5], [0.7, 0.7, 0.7]],
    ('ahm', 50): [[0.9, 0.8, 0.6], [0.8, np.nan, 0.6]],
    ('scratch', 20): [[0.5, 0.5, 0.5], [0.6, 0.6, 0.3]],
    ('scratch', 50): [[0.7, 0.6, 0.5], [0.6, 0.5, 0.6]],
    ('ahm', 0): [[0.1, 0.1, 0.1]],
    ('scratch', 0): [[0.9, 0.9, 0.9]],
  }
  iou = {key: np.nanmean(values, axis=1) / 2 for key, values in dice.items()} | {
    ('scratch', 50): [np.nan, 0.3]
  }
  cells, per_image = grid(dice, iou=iou)
  counts = compare.over_labels(cells)
  assert counts == (20, 50)
  rows = compare.summarise_grid(
    compare.averaged_cells(cells, counts), compare.averaged(per_image, counts), samples=200
  )
  ahm, scratch = rows
  assert [(row['method'], row['labels'], row['seeds']) for row in rows] == [
    ('ahm', counts, 2),
    ('scratch', counts, 2),
  ]
  assert ahm['dice'] == pytest.approx(((0.85 + 0.7 + 0.55) / 3 + (0.75 + 0.65) / 2) / 2)
  assert scratch['dice'] == pytest.approx(((0.6 + 0.55 + 0.5) / 3 + (0.6 + 0.55 + 0.45) / 3) / 2)
  assert ahm['vs_scratch'] == pytest.approx(((0.25 + 0.15 + 0.05) / 3 + (0.15 + 0.2) / 2) / 2)
  assert ahm['iou'] == pytest.approx(np.mean([iou['ahm', 20], iou['ahm', 50]]))
  assert scratch['iou'] == pytest.approx((iou['scratch', 20][1] + 0.3) / 2)
  assert 'mean of 20, 50' in tables.table(
    compare.summarise_grid(cells, per_image, samples=200), rows
  )


def test_means_are_over_numbers_of_labels_that_all_have():
  values = np.linspace(0, 1, 6).reshape(2, 3)
  three = {('ahm', labels): values for labels in (10, 20, 50)}
  assert compare.over_labels(grid(three)[0]) == (10, 20, 50)
  assert compare.over_labels(
    grid(three | {('hpm', labels): values for labels in (20, 50, 0)})[0]
  ) == (20, 50)
  cells, per_image = grid(three | {('hpm', 20): values})
  assert compare.over_labels(cells) == compare.over_labels([]) == ()
  assert compare.averaged(per_image, ()) == {}
  later = {key: found for key, found in per_image.items() if key != ('ahm', 50, 1)}
  assert list(compare.averaged(later, (20, 50))) == [('ahm', (20, 50), 0)]


def test_order_is_labels_with_all_last_then_methods_as_given():
  values = np.linspace(0, 1, 6).reshape(2, 3)
  dice = {(method, labels): values for method in ('scratch', 'ahm') for labels in (0, 50, 20)}
  order = [
    (row['labels'], row['method']) for row in compare.summarise_grid(*grid(dice), samples=100)
  ]
  assert order == [
    (20, 'scratch'),
    (20, 'ahm'),
    (50, 'scratch'),
    (50, 'ahm'),
    (0, 'scratch'),
    (0, 'ahm'),
  ]


def test_one_seed_gives_the_images_interval_and_says_so():
  rng = np.random.default_rng(0)
  values, other = rng.uniform(0.3, 0.9, (2, 80))
  row = by_key(
    compare.summarise_grid(*grid({('ahm', 20): values, ('scratch', 20): other}), samples=20000)
  )['ahm', 20]
  assert row['interval_covers'] == 'images' and row['seeds'] == 1
  for key, sample in (('dice_ci95', values), ('vs_scratch_ci95', values - other)):
    expected = stats.t.interval(0.95, 79, sample.mean(), stats.sem(sample))
    np.testing.assert_allclose(row[key], expected, atol=0.002)
  assert row['iou'] is None and row['accuracy_ci95'] is None


@pytest.mark.parametrize('count', [2, 3, 6])
def test_few_groups_of_images_give_the_t_interval_of_their_means(count):
  """Five images a group that do not differ within it: there are as many independent scores as
  groups.
  """
  means = np.random.default_rng(count).uniform(0.48, 0.52, count)
  cells, per_image = grid({('ahm', 20): np.repeat(means, 5)})
  groups = {f'image{i}': i // 5 for i in range(5 * count)}
  row = compare.summarise_grid(cells, per_image, samples=40000, groups=groups)[0]
  expected = stats.t.interval(0.95, count - 1, means.mean(), stats.sem(means))
  width = expected[1] - expected[0]
  np.testing.assert_allclose(row['dice_ci95'], expected, atol=0.01 * width)


def test_seeds_alone_give_the_t_interval():
  """Where images do not differ, all the spread is the seeds', and the interval is Student's."""
  means = np.array([0.61, 0.70, 0.66])
  row = compare.summarise_grid(
    *grid({('ahm', 20): np.repeat(means[:, None], 40, 1)}), samples=40000
  )[0]
  expected = stats.t.interval(0.95, 2, means.mean(), stats.sem(means))
  np.testing.assert_allclose(row['dice_ci95'], expected, atol=0.003)


def test_pairing_cancels_what_both_sides_share():
  rng = np.random.default_rng(0)
  shared = rng.uniform(0.2, 0.8, (3, 50))
  row = by_key(compare.summarise_grid(*grid({('ahm', 20): shared + 0.1, ('scratch', 20): shared})))[
    'ahm', 20
  ]
  np.testing.assert_allclose([row['vs_scratch'], *row['vs_scratch_ci95']], 0.1, atol=1e-9)
  assert row['dice_ci95'][1] - row['dice_ci95'][0] > 0.05


def test_images_without_dice_are_left_out_and_of_a_difference_on_both_sides():
  values = np.array([[0.5, np.nan, 0.7], [0.6, np.nan, 0.8]])
  # A false alarm on an image without lesion.
  other = np.array([[0.4, np.nan, 0.4], [0.4, 0.0, 0.5]])
  summary = by_key(
    compare.summarise_grid(*grid({('ahm', 20): values, ('scratch', 20): other}), samples=500)
  )
  assert summary['ahm', 20]['dice'] == pytest.approx((0.6 + 0.7) / 2)
  assert summary['scratch', 20]['dice'] == pytest.approx((0.4 + 0.3) / 2)
  assert summary['ahm', 20]['vs_scratch'] == pytest.approx((0.1 + 0.3 + 0.2 + 0.3) / 4)
  assert np.isfinite(summary['ahm', 20]['vs_scratch_ci95']).all()


def test_a_group_counts_as_one():
  """Four slices of each of 30 patients, all alike, say no more than one slice each.

  Drawn singly they would seem to.
  """
  rng = np.random.default_rng(0)
  patients = rng.uniform(0.3, 0.9, (2, 1, 30))
  arms = (('ahm', 20), ('scratch', 20))
  one = grid(dict(zip(arms, patients, strict=True)))
  four = grid(dict(zip(arms, np.repeat(patients, 4, axis=2), strict=True)))
  groups = {f'image{i}': i // 4 for i in range(120)}
  expected, single = (by_key(compare.summarise_grid(*cells))['ahm', 20] for cells in (one, four))
  row = by_key(compare.summarise_grid(*four, groups=groups))['ahm', 20]
  assert (row['images'], row['groups'], row['interval_covers']) == (120, 30, 'groups')
  assert (single['images'], single['groups'], single['interval_covers']) == (120, 120, 'images')
  for name in ('dice', 'vs_scratch'):
    assert row[name] == pytest.approx(expected[name])
    widths = [np.diff(found[f'{name}_ci95'])[0] for found in (row, expected, single)]
    assert widths[0] == pytest.approx(widths[1], rel=0.1) and widths[2] == pytest.approx(
      widths[0] / 2, rel=0.1
    )
  assert '30 groups of images' in tables.table([row])


@pytest.mark.parametrize('seeds', [1, 3])
def test_one_group_has_no_interval(seeds):
  """Nothing is known of how much groups differ."""
  cells = grid({('ahm', 20): [[0.5 + 0.01 * seed, 0.7 - 0.01 * seed] for seed in range(seeds)]})
  row = compare.summarise_grid(*cells, groups={'image0': 5, 'image1': 5})[0]
  assert (row['dice'], row['dice_ci95'], row['groups']) == (pytest.approx(0.6), None, 1)


def test_groups_that_no_seed_scores_are_not_counted():
  """What is known of one image is no interval, however many others were left out."""
  for values, groups in (
    ([0.5, np.nan], {}),
    ([0.5, 0.7, np.nan], {'image0': 0, 'image1': 0, 'image2': 1}),
  ):
    row = compare.summarise_grid(*grid({('ahm', 20): [values]}), groups=groups)[0]
    assert (row['dice'], row['dice_ci95']) == (pytest.approx(np.nanmean(values)), None)
  rng = np.random.default_rng(0)
  known = rng.uniform(size=(1, 12))
  more = np.concatenate([known, np.full((1, 30), np.nan)], axis=1)
  rows = [
    compare.summarise_grid(*grid({('ahm', 20): values}), samples=4000)[0]
    for values in (known, more)
  ]
  np.testing.assert_allclose(rows[0]['dice_ci95'], rows[1]['dice_ci95'], atol=0.02)


def test_what_is_only_fine_tuned_otherwise_is_no_pretraining():
  values = np.array([[0.5, 0.6], [0.7, 0.6]])
  tuned = 'scratch:segment.learning_rate=1e-3'
  summary = compare.summarise_grid(
    *grid({('scratch', 20): values, ('ahm', 20): values, (tuned, 20): values + 0.1}), samples=100
  )
  assert compare.baselines(summary) == ['scratch']
  assert 'fine-tuned with the settings of the config itself' in tables.table(summary)
  assert 'fine-tuned' not in tables.table(summary[:2])


def test_no_dice_at_all_is_none():
  row = compare.summarise_grid(*grid({('ahm', 20): np.full((2, 3), np.nan)}))[0]
  assert row['dice'] is None and row['dice_ci95'] is None
  lone = compare.summarise_grid(*grid({('ahm', 20): [[0.5]]}))[0]
  assert lone['dice'] == 0.5 and lone['dice_ci95'] is None


def test_differences_use_the_seeds_that_both_have():
  dice = {('ahm', 20): [[0.5, 0.6], [0.9, 0.8]], ('scratch', 20): [[0.4, 0.4]]}
  row = by_key(compare.summarise_grid(*grid(dice), samples=200))['ahm', 20]
  assert row['dice'] == pytest.approx(0.7)
  assert row['vs_scratch'] == pytest.approx(0.55 - 0.4)


def test_other_scores_have_t_intervals_over_seeds():
  values = np.full((3, 4), 0.5)
  accuracy = {('ahm', 20): [0.80, 0.82, 0.90], ('scratch', 20): [0.70, 0.76, 0.79]}
  balanced = {('ahm', 20): [0.5, 0.6, 0.4], ('scratch', 20): [0.45, 0.5, 0.35]}
  auc = {('ahm', 20): [0.8, math.nan, None], ('scratch', 20): [0.7, 0.8, 0.9]}
  cells, per_image = grid(
    {('ahm', 20): values, ('scratch', 20): values},
    accuracy=accuracy,
    balanced_accuracy=balanced,
    auc=auc,
  )
  row = by_key(compare.summarise_grid(cells, per_image, samples=100))['ahm', 20]
  own, other = np.array(accuracy['ahm', 20]), np.array(accuracy['scratch', 20])
  np.testing.assert_allclose(row['accuracy'], own.mean())
  low, high = stats.t.interval(0.95, 2, own.mean(), stats.sem(own))
  np.testing.assert_allclose(row['accuracy_ci95'], [low, min(high, 1)])
  paired = stats.ttest_rel(own, other).confidence_interval(0.95)
  np.testing.assert_allclose(row['accuracy_vs_scratch_ci95'], [paired.low, paired.high])
  np.testing.assert_allclose(row['accuracy_vs_scratch'], (own - other).mean())
  paired = stats.ttest_rel(balanced['ahm', 20], balanced['scratch', 20]).confidence_interval(0.95)
  np.testing.assert_allclose(row['balanced_accuracy_vs_scratch_ci95'], [paired.low, paired.high])
  assert row['auc'] == 0.8 and row['auc_ci95'] is None


def test_cells_scored_on_different_images_are_refused():
  cells, per_image = grid({('ahm', 20): np.full((2, 3), 0.5)})
  per_image['ahm', 20, 1] = {'image0': 0.5, 'other': 0.5, 'image2': 0.5}
  with pytest.raises(
    UserError, match=r'ahm/labels20/seed0 and ahm/labels20/seed1 .* different images'
  ):
    compare.summarise_grid(cells, per_image)


def test_result_repeats_itself():
  rng = np.random.default_rng(0)
  cells, per_image = grid(
    {('ahm', 20): rng.uniform(size=(3, 20)), ('scratch', 20): rng.uniform(size=(3, 20))}
  )
  assert compare.summarise_grid(cells, per_image, 300, 1) == compare.summarise_grid(
    cells, per_image, 300, 1
  )
  assert compare.summarise_grid(cells, per_image, 300, 1) != compare.summarise_grid(
    cells, per_image, 300, 2
  )


@pytest.mark.compiles  # No, but it takes seconds.
@pytest.mark.parametrize(('seed_spread', 'seeds'), [(0.0, 3), (0.015, 3), (0.04, 3), (0.02, 5)])
def test_intervals_cover_the_truth(seed_spread, seeds):
  """400 simulated comparisons where runs and images differ: 95 % intervals must cover the known
  effect, null or not.
  """
  rng = np.random.default_rng(7)
  covered_effect, covered_null, covered_mean = [], [], []
  for k in range(400):
    easy = 0.15 * rng.standard_normal(100)  # How easy an image is, for either method.
    sides = {}
    for method, level in (('scratch', 0.5), ('uniform', 0.55), ('ahm', 0.55)):
      run = seed_spread / math.sqrt(2) * rng.standard_normal((seeds, 1))
      own_images = 0.05 * rng.standard_normal(100)
      sides[method, 20] = level + easy + run + own_images + 0.07 * rng.standard_normal((seeds, 100))
    row = by_key(compare.summarise_grid(*grid(sides), samples=200, seed=k))['ahm', 20]
    covered_effect.append(row['vs_scratch_ci95'][0] <= 0.05 <= row['vs_scratch_ci95'][1])
    covered_null.append(row['vs_uniform_ci95'][0] <= 0 <= row['vs_uniform_ci95'][1])
    covered_mean.append(row['dice_ci95'][0] <= 0.55 <= row['dice_ci95'][1])
  for covered in (covered_effect, covered_null, covered_mean):
    assert 0.915 <= np.mean(covered) <= 0.9975


def test_other_methods_are_compared_with_ahm_and_without_them_nothing_is():
  values = np.array([[0.5, 0.6], [0.7, 0.6]])
  three = {(method, 20): values for method in ('scratch', 'uniform')} | {('ahm', 20): values + 0.1}
  assert compare.baselines(compare.summarise_grid(*grid(three), samples=100)) == [
    'scratch',
    'uniform',
  ]
  summary = compare.summarise_grid(*grid(three | {('hpm', 20): values + 0.04}), samples=100)
  assert compare.baselines(summary) == ['scratch', 'uniform', 'ahm']
  assert by_key(summary)['hpm', 20]['vs_ahm'] == pytest.approx(-0.06)
  assert by_key(summary)['ahm', 20]['vs_ahm'] is None
  assert 'vs ahm' in tables.table(summary)
  alone = compare.summarise_grid(*grid({('scratch', 20): values, ('hpm', 20): values}), samples=100)
  assert compare.baselines(alone) == ['scratch']


def test_baselines_are_those_that_are_named():
  values = np.array([[0.5, 0.6], [0.7, 0.6]])
  names = ('scratch_control', 'ahm:rounds=2', 'hpm')
  dice = {('ahm:rounds=2', 20): values, ('scratch_control', 20): values + 0.02}
  dice |= {('ahm', 20): values + 0.1}
  summary = compare.summarise_grid(*grid(dice), samples=100, baselines=names)
  assert compare.compared_with(summary) == list(names)
  assert compare.baselines(summary) == ['scratch_control', 'ahm:rounds=2']
  ahm = by_key(summary)['ahm', 20]
  assert ahm['vs_scratch_control'] == pytest.approx(0.08)
  assert ahm['vs_ahm:rounds=2'] == pytest.approx(0.1)
  np.testing.assert_allclose(ahm['vs_ahm:rounds=2_ci95'], [0.1, 0.1])
  assert ahm['vs_hpm'] is None and 'vs_scratch' not in ahm
