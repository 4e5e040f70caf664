"""What a card takes from the folder that a network came from."""

import json
import types

import pytest

from ahm_jax.config import (
  Config,
  DataConfig,
  DiagnosisConfig,
  ReconstructionConfig,
  SegmentConfig,
  UnlabelledConfig,
  to_dict,
)
from ahm_jax.errors import UserError
from ahm_jax.evaluation import per_image
from ahm_jax.export import card
from ahm_jax.pipeline.stages import SEGMENT
from ahm_jax.runs import directory
from ahm_jax.runs.trained import EXPORT
from ahm_jax.runtime import json_files
from tests.hostile_json import DAMAGES

KNOWN = {
  'data': {'name': 'toy', 'splits': {}, 'class_names': [], 'trained_on': 3},
  'scores': {'split': 'test', 'values': {'dice': 0.5, 'hd95': None}, 'intervals': {'dice': [0, 1]}},
}
SOUND = {
  **{'format': 'orbax', 'stage': 'segment', 'digest': '', 'step': 3, 'class_names': []},
  **{'config': to_dict(Config()), **KNOWN},
}


def taken(folder, text):
  (folder / EXPORT).write_bytes(text)
  return card.data_and_scores(types.SimpleNamespace(path=folder))


@pytest.mark.parametrize('left', [(), ('data',), ('data', 'scores')])
def test_those_of_an_export_are_taken_over(tmp_path, left):
  held = {name: value for name, value in SOUND.items() if name not in left}
  assert taken(tmp_path, json.dumps(held).encode()) == {**KNOWN, **dict.fromkeys(left)}


WRONG = {
  'Dice as a text': {'scores': {**KNOWN['scores'], 'values': {'dice': '<b>'}}},
  'an interval of one': {'scores': {**KNOWN['scores'], 'intervals': {'dice': [0]}}},
  'no counts': {'data': {**KNOWN['data'], 'splits': {'train': {}}}},
  'a list': {'data': []},
}


@pytest.mark.parametrize(
  'text',
  [*DAMAGES.values(), *(json.dumps({**SOUND, **wrong}).encode() for wrong in WRONG.values())],
  ids=[*DAMAGES, *WRONG],
)
def test_an_export_that_is_damaged_is_refused(tmp_path, text):
  with pytest.raises(UserError, match=r'/export\.json is damaged: .*; export it again$'):
    taken(tmp_path, text)


def test_the_card_says_what_becomes_of_modalities():
  names, entries = ('t1_ce', 'ct'), ('zscore', 'window/40/400')
  data = DataConfig(name='folder', modalities=names, intensity=entries)
  told = card._kind(data)
  assert told.startswith('images of 2 modalities, in this order: t1_ce (')
  assert "0 and 255 are 3 standard deviations below and above the mean of the case's values" in told
  assert 'ct (0 and 255 are the values -160 and 240)' in told
  percentile = card._kind(DataConfig(name='folder', modalities=('flair',)))
  assert 'the 0.5th and 99.5th percentile' in percentile and '1 modalit' in percentile
  kinds = [card._kind(DataConfig()), card._kind(DataConfig(channels=1))]
  assert kinds == ['RGB images', 'grey images']


def scored(folder, accuracy):
  """A run whose test split has three images with a mask, of which two have a label."""
  rows = [
    {'image': name, **dict.fromkeys(card._SCORES, dice), 'label': label, 'predicted': found}
    for name, dice, label, found in (
      ('a', 0.2, 'benign', 'benign'),
      ('b', 0.4, 'benign', 'malignant'),
      ('c', 0.9, '', ''),
    )
  ]
  per_image.write(folder / directory.PER_IMAGE, rows)
  result = {'stage': 'segment', 'split': 'test', 'threshold': 0.5, 'dice': 0.5}
  json_files.write_json(folder / directory.EVALUATION, {**result, 'accuracy': accuracy})
  return card._scores(types.SimpleNamespace(path=folder, config=Config()))


def test_an_interval_is_of_the_images_that_its_score_is_of(tmp_path):
  """Diagnoses are scored on images without a mask too, which have no row."""
  whole = scored(tmp_path, 0.5)
  assert whole['values']['accuracy'] == 0.5 and set(whole['intervals']) == {'dice', 'accuracy'}
  low, high = whole['intervals']['dice']
  assert low < 0.5 < high
  part = scored(tmp_path, 0.7)
  assert part['values']['accuracy'] == 0.7 and set(part['intervals']) == {'dice'}


def test_the_card_says_what_was_learnt_from_beside_masks():
  def told(**parts):
    config = Config(segment=SegmentConfig(batch_size=4, **parts))
    return card._data(types.SimpleNamespace(stage=SEGMENT, config=config), KNOWN['data'])

  alone = told()
  assert alone == ['- Name: toy', '- Trained on 3 images, 4 at a step, seed 0']
  assert told(
    diagnosis=DiagnosisConfig(batch_size=6),
    reconstruction=ReconstructionConfig(batch_size=8),
    unlabelled=UnlabelledConfig(batch_size=2),
  ) == [
    *alone,
    '- Beside them at a step, any of the training split: 6 for their label, 8 to be reconstructed, '
    '2 to be segmented as a teacher does',
  ]
  (line,) = set(told(reconstruction=ReconstructionConfig(batch_size=2))) - set(alone)
  assert line.endswith('training split: 2 to be reconstructed')
