"""Data sets as nnU-Net has them (Isensee et al. 2021, doi 10.1038/s41592-020-01008-z; its raw
format, documentation/dataset_format.md), and the Medical Segmentation Decathlon (Antonelli et al.
2022, doi 10.1038/s41467-022-30695-9), which has an older dataset.json.

  dataset.json         see `nnunet_json`
  imagesTr/CASE_0000.nii.gz   or .nii, .png, .tif, .bmp; of several channels CASE_0001 and so on
                              too; of the Decathlon CASE.nii.gz, with a fourth axis of channels
  labelsTr/CASE.nii.gz        values 0 (background), 1, 2, ... as dataset.json names them
  imagesTs, labelsTs   optional, the test split; imagesTs without labels is not used at all
  splits_final.json    optional, from nnU-Net's preprocessed folder; see `nnunet_splits`

A case is an image, or a volume of which each slice is one, and a group. Where several cases are of
one patient, splits_final.json tells them apart, and nothing else does.

Of one label, masks are binary; of several, config.data.mask_classes holds their names, in the order
of their values; config.data.modalities as many names as there are channels, but for one channel and
for colours, which lie in one file a case. Regions and labels to be ignored are refused.
"""

import hashlib
from pathlib import Path
from typing import Any

from ahm_jax.config import DataConfig
from ahm_jax.data.readers import dispatch
from ahm_jax.data.sets import nnunet_cases, nnunet_json, nnunet_splits
from ahm_jax.data.sets.items import Item, Listing
from ahm_jax.data.sets.nnunet_cases import Pair
from ahm_jax.data.sets.nnunet_json import Description
from ahm_jax.data.sets.source import DatasetSource, stamps
from ahm_jax.errors import UserError
from ahm_jax.runtime import json_files

VERSION = 1  # See `DatasetSource.version`.


def list_items(config: DataConfig) -> Listing:
  """Lists the cases under `config.root`, ordered by name within their splits; reads no pixels.

  Raises:
    UserError: dataset.json or splits_final.json cannot be used, or asks for other
      config.data.mask_classes; or there is no case.
  """
  root = Path(config.root).expanduser()
  description = nnunet_json.read(root)
  nnunet_json.check_channels(description, config)
  nnunet_json.check_classes(description, config)
  found = nnunet_cases.find(root, description, config)
  training = [_item(case, 'train', description) for case in found.training]
  test = [_item(case, 'test', description) for case in found.test]
  for pair in (*found.training, *found.test)[:1]:
    if dispatch.is_volume_file(pair.first):
      dispatch.require(pair.first)
  try:
    items = nnunet_splits.assign(root, training, test, config, found.notes)
  except UserError as error:
    if not found.problems:
      raise
    items, problems = [*training, *test], [*found.problems, str(error)]
  else:
    problems = found.problems
  return Listing(items, problems, [], found.notes)


def _item(case: Pair, split: str, description: Description) -> Item:
  image, label = case.image, case.label
  return Item(case.name, split, '', case.name, image, label, classes=description.classes)


def depends_on(config: DataConfig) -> dict[str, Any]:
  root = Path(config.root).expanduser().resolve()
  description = nnunet_json.read(root)
  places = [root / name for name in (*nnunet_cases.TRAINING, *nnunet_cases.TEST)]
  for case in description.listed or ():
    places += [root / name for name in (*case.images, case.label)]
  return {
    'root': str(root),
    'skip': config.skip_unreadable,
    'fractions': config.split_fractions,
    'fold': config.fold,
    'classes': config.mask_classes,
    'window': config.window,
    'slices': [config.slice_axis, config.every_slice],
    'tables': [_digest(root / name) for name in (nnunet_json.FILE, nnunet_splits.FILE)],
    'files': sorted({stamp for place in places for stamp in stamps(place)}),
  }


def _digest(path: Path) -> str:
  return hashlib.sha256(json_files.read_bytes(path) or b'').hexdigest()


SOURCE = DatasetSource(
  name='nnunet',
  version=VERSION,
  list_items=list_items,
  depends_on=depends_on,
  root='the folder that holds dataset.json',
  is_named_by_root=True,
  has_mask_classes=True,
  has_modalities=True,
)
