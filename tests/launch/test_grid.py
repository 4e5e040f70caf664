"""`reproduce`: its results.json, and what becomes of it when its runs or the grid change."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

KEYS = {
  'dataset',
  'split',
  'config',
  'images',
  'groups',
  'cells',
  'pretrainings',
  'summary',
  'over_labels',
  'agent',
}
CELL = {'method', 'labels', 'seed', 'dice', 'iou', 'hd95', 'accuracy', 'balanced_accuracy', 'auc'}
ROW = {
  'method',
  'labels',
  'dice',
  'dice_ci95',
  'vs_scratch',
  'vs_scratch_ci95',
  'vs_uniform',
  'vs_uniform_ci95',
}
AGENT = {'difficulty_rank_correlation', 'hardness_ratio', 'border_lift', 'mask_ratio'}


def read(path):
  return json.loads(path.read_text())


@pytest.fixture(scope='module')
def grid(study):
  """A finished run of the grid, not to be changed: its directory and what it printed."""
  finished = study.grid()
  return finished.workdir, finished.done


@pytest.fixture(scope='module')
def own_grid(grid, tmp_path_factory):
  """A copy of its directory to change; its results.json stays."""
  return Path(shutil.copytree(grid[0], tmp_path_factory.mktemp('own') / 'grid'))


def test_results_have_the_documented_form(grid):
  workdir, _ = grid
  results = read(workdir / 'results.json')
  assert set(results) == KEYS and results['over_labels'] == []
  assert (results['dataset'], results['split']) == ('lesions', 'test')
  assert results['config']['data']['labels'] == 6
  assert [(cell['method'], cell['labels'], cell['seed']) for cell in results['cells']] == [
    ('scratch', 6, 0),
    ('uniform', 6, 0),
    ('ahm', 6, 0),
  ]
  assert all(set(cell) >= CELL for cell in results['cells'])
  assert [(row['method'], row['labels']) for row in results['summary']] == [
    ('scratch', 6),
    ('uniform', 6),
    ('ahm', 6),
  ]
  assert all(set(row) >= ROW for row in results['summary'])
  assert results['images'] == [f'test{number}' for number in range(14, 19)]
  assert results['groups'] == [0, 1, 2, 3, 3]
  assert all((row['groups'], row['interval_covers']) == (4, 'groups') for row in results['summary'])
  for row in results['summary']:
    assert row['group_dice'] == pytest.approx(
      group_dice(workdir / f'segment/{row["method"]}/labels6/seed0/per_image.csv')
    )
  assert 'patient' not in (workdir / 'results.json').read_text()
  assert all(len(cell['per_image']['dice']) == 5 for cell in results['cells'])
  assert [(item['method'], item['seed']) for item in results['pretrainings']] == [
    ('uniform', 0),
    ('ahm', 0),
  ]
  assert set(results['agent']) == {'uniform', 'ahm'}
  assert all(set(values) == AGENT for values in results['agent'].values())


def group_dice(path):
  """By per_image.csv: of each group, 2 tp / (2 tp + fp + fn) of its pixels; then the mean."""
  with path.open() as file:
    rows = list(csv.DictReader(file))
  assert [row['group'] for row in rows] == ['0', '1', '2', '3', '3']
  sums = [
    [sum(int(row[key]) for row in rows if row['group'] == group) for key in ('tp', 'fp', 'fn')]
    for group in '0123'
  ]
  return np.mean([2 * tp / (2 * tp + fp + fn) for tp, fp, fn in sums if tp + fp + fn])


def test_results_are_those_of_the_runs(grid):
  workdir, _ = grid
  results = read(workdir / 'results.json')
  for cell, row in zip(results['cells'], results['summary'], strict=True):
    place = f'{cell["method"]}/labels6/seed0'
    segmented, classified = (
      read(workdir / stage / place / 'evaluation.json') for stage in ('segment', 'classify')
    )
    assert (cell['dice'], cell['hd95'], cell['auc']) == (
      segmented['dice'],
      segmented['hd95'],
      classified['auc'],
    )
    assert row['dice'] == pytest.approx(segmented['dice'])
    assert row['dice_ci95'][0] <= row['dice'] <= row['dice_ci95'][1]
  scratch, uniform, ahm = results['summary']
  assert scratch['vs_scratch'] is None and uniform['vs_uniform'] is None
  assert ahm['vs_scratch'] == pytest.approx(ahm['dice'] - scratch['dice'], abs=1e-6)
  assert ahm['vs_uniform'] == pytest.approx(ahm['dice'] - uniform['dice'], abs=1e-6)
  agent = read(workdir / 'pretrain/ahm/seed0/evaluation.json')
  assert results['agent']['ahm'] == {name: agent[name] for name in AGENT}


def test_every_init_learns_from_the_same_images_and_its_own_pretraining(grid):
  workdir, _ = grid
  for method in ('uniform', 'ahm'):
    assert (
      read(workdir / f'pretrain/{method}/seed0/run.json')['config']['masking']['strategy'] == method
    )
    start = read(workdir / f'segment/{method}/labels6/seed0/run.json')['config']['init_from']
    assert start == str(workdir / f'pretrain/{method}/seed0')
  assert read(workdir / 'segment/scratch/labels6/seed0/run.json')['config']['init_from'] == ''


def test_the_terminal_shows_cells_the_table_and_where_the_report_is(grid):
  workdir, done = grid
  lines = done.stdout.splitlines()
  assert '[1/3] scratch, 6 labels, seed 0' in lines and '[3/3] ahm, 6 labels, seed 0' in lines
  assert lines[-1] == str(workdir / 'report.html')
  page = (workdir / 'report.html').read_text()
  assert page.lstrip().lower().startswith('<!doctype html>')
  failures = page[page.index('<h2>Failures of other methods</h2>') : page.index('<h2>Training<')]
  assert failures.count('</span>scratch <span>6 labels, seed 0</span>') == 1
  assert failures.count('</span>uniform <span>') == 1 and '</span>ahm <span>' not in failures
  assert failures.count('<figcaption>test1') == 6  # The lowest Dice, three of each.
  assert 'Pseudo-masks' not in page  # None of them uses unlabelled images.
  assert (workdir / 'masks.png').stat().st_size > 1000
  assert {path.name for path in workdir.glob('*.svg')} == {
    'dice.svg',
    'vs_scratch.svg',
    'vs_uniform.svg',
  }
  assert all('>ahm</text>' in path.read_text() for path in workdir.glob('*.svg'))
  dice = {row['method']: f'{row["dice"]:.3f}' for row in read(workdir / 'results.json')['summary']}
  table = '\n'.join(lines)
  assert all(method in table and dice[method] in table for method in dice)
  stages = ('pretrain: ', 'segment: ', 'classify: ')
  assert all(line.startswith(stages) for line in done.stderr.splitlines()), done.stderr


def test_an_agent_metric_without_a_value_is_null_and_what_another_grid_classified_stays_there(
  commands, config_file, own_grid
):
  """Where no patch is without lesion, there is no border lift."""
  before = (own_grid / 'results.json').read_text()
  path = own_grid / 'pretrain/ahm/seed0/evaluation.json'
  agent = read(path)
  path.write_text(json.dumps(agent | {'border_lift': None}))
  done = commands.run(
    'reproduce', f'--config={config_file}', f'--workdir={own_grid}', '--config.grid.classify=False'
  )
  assert done.returncode == 0, done.stderr
  results = read(own_grid / 'results.json')
  assert results['agent']['ahm'] == {name: agent[name] for name in AGENT} | {'border_lift': None}
  assert (own_grid / 'classify/ahm/labels6/seed0/evaluation.json').exists()
  assert not any({'accuracy', 'auc'} & set(cell) for cell in results['cells'])
  assert [row['accuracy'] for row in results['summary']] == [None] * 3
  assert 'border lift' not in next(
    line for line in done.stdout.splitlines() if line.startswith('ahm: ')
  )
  path.write_text(json.dumps(agent))
  (own_grid / 'results.json').write_text(before)


def test_another_split_is_scored_without_training_again(commands, config_file, own_grid):
  trained = {path: path.read_text() for path in own_grid.glob('*/**/metrics.jsonl')}
  before = (own_grid / 'results.json').read_text()
  flags = ('--config.evaluate.split=validation', '--config.grid.methods=("scratch",)')
  commands.succeed('reproduce', f'--config={config_file}', f'--workdir={own_grid}', *flags)
  results = read(own_grid / 'results.json')
  assert results['split'] == 'validation' and results['cells'][0]['images'] == 4
  assert read(own_grid / 'segment/scratch/labels6/seed0/evaluation.json')['split'] == 'validation'
  assert {path: path.read_text() for path in trained} == trained
  (own_grid / 'results.json').write_text(before)


def test_what_is_damaged_of_a_finished_grid_or_scored_by_another_threshold_is_made_again(
  commands, config_file, own_grid
):
  """Scores, tables, lines of metrics, a snapshot: the results are the same again."""
  before = read(own_grid / 'results.json')
  cell = own_grid / 'segment/scratch/labels6/seed0'
  dice = before['cells'][0]['dice']
  commands.succeed(
    'evaluate', f'--config={config_file}', f'--workdir={cell}', '--config.evaluate.threshold=0.9'
  )
  assert (
    read(cell / 'evaluation.json')['threshold'] == 0.9
    and read(cell / 'evaluation.json')['dice'] != dice
  )
  damaged = {
    'segment/uniform/labels6/seed0/per_image.csv': lambda data: data[: len(data) // 2],
    'segment/ahm/labels6/seed0/evaluation.json': lambda _: b'[' * 10**6,
    'pretrain/ahm/seed0/evaluation.json': lambda data: data.replace(b'0.', b'7.'),
    'pretrain/uniform/seed0/metrics.jsonl': lambda data: data + b'{"loss": NaN}\n\0\0',
    'pretrain/ahm/seed0/snapshots/3.npz': lambda data: data[:-30],
  }
  for name, damage in damaged.items():
    (own_grid / name).write_bytes(damage((own_grid / name).read_bytes()))
  done = commands.succeed('reproduce', f'--config={config_file}', f'--workdir={own_grid}')
  assert read(own_grid / 'results.json') == before
  assert (
    read(cell / 'evaluation.json')['threshold'] == 0.5
    and read(cell / 'evaluation.json')['dice'] == dice
  )
  for name in list(damaged)[:3]:
    assert f'{own_grid / name} is damaged: ' in done.stdout
  for name in list(damaged)[3:]:
    assert f'{own_grid / name}' in done.stderr


def test_too_many_labels_are_refused_before_any_training(commands, config_file, tmp_path):
  done = commands.run(
    'reproduce', f'--config={config_file}', f'--workdir={tmp_path}', '--config.grid.labels=(6,60)'
  )
  assert done.returncode == 2
  assert done.stderr == (
    'error: 60 labelled training images are asked for, but only 10 of 12 have a mask; lower '
    'config.data.labels (or config.grid.labels)\n'
  )
  assert list(tmp_path.iterdir()) == []


def test_cells_from_elsewhere_are_compared_and_not_run_again(commands, config_file, grid, tmp_path):
  before = read(grid[0] / 'results.json')
  held = grid[0] / 'results.json'
  command = (
    'reproduce',
    f'--config={config_file}',
    f'--workdir={tmp_path}',
    f'--config.grid.results={held}',
  )
  done = commands.succeed(
    *command,
    '--config.grid.methods=("scratch",)',
    '--config.grid.seeds=(0,1)',
    '--config.grid.classify=False',
  )
  assert 'Cells of config.grid.results that are not of this grid, left out: 2\n' in done.stdout
  assert [path.name for path in tmp_path.glob('segment/*/*/*')] == ['seed1'] and not (
    tmp_path / 'pretrain'
  ).exists()
  results = read(tmp_path / 'results.json')
  assert [(cell['method'], cell['seed']) for cell in results['cells']] == [
    ('scratch', 0),
    ('scratch', 1),
  ]
  assert results['cells'][0] == before['cells'][0] and results['agent'] == {}
  (row,) = results['summary']
  assert row['seeds'] == 2
  assert row['dice'] == pytest.approx(
    (results['cells'][0]['dice'] + results['cells'][1]['dice']) / 2, abs=1e-5
  )

  done = commands.succeed(*command, '--config.grid.methods=("ahm","scratch")')
  assert 'left out: 1\n' in done.stdout
  assert not (tmp_path / 'pretrain').exists()
  results = read(tmp_path / 'results.json')
  assert results['cells'] == [before['cells'][2], before['cells'][0]]  # In the order of the grid.
  assert results['summary'][0]['vs_scratch'] == pytest.approx(
    before['summary'][2]['vs_scratch'], abs=2e-5
  )
  assert results['agent'] == {'ahm': before['agent']['ahm']}
  assert (tmp_path / 'report.html').exists()


@pytest.mark.parametrize(
  ('change', 'said'),
  [
    ({'split': 'validation'}, "is of split 'validation', not 'test'"),
    ({'dataset': 'others'}, "is of dataset 'others', not 'lesions'"),
    ({'cells': [{}]}, 'is damaged: cells[0]: method is missing; leave it out'),
    (
      {'images': ['test14', 'test15', 'test16', 'test17', 'test3']},
      'has scores of other images, as of test18',
    ),
    ({'config': {'segment': {'steps': 5}}}, 'with config.'),
  ],
)
def test_results_that_do_not_belong_to_the_grid_are_refused(
  commands, config_file, grid, tmp_path, change, said
):
  path = tmp_path / 'results.json'
  path.write_text(json.dumps(read(grid[0] / 'results.json') | change))
  done = commands.run(
    'reproduce',
    f'--config={config_file}',
    f'--workdir={tmp_path / "run"}',
    f'--config.grid.results={path}',
  )
  assert (
    done.returncode == 2
    and done.stderr.startswith(f'error: {path}')
    and 'config.grid.results' in done.stderr
    and said in done.stderr
  )
  assert not (tmp_path / 'run' / 'run.json').exists()
