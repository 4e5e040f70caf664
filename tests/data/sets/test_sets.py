"""The table of data sets: which there are, and what each needs of the config."""

import dataclasses
import re

import pytest

from ahm_jax.config import DataConfig
from ahm_jax.data import dataset, sets
from ahm_jax.data.audit import inspection
from ahm_jax.data.prepare import prepare
from ahm_jax.data.sets import phantom
from ahm_jax.data.sets.items import Listing
from ahm_jax.data.sets.source import DatasetSource
from ahm_jax.errors import UserError

NAMES = ', '.join(source.name for source in sets.SOURCES)
REFUSED = [
  (
    DataConfig(name='folders', root='mine'),
    f"config.data.name is 'folders'; it may be {NAMES}; did you mean folder?",
  ),
  (DataConfig(name='x'), f"config.data.name is 'x'; it may be {NAMES}"),
  (
    DataConfig(name='folder'),
    'config.data.root is not set; give the folder that holds images/: --config.data.root=DIR',
  ),
  (
    DataConfig(name='isic2018'),
    'config.data.root is not set; give the folder that holds the official archives: '
    '--config.data.root=DIR',
  ),
  (
    DataConfig(mask_classes=('cup',)),
    "config.data.mask_classes is ('cup',), but data.name=phantom has binary masks; leave it empty",
  ),
  (
    DataConfig(name='isic2018', root='mine', mask_classes=('cup',)),
    'data.name=isic2018 has binary masks',
  ),
]


@pytest.mark.parametrize(('config', 'message'), REFUSED)
def test_what_does_not_fit_the_data_set_is_refused_before_anything_is_read(
  config, message, tmp_path
):
  for use in (
    sets.check,
    lambda config: prepare(config, tmp_path / 'work'),
    lambda config: dataset.load(config, tmp_path / 'work'),
    lambda config: inspection.inspect(config, lambda *_: b''),
  ):
    with pytest.raises(UserError, match=f'^.*{re.escape(message)}'):
      use(config)
  assert not (tmp_path / 'work').exists()


def test_what_fits_is_taken():
  sets.check(DataConfig())
  sets.check(DataConfig(name='folder', root='mine', mask_classes=('disc', 'cup')))
  sets.check(DataConfig(name='isic2018', root='mine'))


def test_names_to_be_shown(tmp_path):
  for name, expected in (('folder', 'lesions'), ('isic2018', 'isic2018'), ('phantom', 'phantom')):
    config = DataConfig(name=name, root=str(tmp_path / 'lesions'))
    assert sets.find(config).display_name(config) == expected


def test_a_data_set_is_a_record_in_the_table(tmp_path, monkeypatch):
  """Nothing else needs to know of it: it can be inspected, prepared, and loaded."""

  def list_items(config):
    items = [item._replace(label='') for item in phantom.list_items(config).items]
    return Listing(items, [], [], ['a note'])

  source = DatasetSource('mine', 3, list_items, lambda config: {'x': config.channels})
  monkeypatch.setattr(sets, 'SOURCES', (*sets.SOURCES, source))
  counts = dataclasses.replace(DataConfig().phantom, train=3, validation=1, test=1)
  config = DataConfig(name='mine', image_size=16, phantom=counts)
  data = dataset.load(config, tmp_path)
  assert (data.name, data.class_names, data.notes) == ('mine', (), ('a note',))
  assert data.splits['train'].ids == ('train_000000', 'train_000001', 'train_000002')
  assert data.splits['train'].labels.tolist() == [-1, -1, -1]
  seen = inspection.inspect(config, lambda *_: b'')
  assert [image.name for image in seen.images][-1] == 'test_000000' and seen.notes == ('a note',)
