"""Masks of three classes, from a folder of index images to the report of a grid."""

import csv
import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image
from scipy import special

from ahm_jax.config import (
  AugmentConfig,
  ClassifyConfig,
  Config,
  DataConfig,
  GridConfig,
  MaskingConfig,
  ModelConfig,
  PretrainConfig,
  RecipeConfig,
  SegmentConfig,
)
from ahm_jax.data.augment import normalise
from ahm_jax.models.unet import UNet
from ahm_jax.pipeline import evaluate as scoring
from ahm_jax.pipeline import grid, lesions, setup, stages
from ahm_jax.pipeline.stages import CLASSIFY, SEGMENT
from ahm_jax.runs import checkpoint_reading
from ahm_jax.runs.trained import load_run
from ahm_jax.runtime import parallel
from launch import evaluate

CLASSES = ('disc', 'square', 'bar')
COLOURS = np.array([(150, 150, 150), (220, 40, 40), (40, 200, 60), (30, 30, 120)])
SPLITS = ['train'] * 12 + ['validation'] * 4 + ['test'] * 4


def draw(number: int) -> np.ndarray:
  """Class indices, uint8 [h, w], of many sizes: a disc and a square, a bar in three of four, and
  nothing in every tenth.
  """
  rng = np.random.default_rng(number)
  height, width = 44 + 4 * (number % 3), 56 - 6 * (number % 4)
  mask = np.zeros((height, width), np.uint8)
  if number % 10 == 9:
    return mask
  rows, columns = np.mgrid[:height, :width]
  mask[(rows - 14) ** 2 + (columns - 12) ** 2 <= rng.integers(60, 100)] = 1
  top, left = rng.integers(4, 12), rng.integers(22, 25)
  mask[top : top + 12, left : left + 12] = 2
  if number % 4:
    mask[height - 14 : height - 5, 4 : width - 6] = 3
  return mask


def draw_folder(root: Path) -> None:
  lines = ['image,label,split']
  for name in ('images', 'masks'):
    (root / name).mkdir(parents=True)
  for number, split in enumerate(SPLITS):
    mask, name = draw(number), f'{split}{number:02d}'
    noise = np.random.default_rng(100 + number).integers(-20, 21, (*mask.shape, 3))
    Image.fromarray((COLOURS[mask] + noise).clip(0, 255).astype(np.uint8)).save(
      root / 'images' / f'{name}.png'
    )
    Image.fromarray(mask).save(root / 'masks' / f'{name}.png')
    lines.append(f'{name},{"ab"[number % 2]},{split}')
  (root / 'labels.csv').write_text('\n'.join(lines) + '\n')


def make_config(root: Path, prepared: Path) -> Config:
  still = AugmentConfig(scale=0.1, hue=0.0)
  recipe = RecipeConfig(
    batch_size=8, learning_rate=1e-2, steps=40, schedule='cosine', eval_every=20, augment=still
  )
  return Config(
    data=DataConfig(
      name='folder', root=str(root), image_size=32, mask_classes=CLASSES, prepared_dir=str(prepared)
    ),
    model=ModelConfig(unet_width=8, agent_width=4, agent_trunk='light', vgg_width=2, vgg_hidden=8),
    masking=MaskingConfig(strategy='uniform', patch_size=8, workers=2),
    pretrain=PretrainConfig(**vars(dataclasses.replace(recipe, steps=4, eval_every=4))),
    segment=SegmentConfig(**vars(recipe)),
    grid=GridConfig(methods=('scratch', 'uniform'), labels=(0,), seeds=(0,), classify=False),
  )


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  """The stages by hand, in a grid's directories.

  Then the grid, which makes what is missing of them.
  """
  home = tmp_path_factory.mktemp('classes')
  draw_folder(home / 'folder')
  config = make_config(home / 'folder', home / 'data')
  workdir = home / 'grid'
  before, after = workdir / 'pretrain/uniform/seed0', workdir / 'segment/uniform/labels0/seed0'
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(parallel, 'all_devices', lambda: tuple(jax.local_devices()[:1]))
    data = setup.load_data(config, workdir)
    stages.pretrain(config, before, data)
    segment = dataclasses.replace(config, init_from=str(before))
    stages.segment(segment, after, data)
    evaluation = scoring.evaluate(segment, after, data)
    results = grid.reproduce(config, workdir)
  return SimpleNamespace(
    home=home,
    config=config,
    workdir=workdir,
    segment=after,
    data=data,
    evaluation=evaluation,
    results=results,
  )


def per_image(run: Path) -> dict[str, dict[str, float]]:
  with (run / 'per_image.csv').open() as file:
    return {
      row.pop('image'): {name: float(value) for name, value in row.items()}
      for row in csv.DictReader(file)
    }


def test_it_learns_every_class(runs):
  assert runs.evaluation['dice'] > 0.75
  assert min(runs.evaluation['dice_by_class'].values()) > 0.5
  assert list(runs.evaluation['dice_by_class']) == list(CLASSES)
  lines = [json.loads(line) for line in (runs.segment / 'metrics.jsonl').read_text().splitlines()]
  assert lines[-1]['validation/dice'] > 0.75
  assert {f'validation/dice_{name}' for name in CLASSES} <= set(lines[-1])


def test_one_image_by_other_means(runs):
  """It is read, segmented and scored here with NumPy, SciPy and Pillow: probabilities are
  resized, then compared.
  """
  name, number = 'test17', 17
  truth = draw(number)
  with Image.open(runs.home / 'folder/images' / f'{name}.png') as image:
    small = np.asarray(image.resize((32, 32), Image.Resampling.BICUBIC))
  best = checkpoint_reading.load_variables(runs.segment, best=True)
  variables = {'params': best['params'], 'batch_stats': best['batch_stats']}
  logits = np.asarray(
    UNet(out_channels=4, width=8).apply(variables, normalise(small[None] / 255.0), train=False)[0]
  )
  planes = np.moveaxis(special.softmax(logits, -1).astype(np.float32), -1, 0)
  resized = [
    Image.fromarray(plane).resize(truth.shape[::-1], Image.Resampling.BILINEAR) for plane in planes
  ]
  found = np.stack([np.asarray(plane) for plane in resized]).argmax(0)
  row = per_image(runs.segment)[name]
  expected = []
  for k, item in enumerate(CLASSES, 1):
    expected.append(
      2 * ((found == k) & (truth == k)).sum() / ((found == k).sum() + (truth == k).sum())
    )
    assert row[f'dice_{item}'] == pytest.approx(expected[-1], abs=5e-3)
  assert row['dice'] == pytest.approx(np.mean(expected), abs=5e-3)


def test_means_over_images_leave_out_what_is_empty_on_both_sides(runs):
  rows = per_image(runs.segment)
  assert set(rows) == {f'test{number}' for number in range(16, 20)}
  for key in ('dice', 'iou', 'hd95', 'precision', 'recall'):
    assert runs.evaluation[key] == pytest.approx(np.nanmean([row[key] for row in rows.values()]))
    for name in CLASSES:
      expected = np.nanmean([row[f'{key}_{name}'] for row in rows.values()])
      assert runs.evaluation[f'{key}_by_class'][name] == pytest.approx(expected)
  assert rows['test19']['tp'] == rows['test19']['fn'] == 0  # An image of nothing.
  assert (
    json.loads((runs.segment / 'evaluation.json').read_text())['dice_by_class']
    == runs.evaluation['dice_by_class']
  )


def test_the_grid_takes_over_the_stages_and_tells_each_class(runs):
  scratch, uniform = runs.results['summary']
  assert uniform['dice'] == pytest.approx(runs.evaluation['dice'])
  assert uniform['dice_by_class'] == pytest.approx(runs.evaluation['dice_by_class'])
  for name, (low, high) in scratch['dice_by_class_ci95'].items():
    assert 0 <= low <= scratch['dice_by_class'][name] <= high <= 1
  assert [cell['dice_by_class'] for cell in runs.results['cells']] == [
    row['dice_by_class'] for row in (scratch, uniform)
  ]
  saved = json.loads((runs.workdir / 'results.json').read_text())
  assert saved['config']['data']['mask_classes'] == list(CLASSES)
  assert saved['summary'][1]['dice_by_class'] == uniform['dice_by_class']
  agent = json.loads((runs.workdir / 'pretrain/uniform/seed0/evaluation.json').read_text())
  assert agent['border_lift'] == pytest.approx(1)  # Uniform masks do not care.


def test_the_report_tells_each_class(runs):
  page = (runs.workdir / 'report.html').read_text()
  for name in CLASSES:
    assert f'>Dice, {name}</th>' in page
    assert f'{runs.results["summary"][1]["dice_by_class"][name]:.3f}' in page
  # 4 images.
  assert (
    page.count('alt="True classes on image ')
    == page.count('alt="Predicted classes on image ')
    == 4 + 3
  )
  assert 'border it predicted' not in page


def test_the_classifier_sees_all_classes_as_lesion(runs, tmp_path):
  """In place of a lesion: what is not background, by each image's likeliest class."""
  images = runs.data.splits['test'].images
  segmenter = load_run(runs.segment, SEGMENT, runs.config)
  probabilities = lesions.probabilities(segmenter, images)
  assert probabilities.shape == (4, 32, 32, 4)
  np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-5)
  found = lesions.find(segmenter, images, 0.99)
  np.testing.assert_array_equal(found, probabilities.argmax(-1) > 0)
  truth = runs.data.splits['test'].masks > 0
  assert (found == truth).mean() > 0.9
  classify = ClassifyConfig(input='masked')
  config = dataclasses.replace(runs.config, init_from=str(runs.segment), classify=classify)
  plan = CLASSIFY.plan(setup.open_run(CLASSIFY, config, tmp_path, runs.data))
  train = runs.data.splits['train'].images
  found = lesions.find(segmenter, train, 0.5)
  for shown, image, lesion in zip(plan.split.images, train, found, strict=True):
    np.testing.assert_array_equal(shown, image * lesion[..., None] if lesion.any() else image)


def test_a_command_takes_the_classes_as_a_flag(commands, runs, tmp_path):
  flags = [
    '--config=configs/folder.py',
    f'--workdir={tmp_path}',
    f'--config.data.root={runs.home / "folder"}',
  ]
  done = commands.run('prepare_data', *flags, '--config.data.mask_classes=disc,square,bar')
  assert (done.returncode, done.stderr) == (0, '')
  done = commands.run('prepare_data', *flags)
  assert done.returncode == 2 and 'is not binary' in done.stderr


def test_the_command_says_each_class(runs, monkeypatch, capsys):
  monkeypatch.setattr(scoring, 'evaluate', lambda *_: runs.evaluation)
  evaluate.evaluate(runs.config, runs.segment)
  lines = capsys.readouterr().out.splitlines()
  assert f'dice                         {runs.evaluation["dice"]:.4f}' in lines
  assert f'dice_by_class square         {runs.evaluation["dice_by_class"]["square"]:.4f}' in lines
