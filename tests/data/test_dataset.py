"""Preparation that is never stale or half done, label budgets, and the order of training images."""

import dataclasses
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from ahm_jax.config import DataConfig, PhantomConfig
from ahm_jax.data import dataset
from ahm_jax.errors import UserError

TINY = DataConfig(image_size=16, phantom=PhantomConfig(train=3, validation=1, test=1))


def make_split(labels, has_mask=None):
  count = len(labels)
  names = tuple(f'i{index}' for index in range(count))
  return dataset.Split(
    ids=names,
    images=np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8),
    masks=np.zeros((count, 2, 2), np.uint8),
    labels=np.array(labels, np.int32),
    has_mask=np.ones(count, bool) if has_mask is None else np.array(has_mask),
    groups=names,
    full_masks=(b'',) * count,
  )


@pytest.fixture
def folder(tmp_path):
  """Four images with masks, and the config that reads them."""
  root = tmp_path / 'set'
  for part in ('images', 'masks'):
    (root / part).mkdir(parents=True)
  for index in range(4):
    Image.fromarray(np.full((16, 16, 3), 50 * index, np.uint8)).save(
      root / 'images' / f'{index}.png'
    )
    Image.fromarray(np.eye(16, dtype=bool)).save(root / 'masks' / f'{index}.png')
  (root / 'labels.csv').write_text(
    'image,label,split\n0,x,train\n1,y,train\n2,x,validation\n3,y,test\n'
  )
  return DataConfig(name='folder', root=str(root), image_size=16)


# Split.


def test_take():
  split = make_split([5, 6, 7, 8], [True, False, True, False])
  taken = split.take(np.array([2, 0]))
  assert len(taken) == 2
  assert taken.ids == taken.groups == ('i2', 'i0')
  assert taken.labels.tolist() == [7, 5]
  assert taken.has_mask.tolist() == [True, True]
  assert taken.images[:, 0, 0, 0].tolist() == [2, 0]
  assert split.take(split.has_mask).ids == ('i0', 'i2')
  assert len(split.take([])) == 0


def test_spacing_is_unknown_where_it_is_not_given():
  split = make_split([0, 1])
  assert split.spacing.shape == (2, 2) and split.spacing.dtype == np.float32
  assert np.isnan(split.spacing).all()
  known = dataclasses.replace(split, spacing=np.float32([[1, 2], [3, 4]]))
  assert known.take([1]).spacing.tolist() == [[3, 4]]


# Prepare.


def test_prepared_data_are_used_again(tmp_path):
  path = dataset.prepare(TINY, tmp_path)
  assert path.parent == tmp_path / 'data'
  before = sorted((item.name, item.stat().st_mtime_ns) for item in path.iterdir())
  assert dataset.prepare(TINY, tmp_path) == path
  assert sorted((item.name, item.stat().st_mtime_ns) for item in path.iterdir()) == before


def test_prepared_dir_takes_the_place_of_the_workdir(tmp_path):
  config = dataclasses.replace(TINY, prepared_dir=str(tmp_path / 'elsewhere'))
  assert dataset.prepare(config, tmp_path / 'work').parent == tmp_path / 'elsewhere'
  assert not (tmp_path / 'work').exists()


@pytest.mark.parametrize(
  'changes',
  [
    dict(image_size=32),
    dict(channels=1),
    dict(split_seed=1),
    dict(phantom=PhantomConfig(train=4, validation=1, test=1)),
  ],
)
def test_another_phantom_config_is_another_preparation(tmp_path, changes):
  other = dataclasses.replace(TINY, **changes)
  first = dataset.load(TINY, tmp_path)
  second = dataset.load(other, tmp_path)
  assert dataset.prepare(TINY, tmp_path) != dataset.prepare(other, tmp_path)
  shapes = [data.splits['train'].images.shape for data in (first, second)]
  assert (
    shapes[0] != shapes[1] or (first.splits['train'].images != second.splits['train'].images).any()
  )


def test_what_does_not_change_the_data_does_not_prepare_them_again(tmp_path):
  other = dataclasses.replace(TINY, labels=2, resident_share=0.0, root='unused')
  assert dataset.prepare(TINY, tmp_path) == dataset.prepare(other, tmp_path)


@pytest.mark.parametrize(
  'changes',
  [
    dict(mask_classes=('a',)),
    dict(mask_classes=('b',)),
    dict(window=(40.0, 400.0)),
    dict(slice_axis=1),
    dict(every_slice=2),
  ],
)
def test_another_way_of_reading_is_another_preparation(folder, tmp_path, changes):
  other = dataclasses.replace(folder, **changes)
  assert dataset.prepare(folder, tmp_path) != dataset.prepare(other, tmp_path)


def test_changed_files_are_read_again(folder, tmp_path):
  root = tmp_path / 'set'
  assert dataset.load(folder, tmp_path).splits['train'].images[:, 0, 0, 0].tolist() == [0, 50]
  Image.fromarray(np.full((16, 16, 3), 99, np.uint8)).save(root / 'images' / '1.png')
  assert dataset.load(folder, tmp_path).splits['train'].images[:, 0, 0, 0].tolist() == [0, 99]
  (root / 'labels.csv').write_text(
    'image,label,split\n0,x,train\n1,x,train\n2,x,validation\n3,y,test\n'
  )
  assert dataset.load(folder, tmp_path).splits['train'].labels.tolist() == [0, 0]
  (root / 'masks' / '0.png').unlink()
  assert dataset.load(folder, tmp_path).splits['train'].has_mask.tolist() == [False, True]
  Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(root / 'images' / '4.png')
  assert dataset.load(folder, tmp_path).splits['train'].ids == ('0', '1', '4')


def test_dot_files_do_not_prepare_again(folder, tmp_path):
  before = dataset.prepare(folder, tmp_path)
  for name in ('.DS_Store', '._0.png'):
    (tmp_path / 'set' / 'images' / name).write_bytes(b'of the system')
    (tmp_path / 'set' / 'masks' / name).write_bytes(b'of the system')
  assert dataset.prepare(folder, tmp_path) == before


def test_a_failed_preparation_leaves_nothing_to_be_taken_for_data(folder, tmp_path):
  broken = tmp_path / 'set' / 'images' / '3.png'
  whole = broken.read_bytes()
  broken.write_bytes(whole[:40])
  for _ in range(2):
    with pytest.raises(UserError, match=r'images/3.png is damaged'):
      dataset.load(folder, tmp_path)
  assert not [item for item in (tmp_path / 'data').iterdir() if item.is_dir()]
  broken.write_bytes(whole)
  assert len(dataset.load(folder, tmp_path).splits['test']) == 1


def test_a_killed_preparation_is_done_again(tmp_path):
  config = dataclasses.replace(
    TINY, image_size=64, phantom=PhantomConfig(train=20000, validation=1, test=1)
  )
  script = (
    'import sys; from ahm_jax.config import *; from ahm_jax.data import dataset;'
    'dataset.prepare(DataConfig(image_size=64, phantom=PhantomConfig(train=20000, validation=1, test=1)), sys.argv[1])'
  )
  process = subprocess.Popen([sys.executable, '-c', script, str(tmp_path)])
  deadline = time.monotonic() + 60
  while (
    not list(tmp_path.glob('data/*.incomplete/*'))
    and time.monotonic() < deadline
    and process.poll() is None
  ):
    time.sleep(0.05)
  time.sleep(0.3)
  process.send_signal(signal.SIGKILL)
  process.wait()
  left = list(tmp_path.glob('data/*.incomplete'))
  assert left, 'the preparation was to be killed in its course'
  target = left[0].with_suffix('')
  assert not target.exists()

  seen = []

  def build(config, scratch):
    seen.append(scratch.exists())
    folder = scratch / 'made'
    folder.mkdir(parents=True)
    return folder

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(dataset, '_build', build)
    assert dataset.prepare(config, tmp_path) == target
  assert seen == [False]  # The rest of the killed one was cleared away first.
  assert not left[0].exists()


def test_two_processes_prepare_once(tmp_path):
  script = (
    'import sys; from ahm_jax.config import *; from ahm_jax.data import dataset;'
    'print(len(dataset.load(DataConfig(image_size=16, phantom=PhantomConfig(train=3, validation=1, test=1)),'
    ' sys.argv[1]).splits["train"]))'
  )
  command = [sys.executable, '-c', script, str(tmp_path)]
  processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
  assert [process.communicate()[0].strip() for process in processes] == ['3', '3']
  assert len([item for item in (tmp_path / 'data').iterdir() if item.is_dir()]) == 1


def test_preparation_is_silent_on_stdout(tmp_path, capsys):
  dataset.prepare(TINY, tmp_path)
  assert capsys.readouterr().out == ''


def test_tensorflow_is_not_needed(tmp_path):
  script = (
    'import sys; from ahm_jax.config import *; from ahm_jax.data import dataset;'
    'dataset.load(DataConfig(image_size=16, phantom=PhantomConfig(train=1, validation=1, test=1)), sys.argv[1]);'
    'assert "tensorflow" not in sys.modules'
  )
  subprocess.run([sys.executable, '-c', script, str(tmp_path)], check=True)


# Label budgets.


def test_no_budget_takes_all_with_a_mask():
  split = make_split([0, 1, 0, 1], [True, False, True, True])
  assert dataset.labelled_indices(split, 0, 3).tolist() == [0, 2, 3]


def test_budgets_are_nested():
  split = make_split(np.random.default_rng(0).integers(0, 3, 200))
  whole = dataset.labelled_indices(split, 200, 5)
  assert sorted(whole) == list(range(200))
  for count in (1, 20, 50, 199):
    np.testing.assert_array_equal(dataset.labelled_indices(split, count, 5), whole[:count])


@pytest.mark.parametrize(
  'sizes',
  [
    (100,),
    (60, 40),
    (70, 20, 10),
    (451, 1645, 179),
    (1, 1, 97),
    (30, 29, 1, 1, 1, 1),
    (7, 6, 5, 4, 3, 2, 1),
  ],
)
@pytest.mark.parametrize('seed', [0, 1])
def test_budgets_keep_class_shares_to_within_one_image(sizes, seed):
  labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
  chosen = dataset.labelled_indices(make_split(labels), sum(sizes), seed)
  assert sorted(chosen) == list(range(sum(sizes)))
  taken = np.cumsum(labels[chosen][:, None] == np.arange(len(sizes)), 0)
  wanted = np.arange(1, sum(sizes) + 1)[:, None] * np.array(sizes) / sum(sizes)
  assert np.abs(taken - wanted).max() < 1


def test_budgets_take_only_images_with_a_mask():
  has_mask = np.random.default_rng(0).random(100) < 0.3
  split = make_split([0] * 50 + [1] * 50, has_mask)
  chosen = dataset.labelled_indices(split, 15, 0)
  assert has_mask[chosen].all()
  assert len(set(chosen.tolist())) == 15


def test_without_labels_budgets_are_a_seeded_permutation():
  split = make_split([-1] * 40)
  first, second = (dataset.labelled_indices(split, 40, seed) for seed in (0, 1))
  assert sorted(first) == sorted(second) == list(range(40))
  assert first.tolist() != second.tolist()
  assert first.tolist() != list(range(40))


def test_budgets_differ_by_seed_within_classes():
  split = make_split([0] * 50 + [1] * 50)
  chosen = [frozenset(dataset.labelled_indices(split, 10, seed).tolist()) for seed in range(5)]
  assert len(set(chosen)) == 5


def test_budgets_by_label_pass_over_images_without_one():
  split = make_split([0] * 30 + [-1] * 20 + [1] * 30, [False] * 40 + [True] * 40)
  assert dataset.labelled_indices(split, 0, 0, by='label').tolist() == [*range(30), *range(50, 80)]
  chosen = dataset.labelled_indices(split, 20, 0, by='label')
  assert len(set(chosen.tolist())) == 20
  assert np.bincount(split.labels[chosen]).tolist() == [10, 10]


@pytest.mark.parametrize(
  ('by', 'said'),
  [
    ('mask', 'only 5 of 8 have a mask; lower config.data.labels'),
    ('label', 'only 4 of 8 have a label; lower config.classify.labels'),
  ],
)
def test_asking_for_more_labels_than_there_are(by, said):
  split = make_split([0] * 4 + [-1] * 4, [True] * 5 + [False] * 3)
  with pytest.raises(UserError, match=f'^6 labelled training images are asked for, but {said}'):
    dataset.labelled_indices(split, 6, 0, by)


# The order of training images.


def order(seed, steps, examples, batch_size):
  return np.concatenate(
    [dataset.batch_indices(seed, step, examples, batch_size) for step in range(steps)]
  )


@pytest.mark.parametrize(
  ('examples', 'batch_size'), [(12, 4), (10, 4), (7, 3), (5, 12), (1, 3), (8, 8)]
)
def test_every_epoch_is_a_permutation_and_batches_run_on(examples, batch_size):
  steps = 6 * examples
  numbers = order(0, steps, examples, batch_size)
  assert numbers.shape == (steps * batch_size,)
  epochs = numbers.reshape(-1, examples)
  np.testing.assert_array_equal(np.sort(epochs, 1), np.tile(np.arange(examples), (len(epochs), 1)))
  if examples > 4:
    assert len({tuple(epoch) for epoch in epochs[:4]}) == 4


def test_a_batch_is_a_function_of_seed_and_step():
  reference = dataset.batch_indices(3, 17, 100, 12)
  assert reference.dtype == np.int32
  for step in (400, 0):
    dataset.batch_indices(3, step, 100, 12)
  dataset._permutation.cache_clear()
  np.testing.assert_array_equal(dataset.batch_indices(3, 17, 100, 12), reference)
  assert dataset.batch_indices(4, 17, 100, 12).tolist() != reference.tolist()
  np.testing.assert_array_equal(dataset.batch_indices(3, np.int32(17), 100, 12), reference)


def test_the_batch_size_does_not_change_the_order():
  np.testing.assert_array_equal(order(1, 12, 10, 5), order(1, 5, 10, 12))


def test_the_order_is_the_same_on_every_platform():
  assert dataset.batch_indices(0, 0, 10, 10).tolist() == [9, 6, 4, 8, 7, 0, 5, 2, 1, 3]


def test_late_steps_do_not_overflow():
  indices = dataset.batch_indices(0, 2**40, 1000, 32)
  assert indices.min() >= 0 and indices.max() < 1000
  assert len(set(indices.tolist())) > 16


def test_no_examples():
  with pytest.raises(UserError, match='no images to train on'):
    dataset.batch_indices(0, 0, 0, 4)
