"""`select` as a user types it, a training on its list, and a grid that compares lists."""

import csv
import json
import shutil

import pytest

from tests.launch.test_check import Page, digests

METHODS = ('random', 'k-centre', 'typiclust', 'probcover', 'difficulty')


def rows(workdir):
  with (workdir / 'selection.csv').open() as file:
    return list(csv.DictReader(file))


def names(workdir):
  return [row['image'] for row in rows(workdir)]


@pytest.fixture(scope='module')
def pretraining(study, tmp_path_factory):
  """A copy, which no other test locks."""
  finished = study.run('pretrain/ahm/seed0').workdir
  return shutil.copytree(finished, tmp_path_factory.mktemp('runs') / 'pretrain')


@pytest.fixture(scope='module')
def chosen(commands, config_file, pretraining, tmp_path_factory):
  """By method, where 8 of the 10 images with a mask were chosen, and what was printed."""
  home, found = tmp_path_factory.mktemp('chosen'), {}
  for method in METHODS:
    flags = [f'--config={config_file}', f'--init_from={pretraining}', f'--method={method}']
    flags += ['--count=8', '--from_labelled', f'--workdir={home / method}']
    found[method] = home / method, commands.succeed('select', *flags).stdout
  return found


@pytest.mark.parametrize('method', METHODS)
def test_a_method_writes_a_list_and_a_page(chosen, method):
  workdir, said = chosen[method]
  assert sorted(path.name for path in workdir.iterdir()) == ['selection.csv', 'selection.html']
  found = rows(workdir)
  assert [row['rank'] for row in found] == list('12345678')
  assert len({row['image'] for row in found}) == 8
  assert all(row['image'].startswith('train') for row in found)
  has = {key for row in found for key in ('cluster', 'score') if row[key]}
  scored = {'random': set(), 'k-centre': {'score'}}
  assert has == scored.get(method, {'cluster', 'score'})
  last = said.splitlines()[-1]
  path = workdir / 'selection.csv'
  assert last == f'8 images chosen: {path}; train on them by --config.data.labelled_from={path}'
  page = Page((workdir / 'selection.html').read_text())
  assert page.tags.count('img') == 8 and '1. ' + found[0]['image'] in page.text
  assert all(source.startswith('data:') for source in page.sources)


def test_methods_differ(chosen):
  lists = {(workdir / 'selection.csv').read_bytes() for workdir, _ in chosen.values()}
  assert len(lists) == len(METHODS)


def learnt(workdir):
  return json.loads((workdir / 'images.json').read_text())['own']['train']


def select(commands, root, workdir, *flags):
  base = ('--config=configs/folder.py:cpu', f'--config.data.root={root}', f'--workdir={workdir}')
  return commands.run('select', *base, '--config.data.image_size=32', *flags)


def test_a_cold_start_of_images_alone(commands, own_folder, tmp_path):
  shutil.rmtree(own_folder / 'masks')
  (own_folder / 'labels.csv').unlink()
  workdir, before = tmp_path / 'run', digests(own_folder)
  flags = ('--count=5', '--method=typiclust')
  done = select(commands, own_folder, workdir, *flags)
  assert (done.returncode, done.stderr) == (0, '')
  assert digests(own_folder) == before
  assert done.stdout.splitlines()[-1] == (
    f'5 images chosen: {workdir}/selection.csv; label them ({workdir}/selection.html shows them), '
    f'then train on them by --config.data.labelled_from={workdir}/selection.csv'
  )
  first = (workdir / 'selection.csv').read_bytes()
  assert select(commands, own_folder, workdir, *flags).returncode == 0
  assert (workdir / 'selection.csv').read_bytes() == first
  done = select(commands, own_folder, workdir, '--count=6', '--method=typiclust')
  assert (done.returncode, done.stderr.count('\n')) == (2, 1)
  assert 'selection.csv is of another selection, and is not written over' in done.stderr
  assert (workdir / 'selection.csv').read_bytes() == first


def test_images_with_a_mask_count_as_chosen(commands, own_folder, tmp_path):
  for number in range(4):
    (own_folder / f'masks/train0{number}.png').unlink()
  done = select(commands, own_folder, tmp_path / 'run', '--count=6', '--method=k-centre')
  assert done.returncode == 0, done.stderr
  bare = {'maskless', 'rowless', *(f'train0{number}' for number in range(4))}
  assert set(names(tmp_path / 'run')) == bare
  assert done.stdout.splitlines()[-1].endswith(
    'then train on all that have a mask by --config.data.labels=0'
  )
  assert '6 images chosen, beside 6 that have a mask: ' in done.stdout
  done = select(commands, own_folder, tmp_path / 'other', '--count=7')
  assert done.returncode == 2 and done.stderr == (
    'error: --count is 7, and there are 6 training images without a mask to choose from; lower it, '
    'or choose among those with one by --from_labelled\n'
  )


def test_training_on_a_list(commands, config_file, chosen, tmp_path):
  """And not on another one of the same name."""
  path = shutil.copy(chosen['k-centre'][0] / 'selection.csv', tmp_path / 'list.csv')
  listed = names(chosen['k-centre'][0])
  flags = [f'--config={config_file}', f'--config.data.labelled_from={path}']
  flags += [f'--workdir={tmp_path / "run"}', '--config.data.labels=5']
  commands.succeed('segment', *flags)
  assert learnt(tmp_path / 'run') == listed[:5]
  path.write_text('\n'.join(['image', *reversed(listed)]))
  done = commands.run('segment', *flags)
  assert (done.returncode, done.stderr.count('\n')) == (2, 1)
  assert 'holds a run that began with other images' in done.stderr
  done = commands.run('segment', *flags[:1], *flags[2:])
  assert done.returncode == 2 and 'with config.data.labelled_from = ' in done.stderr


def test_a_grid_compares_lists(commands, config_file, chosen, tmp_path):
  path = shutil.copy(chosen['typiclust'][0] / 'selection.csv', tmp_path / 'list 0.csv')
  listed = names(chosen['typiclust'][0])
  method = f'scratch:data.labelled_from={tmp_path}/list {{seed}}.csv'
  flags = [f'--config={config_file}', f'--workdir={tmp_path / "grid"}']
  flags += [f'--config.grid.methods=("scratch","{method}")', '--config.grid.classify=False']
  commands.succeed('reproduce', *flags)
  results = json.loads((tmp_path / 'grid/results.json').read_text())
  assert [row['method'] for row in results['summary']] == ['scratch', method]
  assert results['summary'][1]['vs_scratch'] == pytest.approx(
    results['summary'][1]['dice'] - results['summary'][0]['dice']
  )
  # A random draw is what a training without a list takes.
  assert learnt(tmp_path / 'grid/segment/scratch/labels6/seed0') == names(chosen['random'][0])[:6]
  place = method.replace('/', '%2F')
  assert learnt(tmp_path / 'grid/segment' / place / 'labels6/seed0') == listed[:6]
  path.write_text('\n'.join(['image', *reversed(listed)]))
  done = commands.run('reproduce', *flags)
  assert (done.returncode, done.stderr.count('\n')) == (2, 1), done.stderr
  assert 'has learnt from other images than config.data.labelled_from names now' in done.stderr
  path.unlink()
  done = commands.run('reproduce', *flags)
  assert done.returncode == 2 and 'is not there; give the selection.csv of' in done.stderr


@pytest.mark.parametrize(
  ('flags', 'said'),
  [
    (('--method=difficulty',), '--method=difficulty asks the agent of a pre-training; give'),
    (('--method=typical',), 'value should be one of <random|k-centre|'),
    (('--count=0',), '--count=0: 0 is not a positive integer'),
    (('--count=11', '--from_labelled'), 'there are 10 training images with a mask to choose from'),
    (('--init_from={folder}',), 'holds no run; give the --workdir of a pretrain or segment run'),
    (('--init_from={folder}/none.npz',), 'there is no such folder; give the workdir of a pretrain'),
    (
      ('--init_from={pretraining}', '--config.data.image_size=64'),
      'config.data.image_size is 64, but the run in config.init_from',
    ),
    (('--workdir={pretraining}',), 'is not empty, and has no selection.csv that would make it'),
    (('--workdir={folder}/images/rowless.png/a',), 'is not a folder; choose another'),
  ],
)
def test_wrong_input_ends_with_one_line(
  commands, config_file, folder, pretraining, tmp_path, flags, said
):
  before = digests(pretraining)
  base = (f'--config={config_file}', f'--workdir={tmp_path / "run"}', '--count=2')
  flags = [flag.format(folder=folder, pretraining=pretraining) for flag in flags]
  done = commands.run('select', *base, *flags)
  assert (done.returncode, done.stderr.count('\n')) == (2, 1), done.stderr
  assert said in done.stderr
  assert not (tmp_path / 'run').exists() and digests(pretraining) == before


def test_help(commands):
  done = commands.run('select', '--help')
  assert (done.returncode, done.stderr) == (0, '')
  assert '\n  --count=N ' in done.stdout and max(map(len, done.stdout.splitlines())) <= 100
