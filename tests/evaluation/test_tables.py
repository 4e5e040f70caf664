import numpy as np

from ahm_jax.evaluation import compare, tables
from tests.evaluation.made_up import grid


def test_table_shows_means_intervals_and_marks_the_best():
  rng = np.random.default_rng(0)
  base = rng.uniform(0.4, 0.6, (3, 30))
  dice = {
    ('scratch', 20): base,
    ('ahm', 20): base + 0.1,
    ('scratch', 0): base + 0.2,
    ('ahm', 0): base + 0.15,
  }
  accuracy = {key: [0.7, 0.72, 0.71] for key in dice}
  summary = compare.summarise_grid(*grid(dice, accuracy=accuracy), samples=200)
  text = tables.table(summary)
  lines = text.splitlines()
  rows = [line for line in lines if 'ahm' in line or 'scratch  ' in line or 'scratch *' in line]
  assert [line.split()[0] for line in lines if line[:6].strip() in ('20', 'all')] == [
    '20',
    '20',
    'all',
    'all',
  ] * 2
  assert [line.split()[:3] for line in rows if '*' in line] == [
    ['20', 'ahm', '*'],
    ['all', 'scratch', '*'],
  ] * 2
  assert max(map(len, lines)) <= 100
  assert '+0.100 [+0.100, +0.100]' in text and '-0.050 [-0.050, -0.050]' in text and '0.710' in text
  assert 'IoU' not in text  # No cell knows it.
  columns = [
    line.index('[') for line in lines if line.startswith(('    20', '   all')) and '[' in line
  ]
  assert len(set(columns)) == 1 and len(columns) == 4
  assert 'cover seeds and images.' in text
  assert not compare.best_rows(row for row in summary if row['method'] == 'scratch')
  single = compare.summarise_grid(*grid({('ahm', 20): base[:1]}), samples=200)
  assert 'images only (one seed)' in tables.table(single)


def test_unequal_numbers_of_seeds_are_shown_and_nothing_is_starred_among_them():
  base = np.random.default_rng(0).uniform(0.4, 0.6, (5, 30))
  dice = {
    ('scratch', 20): base,
    ('hpm', 20): base[:1] + 0.1,
    ('scratch', 50): base[:3],
    ('hpm', 50): base[:3] + 0.1,
  }
  summary = compare.summarise_grid(*grid(dice), samples=200)
  assert compare.best_rows(summary) == {('hpm', 50)} and compare.seed_counts(summary) == (1, 5)
  text = tables.table(summary)
  rows = [
    line.replace('*', '').split()
    for line in text.splitlines()
    if line.strip().startswith(('20', '50'))
  ]
  assert [row[:3] for row in rows] == [
    ['20', 'scratch', '5'],
    ['20', 'hpm', '1'],
    ['50', 'scratch', '3'],
    ['50', 'hpm', '3'],
  ]
  assert (
    'unequal numbers of seeds' in text
    and 'cover seeds and images (images only where there is one seed).' in text
  )
  equal = tables.table([row for row in summary if row['labels'] == 50])
  assert (
    'unequal' not in equal and ' seeds ' not in equal.splitlines()[0] and 'one seed' not in equal
  )
  unequal = tables.table([row for row in summary if row['labels'] == 20])
  assert '*' not in unequal and '\n* highest. Mean' in equal


def test_which_baselines_have_the_settings_of_the_config_itself_is_said():
  values = np.array([[0.5, 0.6], [0.7, 0.6]])
  methods = ('scratch', 'scratch_control', 'ahm')
  control = {'strategy': 'scratch', 'segment': {'steps': 7}}

  def text(baselines):
    cells = grid({(method, 20): values for method in methods})
    summary = compare.summarise_grid(*cells, samples=100, baselines=baselines)
    return tables.table(summary, variants={'scratch_control': control})

  note = 'fine-tuned with the settings of the config itself.'
  assert text(('scratch', 'scratch_control')).endswith(f'\nscratch is {note}')
  assert text(('scratch', 'ahm')).endswith(f'\nscratch is {note}')
  assert text(('ahm', 'scratch', 'uniform')).endswith(f'\nscratch is {note}')
  assert note not in text(('scratch_control',))
