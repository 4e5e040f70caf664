import re

import pytest

from ahm_jax.report.conclusions import conclusions
from tests.report.made_up import make_results


def test_gain_is_claimed_only_where_the_interval_allows_it():
  won = conclusions(make_results(gain=0.1)['summary'])
  assert re.match(
    r'With 20 labelled images, adaptive hard masking gained 10\.1 points of Dice against '
    r'training from scratch \(95 % interval \+9\.\d to \+10\.\d\)\.$',
    won[0],
  )
  assert (
    len(won) == 4
    and 'against uniform masking' in won[1]
    and won[2].startswith('With all labelled images')
  )
  lost = conclusions(make_results(gain=-0.1)['summary'])
  assert 'adaptive hard masking lost 9.9 points' in lost[0]
  tuned = conclusions(
    make_results(methods=('scratch:segment.steps=7', 'scratch', 'uniform'))['summary']
  )
  assert all('uniform masking' in sentence and 'steps' not in sentence for sentence in tuned)
  null = conclusions(make_results(gain=0.0)['summary'])
  assert all(
    'no difference was shown between adaptive hard masking and ' in sentence for sentence in null
  )
  assert not any('gained' in sentence or 'lost' in sentence for sentence in null)


def test_the_last_method_of_a_grid_is_spoken_of():
  methods = ('scratch', 'uniform', 'ahm', 'scratch_consistency')
  sentences = conclusions(make_results(methods=methods, gain=0.0)['summary'])
  assert all('scratch_consistency' in sentence for sentence in sentences)
  first = [sentence for sentence in sentences if sentence.startswith('With 20')]
  others = [
    sentence.partition(' scratch_consistency and ')[2].partition(':')[0] for sentence in first
  ]
  assert others == ['training from scratch', 'uniform masking', 'adaptive hard masking']
  (only,) = {
    sentence.split(' between ')[1].split(' and ')[0]
    for sentence in conclusions(make_results(methods=('scratch', 'scratch_x'), gain=0.0)['summary'])
  }
  assert only == 'scratch_x'


def test_a_gain_is_set_against_that_of_all_labels():
  """From 0.75 to 0.80, that is by 5 points."""
  rows = {(row['method'], row['labels']): row for row in make_results()['summary']}
  few, all_of_them = rows['scratch', 20], rows['scratch', 0]
  ahm = rows['ahm', 20] | {'dice': 0.77}
  for end, said in ((0.8, '5.0 points from scratch; this is 40% of it.'), (0.755, None)):
    summary = [few | {'dice': 0.75}, ahm, all_of_them | {'dice': end}]
    against_scratch, against_uniform = conclusions(summary)
    assert against_scratch.endswith(f'All labels gain {said}') == (said is not None)
    assert 'All labels' not in against_uniform
  assert 'All labels' not in ' '.join(conclusions([few, ahm]))


@pytest.mark.parametrize(
  ('interval', 'shown'),
  [([-0.001, 0.08], False), ([0.0, 0.08], False), ([0.001, 0.08], True), ([-0.08, -0.001], True)],
)
def test_an_interval_that_holds_zero_shows_no_difference(interval, shown):
  row = make_results()['summary'][2] | {
    'vs_scratch': sum(interval) / 2,
    'vs_scratch_ci95': interval,
  }
  sentence = conclusions([row])[0]
  assert ('no difference was shown' in sentence) != shown
  assert ('lost' in sentence) == (interval[1] < 0)


def test_one_seed_is_said():
  assert all(
    sentence.endswith('One seed: runs may differ by more than this.')
    for sentence in conclusions(make_results(seeds=1)['summary'])
  )


@pytest.mark.parametrize(
  ('methods', 'said'),
  [
    (('scratch',), 'no pre-trained network'),
    (('ahm',), 'nothing to compare adaptive hard masking with'),
    (('scratch', 'uniform'), 'uniform masking'),
  ],
)
def test_grids_without_ahm_or_a_comparison(methods, said):
  assert said in conclusions(make_results(methods=methods)['summary'])[0]


def test_each_baseline_that_is_named_has_its_sentence():
  row = {key: value for key, value in make_results()['summary'][2].items() if key[:3] != 'vs_'}
  row |= {'method': 'ahm_consistency', 'vs_scratch_control': 0.02, 'vs_hpm': None}
  row |= {'vs_scratch_control_ci95': [0.01, 0.03], 'vs_hpm_ci95': None}
  (sentence,) = conclusions([row])
  assert 'ahm_consistency gained 2.0 points of Dice against scratch_control (' in sentence
