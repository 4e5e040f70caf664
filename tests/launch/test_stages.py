"""The stages, one after another, on a folder of images of many sizes.

And folders that are refused.
"""

import csv
import json
import re
import shutil
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ahm_jax.data.augment import normalise
from ahm_jax.models.unet import UNet
from ahm_jax.runs import checkpoint_reading, directory

STAGES = ('pretrain', 'segment', 'classify')


@pytest.fixture(scope='module')
def runs(study):
  """A run of every stage, each of which starts from the one before."""
  return {
    stage: study.run(f'{stage}/ahm/' + ('seed0' if stage == 'pretrain' else 'labels6/seed0'))
    for stage in STAGES
  }


def evaluation(run):
  return json.loads((run.workdir / 'evaluation.json').read_text())


def per_image(run):
  with (run.workdir / 'per_image.csv').open() as file:
    return list(csv.DictReader(file))


@pytest.mark.parametrize('stage', STAGES)
def test_a_run_says_which_images_serve_pretraining_only(runs, stage):
  assert runs[stage].trained.stdout.startswith(
    'images that serve pre-training only: 2 (without a mask: 1, of which 1 have a label and serve '
    'classification too; without a row in labels.csv: 1)\n'
  )


@pytest.mark.parametrize('stage', STAGES)
def test_a_run_is_quiet_but_for_its_progress(runs, stage):
  first, *lines, last = runs[stage].trained.stderr.splitlines()
  assert re.fullmatch(
    rf'{stage}: \d+ steps of \d+ images on (1 CPU|\d CPUs), float32; the first one compiles', first
  )
  assert re.match(rf'{stage}: done in 0:\d\d; (best )?validation \w.* \d\.\d{{3}} at step \d', last)
  assert runs[stage].trained.stdout.splitlines()[-1].startswith('next: launch.')
  assert 1 <= len(lines) <= 4, lines
  assert all(
    line.startswith(f'{stage}: ') and 'images/s' in line and 'loss=' in line for line in lines
  ), lines
  assert lines[-1].startswith(f'{stage}: 100%')
  assert runs[stage].evaluated.stderr == ''


@pytest.mark.parametrize(
  ('stage', 'steps'), [('pretrain', [2, 3, 4, 6]), ('segment', [2, 4]), ('classify', [1, 2])]
)
def test_a_run_leaves_its_description_metrics_and_checkpoints(runs, stage, steps):
  workdir = runs[stage].workdir
  run = json.loads((workdir / 'run.json').read_text())
  assert run['stage'] == stage and run['config']['data']['image_size'] == 32
  lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
  assert [line['step'] for line in lines] == steps
  assert all(np.isfinite(line['loss']) for line in lines)
  assert np.isfinite(lines[-1]['validation/score'])
  assert str(steps[-1]) in {path.name for path in (workdir / 'checkpoints').iterdir()}


def test_pretraining_is_scored_by_its_agent(runs):
  found = evaluation(runs['pretrain'])
  assert (found['stage'], found['split']) == ('pretrain', 'test')
  assert abs(found['mask_ratio'] - 0.6) < 0.2
  assert -1 <= found['difficulty_rank_correlation'] <= 1 and found['hardness_ratio'] > 0
  assert not (runs['pretrain'].workdir / 'per_image.csv').exists()


def test_segmentation_is_scored_at_the_images_own_size(runs, folder):
  """One image is read, segmented and scored here by other means."""
  run = runs['segment']
  rows = {row['image']: row for row in per_image(run)}
  assert set(rows) == {f'test{number:02d}' for number in range(14, 19)}
  name = 'test15'  # A PNG.
  with (
    Image.open(folder / 'images' / f'{name}.png') as image,
    Image.open(folder / 'masks' / f'{name}.png') as mask,
  ):
    truth = np.asarray(mask) > 0
    own_size = image.size
    small = np.asarray(image.resize((32, 32), Image.Resampling.BICUBIC))
  best = checkpoint_reading.load_variables(run.workdir, best=True)
  variables = {'params': best['params'], 'batch_stats': best['batch_stats']}
  logits = UNet(out_channels=1, width=4).apply(
    variables, normalise(small[None] / 255.0), train=False
  )[0, ..., 0]
  probability = Image.fromarray(1 / (1 + np.exp(-np.asarray(logits)))).resize(
    own_size, Image.Resampling.BILINEAR
  )
  lesion = np.asarray(probability) >= 0.5
  assert lesion.shape == truth.shape
  overlap = (lesion & truth).sum()
  assert float(rows[name]['dice']) == pytest.approx(
    2 * overlap / (lesion.sum() + truth.sum()), abs=5e-3
  )
  assert float(rows[name]['iou']) == pytest.approx(overlap / (lesion | truth).sum(), abs=5e-3)


def test_the_scores_are_means_over_images(runs):
  run = runs['segment']
  found = evaluation(run)
  assert (found['stage'], found['split'], found['images']) == ('segment', 'test', 5)
  for name in ('dice', 'iou', 'recall'):
    assert found[name] == pytest.approx(
      np.mean([float(row[name]) for row in per_image(run)]), abs=1e-6
    )
  assert f'{found["dice"]:.4f}' in run.evaluated.stdout


def test_classification_is_scored_by_image(runs):
  run = runs['classify']
  found, rows = evaluation(run), per_image(run)
  assert {row['image']: row['label'] for row in rows} == {
    f'test{number:02d}': 'ab'[number % 2] for number in range(14, 19)
  }
  right = {
    label: [row['predicted'] == label for row in rows if row['label'] == label] for label in 'ab'
  }
  assert found['accuracy'] == pytest.approx(np.mean(right['a'] + right['b']))
  assert found['balanced_accuracy'] == pytest.approx(
    (np.mean(right['a']) + np.mean(right['b'])) / 2
  )
  assert 0 <= found['auc'] <= 1
  for row in rows:
    probabilities = {label: float(row[f'probability_{label}']) for label in 'ab'}
    assert sum(probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert row['predicted'] == max(probabilities, key=probabilities.get)


def test_another_split_can_be_scored(runs, commands, config_file, tmp_path):
  workdir = tmp_path / 'segment'
  workdir.mkdir()
  for name in ('run.json', 'checkpoints'):
    (workdir / name).symlink_to(runs['segment'].workdir / name)
  commands.succeed(
    'evaluate',
    f'--config={config_file}',
    f'--workdir={workdir}',
    '--config.evaluate.split=validation',
  )
  found = types.SimpleNamespace(workdir=workdir)
  assert (evaluation(found)['split'], evaluation(found)['images']) == ('validation', 4)
  assert {row['image'] for row in per_image(found)} == {
    f'validation{number}' for number in range(10, 14)
  }


# Runs that are refused.


def refused(commands, stage, config_file, workdir, *flags):
  """The one line that a command is refused with; nothing was trained."""
  done = commands.run(stage, f'--config={config_file}', f'--workdir={workdir}', *flags)
  assert done.returncode == 2, done
  assert done.stderr.startswith('error: ') and done.stderr.count('\n') == 1, done.stderr
  assert not (workdir / 'checkpoints').exists() and not (workdir / 'run.json').exists()
  return done.stderr


def test_init_from_without_a_run_is_refused(commands, config_file, tmp_path):
  line = refused(
    commands, 'segment', config_file, tmp_path / 'run', f'--config.init_from={tmp_path}'
  )
  assert f'{tmp_path} holds no run; give the --workdir of a pretrain run' in line


def test_init_from_a_run_of_another_stage_is_refused(commands, config_file, tmp_path, runs):
  origin = runs['segment'].workdir
  line = refused(commands, 'segment', config_file, tmp_path / 'run', f'--config.init_from={origin}')
  assert f'{origin} holds a segment run; give the --workdir of a pretrain run' in line
  origin = runs['pretrain'].workdir
  line = refused(
    commands, 'classify', config_file, tmp_path / 'run', f'--config.init_from={origin}'
  )
  assert f'{origin} holds a pretrain run; give the --workdir of a segment run' in line


def test_init_from_a_run_of_another_width_is_refused(commands, config_file, tmp_path, runs):
  flags = (f'--config.init_from={runs["pretrain"].workdir}', '--config.model.unet_width=8')
  assert 'config.model.unet_width is 8, but the run in config.init_from=' in refused(
    commands, 'segment', config_file, tmp_path / 'run', *flags
  )


def test_a_workdir_with_a_run_of_another_config_is_refused(commands, config_file, runs):
  workdir = runs['pretrain'].workdir
  before = (workdir / 'metrics.jsonl').read_text(), (workdir / 'run.json').read_text()
  done = commands.run(
    'pretrain', f'--config={config_file}', f'--workdir={workdir}', '--config.masking.mask_ratio=0.5'
  )
  assert done.returncode == 2 and done.stderr.count('\n') == 1
  assert 'config.masking.mask_ratio = 0.6, and this one has 0.5' in done.stderr
  done = commands.run('segment', f'--config={config_file}', f'--workdir={workdir}')
  assert done.returncode == 2 and 'holds a pretrain run, not a segment run' in done.stderr
  assert before == ((workdir / 'metrics.jsonl').read_text(), (workdir / 'run.json').read_text())


@pytest.mark.parametrize(
  ('stage', 'field', 'message'),
  [
    (
      'pretrain',
      'unet_width',
      'checkpoints/6: batch_stats/decoder1/first/norm/mean is 4 in its weights but 8 by its config',
    ),
    ('pretrain', 'agent_width', 'checkpoints/6: extra/'),
    (
      'segment',
      'unet_width',
      'segment: batch_stats/decoder1/first/norm/mean is 4 in its weights but 8 by its config',
    ),
    ('classify', 'vgg_width', 'classify: params/'),
  ],
)
def test_a_run_whose_weights_are_of_another_width_is_not_scored(
  commands, config_file, tmp_path, runs, stage, field, message
):
  workdir = Path(shutil.copytree(runs[stage].workdir, tmp_path / stage))
  told = json.loads((workdir / 'run.json').read_text())
  told['config']['model'][field] *= 2
  (workdir / 'run.json').write_text(json.dumps(told))
  before = {path: path.read_bytes() for path in workdir.rglob('*') if path.is_file()}
  done = commands.run('evaluate', f'--config={config_file}', f'--workdir={workdir}')
  assert (
    done.returncode == 2 and done.stderr.startswith('error: ') and done.stderr.count('\n') == 1
  ), done.stderr
  assert message in done.stderr and 'belong together' in done.stderr
  assert before == {path: path.read_bytes() for path in workdir.rglob('*') if path.is_file()}


def test_evaluate_without_a_run_is_refused(commands, config_file, tmp_path):
  assert 'holds no run' in refused(commands, 'evaluate', config_file, tmp_path / 'run')


def move(root, name, split):
  """Gives an image of the folder another split."""
  table = root / 'labels.csv'
  lines = [line.split(',') for line in table.read_text().splitlines()]
  table.write_text(
    '\n'.join(
      ','.join([*line[:2], split if line[0] == name else line[2], line[3]]) for line in lines
    )
    + '\n'
  )


@pytest.mark.parametrize(
  ('stage', 'start', 'name', 'split'),
  [('segment', 'pretrain', 'train03', 'test'), ('classify', 'segment', 'validation11', 'test')],
)
def test_a_start_that_has_learnt_from_what_is_held_out_is_refused(
  runs, commands, config_file, own_folder, tmp_path, stage, start, name, split
):
  flags = (f'--config.data.root={own_folder}', f'--config.data.prepared_dir={tmp_path / "data"}')
  move(own_folder, name, split)
  origin = runs[start].workdir
  line = refused(
    commands, stage, config_file, tmp_path / 'run', *flags, f'--config.init_from={origin}'
  )
  assert (
    f"error: data leakage: 1 {split} images of lesions were used to train {origin}, as '{name}'"
    in line
  )


def test_images_that_are_split_anew_are_neither_scored_nor_trained_on(
  runs, commands, config_file, own_folder, tmp_path
):
  workdir = tmp_path / 'run'
  shutil.copytree(runs['pretrain'].workdir, workdir)
  run = json.loads((workdir / 'run.json').read_text())
  run['config']['data']['root'] = str(tmp_path / 'gone')
  (workdir / 'run.json').write_text(json.dumps(run))
  move(own_folder, 'train02', 'test')
  own_folder = own_folder.rename(tmp_path / 'renamed')
  flags = (f'--config.data.root={own_folder}', f'--config.data.prepared_dir={tmp_path / "data"}')
  done = commands.run('evaluate', f'--config={config_file}', f'--workdir={workdir}', *flags)
  said = (
    f"error: data leakage: 1 test images of lesions were used to train {workdir}, as 'train02';"
  )
  assert done.returncode == 2 and done.stderr.startswith(said), done.stderr
  done = commands.run('pretrain', f'--config={config_file}', f'--workdir={workdir}', *flags)
  said = (
    f'error: {workdir} holds a run that began with other images: 1 were added, left out or moved '
    'between splits,'
  )
  assert done.returncode == 2 and done.stderr.startswith(said), done.stderr


def test_images_that_are_replaced_under_the_same_names_are_not_trained_on(
  runs, commands, config_file, own_folder, tmp_path
):
  workdir = tmp_path / 'run'
  shutil.copytree(runs['pretrain'].workdir, workdir)
  run = json.loads((workdir / 'run.json').read_text())
  run['config']['data']['root'] = str(tmp_path / 'gone')
  (workdir / 'run.json').write_text(json.dumps(run))
  for path in (own_folder / 'images').glob('train*.png'):
    Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
  flags = (f'--config.data.root={own_folder}', f'--config.data.prepared_dir={tmp_path / "data"}')
  done = commands.run('pretrain', f'--config={config_file}', f'--workdir={workdir}', *flags)
  said = (
    f'error: {workdir} holds a run that began with other images: 4 of 12 have other pixels, masks '
    "or labels under the same names, as 'train00'; choose another --workdir, or restore them\n"
  )
  assert (done.returncode, done.stderr) == (2, said)


def test_where_the_data_folder_was_moved_the_new_place_is_taken(
  runs, commands, config_file, own_folder, tmp_path
):
  workdir = tmp_path / 'segment'
  shutil.copytree(runs['segment'].workdir, workdir)
  run = json.loads((workdir / 'run.json').read_text())
  run['config']['data'] |= {
    'root': str(tmp_path / 'gone'),
    'prepared_dir': str(tmp_path / 'gone' / 'data'),
  }
  (workdir / 'run.json').write_text(json.dumps(run))
  flags = (f'--config.data.root={own_folder}', f'--config.data.prepared_dir={tmp_path / "data"}')
  (workdir / 'evaluation.json').unlink()
  commands.succeed('evaluate', f'--config={config_file}', f'--workdir={workdir}', *flags)
  assert (workdir / 'evaluation.json').read_text() == (
    runs['segment'].workdir / 'evaluation.json'
  ).read_text()


def test_a_classifier_of_images_of_another_size_than_its_segmentation_is_refused(
  runs, commands, config_file, tmp_path
):
  flags = (f'--config.init_from={runs["segment"].workdir}', '--config.data.image_size=64')
  line = refused(commands, 'classify', config_file, tmp_path / 'run', *flags)
  assert 'config.data.image_size is 64, but the run in config.init_from=' in line


def test_what_was_refused_may_be_mended_in_the_same_workdir(commands, config_file, tmp_path):
  line = refused(commands, 'segment', config_file, tmp_path / 'run', '--config.data.labels=500')
  assert 'error: 500 labelled training images are asked for, but only 10 of 12 have a mask' in line
  directory.check(tmp_path / 'run', 'segment', directory.from_config_dict({}))


def test_splits_without_a_mask_are_refused_before_a_grid_trains(
  commands, config_file, own_folder, tmp_path
):
  flags = (f'--config.data.root={own_folder}', f'--config.data.prepared_dir={tmp_path / "data"}')
  for split, message in (
    ('validation', 'no validation image has a mask'),
    ('test', 'the test split holds no mask'),
  ):
    for path in (own_folder / 'masks').glob(f'{split}*'):
      path.unlink()
    assert message in refused(commands, 'reproduce', config_file, tmp_path / 'run', *flags)


# Folders that are refused.


def no_images(root):
  for path in (root / 'images').iterdir():
    path.unlink()


def row_without_image(root):
  with (root / 'labels.csv').open('a') as file:
    file.write('ghost,a,train,patient99\n')


def mask_without_image(root):
  (root / 'images' / 'train01.jpg').unlink()
  text = (root / 'labels.csv').read_text()
  (root / 'labels.csv').write_text(
    ''.join(line for line in text.splitlines(True) if not line.startswith('train01,'))
  )


def mask_of_another_size(root):
  Image.fromarray(np.zeros((20, 30), np.uint8)).save(root / 'masks' / 'train01.png')


def grey_mask(root):
  path = root / 'masks' / 'train01.png'
  with Image.open(path) as mask:
    array = np.array(mask)
  array[0, :3] = 7, 128, 200
  Image.fromarray(array).save(path)


def unreadable_image(root):
  (root / 'images' / 'train01.jpg').write_bytes(b'no picture')


def unreadable_mask(root):
  path = root / 'masks' / 'train03.png'
  path.write_bytes(path.read_bytes()[:60])


def split_of_no_kind(root):
  path = root / 'labels.csv'
  path.write_text(path.read_text().replace('b,train,', 'b,training,', 1))


def group_in_two_splits(root):
  path = root / 'labels.csv'
  path.write_text(path.read_text().replace('patient14', 'patient3'))


@pytest.mark.parametrize(
  ('spoil', 'message'),
  [
    (no_images, 'images: holds no image'),
    (row_without_image, "labels.csv line 22 names 'ghost', which is not in images/"),
    (mask_without_image, 'masks/train01.png has no image'),
    (mask_of_another_size, 'masks/train01.png is 30x20 but images/train01.jpg is 47x59'),
    (grey_mask, 'masks/train01.png is not binary: its values are 0, 7, 128, 200, 255'),
    (unreadable_image, 'images/train01.jpg is damaged or not an image'),
    (unreadable_mask, 'masks/train03.png is damaged or not an image'),
    (split_of_no_kind, "split of 'train01' is 'training'; it may be train, validation, test"),
    (group_in_two_splits, "group 'patient3' is in split"),
  ],
)
def test_a_folder_is_refused_by_naming_what_is_wrong(
  commands, config_file, own_folder, tmp_path, spoil, message
):
  spoil(own_folder)
  flags = (f'--config.data.root={own_folder}', f'--config.data.prepared_dir={tmp_path / "data"}')
  assert message in refused(commands, 'pretrain', config_file, tmp_path / 'run', *flags)


def prepared(commands, root, workdir, *flags):
  flags = (
    f'--config.data.root={root}',
    '--config.data.image_size=32',
    f'--workdir={workdir}',
    *flags,
  )
  done = commands.run('prepare_data', '--config=configs/folder.py', *flags)
  assert (done.returncode, done.stderr) == (0, '')
  return done.stdout.splitlines()


@pytest.mark.parametrize(
  'flag', ['--config.data.skip_unreadable', '--config.data.skip_unreadable=True']
)
def test_unreadable_files_can_be_dropped_and_are_listed(commands, own_folder, tmp_path, flag):
  unreadable_image(own_folder)
  unreadable_mask(own_folder)
  lines = prepared(commands, own_folder, tmp_path, flag)
  assert 'unreadable files skipped: 2 (images/train01.jpg, masks/train03.png)' in lines
  assert 'train: 10 images, 8 with a mask; a 6, b 3' in lines


def test_prepare_data_says_what_it_found(commands, folder, tmp_path):
  lines = prepared(commands, folder, tmp_path)
  assert lines[1:] == [
    'train: 12 images, 10 with a mask; a 6, b 5',
    'validation: 4 images, 4 with a mask; a 2, b 2',
    'test: 5 images, 5 with a mask; a 3, b 2',
  ]


def test_without_a_split_column_groups_are_dealt_by_a_seed(commands, own_folder, tmp_path):
  table = own_folder / 'labels.csv'
  table.write_text(
    '\n'.join(','.join(line.split(',')[:2]) for line in table.read_text().splitlines())
  )

  def dealt(seed):
    lines = prepared(
      commands, own_folder, tmp_path / str(seed), f'--config.data.split_seed={seed}'
    )[1:]
    return {line.split(':')[0]: int(line.split()[1]) for line in lines}

  assert sum(dealt(0).values()) == 21 and min(dealt(0).values()) >= 2
  assert dealt(0)['train'] > dealt(0)['test'] > dealt(0)['validation']
