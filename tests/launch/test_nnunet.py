"""A data set of nnU-Net from its raw format to predictions that are scored as nnU-Net's are."""

import csv
from types import SimpleNamespace

import jax
import nibabel
import numpy as np
import pytest

from ahm_jax.config import (
  AugmentConfig,
  Config,
  DataConfig,
  MaskingConfig,
  ModelConfig,
  SegmentConfig,
)
from ahm_jax.pipeline import data as checking
from ahm_jax.pipeline import evaluate as scoring
from ahm_jax.pipeline import setup, stages
from ahm_jax.pipeline.stages import SEGMENT
from ahm_jax.predict.options import Options
from ahm_jax.predict.run import predict
from ahm_jax.runs.trained import load
from ahm_jax.runtime import parallel
from tests.data.sets.nnunet_set import NnUNet, save_nifti

CLASSES = ('left_atrium', 'tumour')
SIDE, SLICES = 32, 4
TRAINED, VALIDATED, TESTED = 'abcdef', 'gh', 'xy'
LPS = np.array([[-0.8, 0, 0, 90], [0, -0.8, 0, 80], [0, 0, 2.5, -30], [0, 0, 0, 1.0]])
PIR = np.array([[0, 0, 0.8, 5], [-0.8, 0, 0, 40], [0, -2.5, 0, 60], [0, 0, 0, 1.0]])


def draw(case: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Intensities int16 and indices uint8 as they are stored, and their affine; every other case has
  its axes in another order.
  """
  rng = np.random.default_rng(ord(case))
  labels = np.zeros((SIDE, SIDE, SLICES), np.uint8)
  top, left = rng.integers(2, 8), rng.integers(2, 16)
  labels[top : top + 11, left : left + 12, 1:] = 1
  labels[top + 14 : top + 22, 3:12, :3] = 2
  values = np.array([0, 400, 900])[labels] + rng.integers(-40, 41, labels.shape)
  values += np.kron(rng.integers(0, 121, (8, 8, SLICES)), np.ones((4, 4, 1), int))
  if ord(case) % 2:
    return values.astype(np.int16), labels, LPS
  turned = (part.transpose(1, 2, 0) for part in (values.astype(np.int16), labels))
  return (*turned, PIR)


@pytest.fixture(scope='module')
def journey(tmp_path_factory):
  """Prepared, checked, trained from scratch, scored, and predicted."""
  home = tmp_path_factory.mktemp('nnunet')
  made = NnUNet(home / 'Dataset011_Heart', ('left atrium', 'tumour'), ('MRI',))
  for kind, cases in (('Tr', TRAINED + VALIDATED), ('Ts', TESTED)):
    for case in cases:
      values, labels, affine = draw(case)
      save_nifti(made.image(case, kind), values, affine)
      save_nifti(made.label(case, kind), labels, affine)
  made.write(numTraining=len(TRAINED + VALIDATED)).folds((TRAINED, VALIDATED))
  config = Config(
    data=DataConfig(
      name='nnunet', root=str(made.root), image_size=SIDE, channels=1, mask_classes=CLASSES
    ),
    model=ModelConfig(unet_width=8),
    masking=MaskingConfig(patch_size=8),
    segment=SegmentConfig(
      batch_size=8,
      learning_rate=1e-2,
      steps=60,
      schedule='cosine',
      eval_every=30,
      augment=AugmentConfig(scale=0.1),
    ),
  )
  run = home / 'run'
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(parallel, 'all_devices', lambda: tuple(jax.local_devices()[:1]))
    errors = checking.check_data(config, home / 'check')
    data = setup.load_data(config, run)
    stages.segment(config, run, data)
    evaluation = scoring.evaluate(config, run, data)
    counts = predict(load(run, (SEGMENT,)), made.root / 'imagesTs', home / 'out', Options(0.5))
  return SimpleNamespace(
    made=made, home=home, data=data, errors=errors, evaluation=evaluation, counts=counts, run=run
  )


def test_the_splits_are_those_that_were_asked_for(journey):
  groups = {name: set(split.groups) for name, split in journey.data.splits.items()}
  assert groups == {'train': {*TRAINED}, 'validation': {*VALIDATED}, 'test': {*TESTED}}
  assert not journey.errors


def test_predictions_are_cases_of_the_labels_shape_and_place(journey):
  assert journey.counts == (2, 0)
  volumes = journey.home / 'out/volumes'
  assert sorted(path.name for path in volumes.iterdir()) == ['x.nii.gz', 'y.nii.gz']
  for case in TESTED:
    found, truth = (
      nibabel.load(path) for path in (volumes / f'{case}.nii.gz', journey.made.label(case, 'Ts'))
    )
    assert found.shape == truth.shape and found.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(found.affine, truth.affine)


def test_a_dice_of_volumes_by_hand(journey):
  """What was learnt is found where it is, in volumes whose axes lie differently."""
  for case in TESTED:
    found, truth = (
      np.asarray(nibabel.load(path).dataobj)
      for path in (journey.home / f'out/volumes/{case}.nii.gz', journey.made.label(case, 'Ts'))
    )
    for k in (1, 2):
      dice = 2 * ((found == k) & (truth == k)).sum() / ((found == k).sum() + (truth == k).sum())
      assert dice > 0.8, (case, k)


def test_the_scores_of_slices_are_those_of_the_volumes(journey):
  """Evaluation and prediction find the same masks: Dice of each slice of the written volumes."""
  with (journey.run / 'per_image.csv').open() as file:
    rows = {row['image']: row for row in csv.DictReader(file)}
  assert len(rows) == len(TESTED) * SLICES
  for case in TESTED:
    found, truth = (
      np.asarray(nibabel.as_closest_canonical(nibabel.load(path)).dataobj)
      for path in (journey.home / f'out/volumes/{case}.nii.gz', journey.made.label(case, 'Ts'))
    )
    for number in range(SLICES):
      row = rows[f'{case}_s{number:04d}']
      for k, name in enumerate(CLASSES, 1):
        one, other = found[..., number] == k, truth[..., number] == k
        both = one.sum() + other.sum()
        if both:
          expected = 2 * (one & other).sum() / both
          assert float(row[f'dice_{name}']) == pytest.approx(expected, abs=1e-5)
