"""Data sets of nnU-Net and of the Decathlon, made up for tests."""

import json
import re

import nibabel
import numpy as np
import pytest
from PIL import Image

from ahm_jax.config import DataConfig
from ahm_jax.data import dataset
from ahm_jax.errors import UserError

LPS = np.array([[-0.8, 0, 0, 90], [0, -0.7, 0, 80], [0, 0, 2.5, -30], [0, 0, 0, 1.0]])
SIX = 'abcdef'  # Names of cases.
SHAPE = (12, 10, 3)


def label(seed=0, classes=1, shape=SHAPE):
  """Indices uint8, a block of each class in the middle slice."""
  values = np.zeros(shape, np.uint8)
  for k in range(1, classes + 1):
    values[2 + seed % 3 : 6, 2 * k : 2 * k + 2, 1] = k
  return values


def image(values, seed=0):
  """Intensities int16 that show a label."""
  noise = np.random.default_rng(seed).integers(-30, 31, values.shape)
  return (100 * values.astype(int) + noise).astype(np.int16)


def save_nifti(path, values, affine=LPS):
  path.parent.mkdir(parents=True, exist_ok=True)
  nibabel.Nifti1Image(values, affine).to_filename(path)


def save_picture(path, values):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(values).save(path)


class NnUNet:
  """A folder under construction; of the Decathlon where `decathlon` is set."""

  def __init__(self, root, labels=('tumour',), channels=('CT',), ending='.nii.gz', decathlon=False):
    self.root, self.labels, self.ending, self.decathlon = root, labels, ending, decathlon
    self.channels = len(channels)
    self.names = ['background', *labels]
    if decathlon:
      self.tree = {
        'modality': {str(k): name for k, name in enumerate(channels)},
        'labels': {str(k): name for k, name in enumerate(self.names)},
        'numTraining': 0,
        'training': [],
        'test': [],
      }
    else:
      self.tree = {
        'channel_names': {str(k): name for k, name in enumerate(channels)},
        'labels': {name: k for k, name in enumerate(self.names)},
        'numTraining': 0,
        'file_ending': ending,
      }
    root.mkdir()
    self.write()

  def write(self, **changed):
    """dataset.json, with what is changed; None: left out."""
    self.tree |= changed
    tree = {key: value for key, value in self.tree.items() if value is not None}
    (self.root / 'dataset.json').write_text(json.dumps(tree))
    return self

  def image(self, case, kind='Tr', channel=0):
    number = '' if self.decathlon else f'_{channel:04d}'
    return self.root / f'images{kind}' / f'{case}{number}{self.ending}'

  def label(self, case, kind='Tr'):
    return self.root / f'labels{kind}' / f'{case}{self.ending}'

  def add(self, *cases, kind='Tr', affine=LPS, labelled=True):
    for case in cases:
      seed = sum(map(ord, case))
      values = label(seed, len(self.labels))
      if self.ending.startswith('.nii'):
        every = [image(values, seed + 100 * k) for k in range(self.channels)]
        if self.decathlon and self.channels > 1:
          save_nifti(self.image(case, kind), np.stack(every, -1), affine)
        else:
          for k, channel in enumerate(every):
            save_nifti(self.image(case, kind, k), channel, affine)
      else:
        rgb = np.random.default_rng(seed).integers(0, 256, (*SHAPE[:2], 3), np.uint8)
        save_picture(self.image(case, kind), rgb)
        values = values[..., 1]
      if labelled:
        save = save_nifti if self.ending.startswith('.nii') else save_picture
        save(self.label(case, kind), values, *([affine] if save is save_nifti else []))
      if kind == 'Tr':
        self.tree['numTraining'] += 1
        if self.decathlon:
          pair = (self.image(case), self.label(case))
          places = [f'./{path.relative_to(self.root)}' for path in pair]
          self.tree['training'].append(dict(zip(('image', 'label'), places, strict=True)))
    return self.write()

  def folds(self, *folds):
    """splits_final.json, of (train, val) as strings of names of a letter."""
    tree = [{'train': list(train), 'val': list(validation)} for train, validation in folds]
    (self.root / 'splits_final.json').write_text(json.dumps(tree))
    return self

  def config(self, **fields):
    return DataConfig(
      **{'name': 'nnunet', 'root': str(self.root), 'image_size': 16, 'channels': 1, **fields}
    )

  def load(self, **fields):
    return dataset.load(self.config(**fields), self.root.parent / 'work')

  def cases(self, **fields):
    """Names of cases by split."""
    splits = self.load(**fields).splits
    return {name: ''.join(dict.fromkeys(split.groups)) for name, split in splits.items()}

  def refused(self, *patterns, **fields):
    """Checks that loading raises a UserError of one line that matches every pattern."""
    with pytest.raises(UserError) as caught:
      self.load(**fields)
    message = str(caught.value)
    assert '\n' not in message and len(message) < 1500
    assert str(self.root) in message
    for pattern in patterns:
      assert re.search(pattern, message), message
    return message
