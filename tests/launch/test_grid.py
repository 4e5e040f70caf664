"""`reproduce`: its results.json, and what happens when it is stopped, started again, and
widened.
"""

import csv
import json
import os
import signal
import time

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
def grid(commands, config_file, tmp_path_factory):
  """A finished run of the grid: its directory and what it printed."""
  workdir = tmp_path_factory.mktemp('grid')
  return workdir, commands.succeed('reproduce', f'--config={config_file}', f'--workdir={workdir}')


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
  assert (workdir / 'report.html').read_text().lstrip().lower().startswith('<!doctype html>')
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
  commands, config_file, grid
):
  """Where no patch is without lesion, there is no border lift."""
  workdir, _ = grid
  before = (workdir / 'results.json').read_text()
  path = workdir / 'pretrain/ahm/seed0/evaluation.json'
  agent = read(path)
  path.write_text(json.dumps(agent | {'border_lift': None}))
  done = commands.run(
    'reproduce', f'--config={config_file}', f'--workdir={workdir}', '--config.grid.classify=False'
  )
  assert done.returncode == 0, done.stderr
  results = read(workdir / 'results.json')
  assert results['agent']['ahm'] == {name: agent[name] for name in AGENT} | {'border_lift': None}
  assert (workdir / 'classify/ahm/labels6/seed0/evaluation.json').exists()
  assert not any({'accuracy', 'auc'} & set(cell) for cell in results['cells'])
  assert [row['accuracy'] for row in results['summary']] == [None] * 3
  assert 'border lift' not in next(
    line for line in done.stdout.splitlines() if line.startswith('ahm: ')
  )
  path.write_text(json.dumps(agent))
  (workdir / 'results.json').write_text(before)


def evaluations(workdir):
  return {path: path.stat().st_mtime_ns for path in workdir.glob('*/**/evaluation.json')}


# Inits that share what they train with the grid of the fixture, and no more than they need.
FEW = (
  'scratch',
  'uniform',
)


@pytest.fixture(scope='module')
def few(commands, config_file, grid):
  """The results.json of these alone, from the finished grid, in which nothing is trained again."""
  workdir, _ = grid
  before = (workdir / 'results.json').read_text()
  commands.succeed(
    'reproduce', f'--config={config_file}', f'--workdir={workdir}', f'--config.grid.methods={FEW}'
  )
  results = read(workdir / 'results.json')
  (workdir / 'results.json').write_text(before)
  assert results['cells'] == read(workdir / 'results.json')['cells'][:2]
  return results


def test_a_killed_grid_goes_on_and_a_wider_one_keeps_its_cells(
  commands, config_file, grid, few, tmp_path
):
  wider = ('reproduce', f'--config={config_file}', f'--workdir={tmp_path}')
  command = (*wider, f'--config.grid.methods={FEW}')
  process = commands.start(*command, start_new_session=True)
  deadline = time.monotonic() + 200
  checkpoints = tmp_path / 'pretrain/uniform/seed0/checkpoints'
  while (
    time.monotonic() < deadline and process.poll() is None and not any(checkpoints.glob('[0-9]*'))
  ):
    time.sleep(0.02)
  os.killpg(process.pid, signal.SIGKILL)
  process.communicate()
  assert process.returncode == -signal.SIGKILL
  finished = evaluations(tmp_path)
  assert tmp_path / 'segment/scratch/labels6/seed0/evaluation.json' in finished
  assert not (tmp_path / 'results.json').exists()

  commands.succeed(*command)
  assert read(tmp_path / 'results.json') == few
  assert finished.items() <= evaluations(tmp_path).items()

  finished = evaluations(tmp_path)
  # Of two methods: a pre-training, two segmentations, two classifications.
  assert len(finished) == 5
  commands.succeed(
    *wider,
    '--config.grid.seeds=(0,1)',
    '--config.grid.labels=(6,8)',
    '--config.grid.methods=("scratch",)',
  )
  assert finished.items() <= evaluations(tmp_path).items()
  results = read(tmp_path / 'results.json')
  cells, (mean,) = results['cells'], results['over_labels']
  assert [(cell['method'], cell['seed'], cell['labels']) for cell in cells] == [
    ('scratch', s, n) for s in (0, 1) for n in (6, 8)
  ]
  assert cells[0] == read(grid[0] / 'results.json')['cells'][0]
  assert (mean['method'], mean['labels'], mean['seeds']) == ('scratch', [6, 8], 2)
  assert mean['iou'] == pytest.approx(np.mean([cell['iou'] for cell in cells]))


def test_another_split_is_scored_without_training_again(commands, config_file, grid):
  workdir, _ = grid
  trained = {path: path.read_text() for path in workdir.glob('*/**/metrics.jsonl')}
  before = (workdir / 'results.json').read_text()
  flags = ('--config.evaluate.split=validation', '--config.grid.methods=("scratch",)')
  commands.succeed('reproduce', f'--config={config_file}', f'--workdir={workdir}', *flags)
  results = read(workdir / 'results.json')
  assert results['split'] == 'validation' and results['cells'][0]['images'] == 4
  assert read(workdir / 'segment/scratch/labels6/seed0/evaluation.json')['split'] == 'validation'
  assert {path: path.read_text() for path in trained} == trained
  (workdir / 'results.json').write_text(before)


def test_a_cell_that_was_scored_by_another_threshold_is_scored_again(commands, config_file, grid):
  workdir, _ = grid
  before = read(workdir / 'results.json')
  cell = workdir / 'segment/scratch/labels6/seed0'
  dice = before['cells'][0]['dice']
  commands.succeed(
    'evaluate', f'--config={config_file}', f'--workdir={cell}', '--config.evaluate.threshold=0.9'
  )
  assert (
    read(cell / 'evaluation.json')['threshold'] == 0.9
    and read(cell / 'evaluation.json')['dice'] != dice
  )
  commands.succeed('reproduce', f'--config={config_file}', f'--workdir={workdir}')
  assert (
    read(cell / 'evaluation.json')['threshold'] == 0.5
    and read(cell / 'evaluation.json')['dice'] == dice
  )
  assert read(workdir / 'results.json') == before


def test_what_is_damaged_of_a_finished_grid_is_made_again(commands, config_file, grid):
  """Scores, tables, lines of metrics, a snapshot: the results are the same again."""
  workdir, _ = grid
  before = read(workdir / 'results.json')
  damaged = {
    'segment/scratch/labels6/seed0/per_image.csv': lambda data: data[: len(data) // 2],
    'segment/ahm/labels6/seed0/evaluation.json': lambda _: b'[' * 10**6,
    'pretrain/ahm/seed0/evaluation.json': lambda data: data.replace(b'0.', b'7.'),
    'pretrain/uniform/seed0/metrics.jsonl': lambda data: data + b'{"loss": NaN}\n\0\0',
    'pretrain/ahm/seed0/snapshots/3.npz': lambda data: data[:-30],
  }
  for name, damage in damaged.items():
    (workdir / name).write_bytes(damage((workdir / name).read_bytes()))
  done = commands.succeed('reproduce', f'--config={config_file}', f'--workdir={workdir}')
  assert read(workdir / 'results.json') == before
  for name in list(damaged)[:3]:
    assert f'{workdir / name} is damaged: ' in done.stdout
  for name in list(damaged)[3:]:
    assert f'{workdir / name}' in done.stderr


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


def test_two_processes_share_the_cells_and_find_what_one_finds(
  commands, config_file, few, tmp_path
):
  command = (
    'reproduce',
    f'--config={config_file}',
    f'--workdir={tmp_path}',
    f'--config.grid.methods={FEW}',
  )
  both = [commands.start(*command) for _ in range(2)]
  said = [process.communicate(timeout=500) for process in both]
  assert [process.returncode for process in both] == [0, 0], said
  assert read(tmp_path / 'results.json') == few
  trained = [len([line for line in err.splitlines() if '100%' in line]) for _, err in said]
  # A pre-training, two segmentations, two classifications: each in one process only.
  assert sum(trained) == 5


def test_a_method_may_change_fields(commands, config_file, grid, tmp_path):
  method, tuned = 'uniform:mask_ratio=0.4+patch_size=16', 'tuned'
  fields = {'strategy': 'uniform', 'mask_ratio': 0.4, 'patch_size': 16, 'segment': {'steps': 2}}
  own_file, workdir = tmp_path / 'config.py', tmp_path / 'grid'
  own_file.write_text(
    config_file.read_text().replace(
      '  return c', f'  c.grid.variants = {{{tuned!r}: {fields}}}\n  return c'
    )
  )
  flags = (
    f'--config.grid.methods=("scratch","{method}","{tuned}")',
    '--config.grid.classify=False',
  )
  commands.succeed('reproduce', f'--config={own_file}', f'--workdir={workdir}', *flags)
  held = read(workdir / f'pretrain/{method}/seed0/run.json')['config']['masking']
  assert (held['strategy'], held['mask_ratio'], held['patch_size']) == ('uniform', 0.4, 16)
  results = read(workdir / 'results.json')
  assert [row['method'] for row in results['summary']] == ['scratch', method, tuned]
  # What fine-tunes in another way starts alike.
  assert [path.name for path in (workdir / 'pretrain').iterdir()] == [method]
  starts = [
    read(workdir / f'segment/{name}/labels6/seed0/run.json')['config'] for name in (method, tuned)
  ]
  assert (
    starts[0]['init_from'] == starts[1]['init_from'] == str(workdir / f'pretrain/{method}/seed0')
  )
  assert starts[1]['segment'] == starts[0]['segment'] | {'steps': 2} != starts[0]['segment']
  assert results['agent'][method]['mask_ratio'] == pytest.approx(0.4, abs=0.15)
  cell, with_classifier = results['cells'][0], read(grid[0] / 'results.json')['cells'][0]
  assert set(with_classifier) - set(cell) == {'accuracy', 'balanced_accuracy', 'auc'}
  assert cell == {name: with_classifier[name] for name in cell}
  assert method in (workdir / 'report.html').read_text()


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
    *command, '--config.grid.methods=("scratch",)', '--config.grid.seeds=(0,1)'
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
