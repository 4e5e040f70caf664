"""Images of a prepared split, read again at their own size."""

import nibabel
import numpy as np
import pytest
from PIL import Image

from ahm_jax.config import DataConfig, PhantomConfig
from ahm_jax.data import dataset
from ahm_jax.data.originals import pictures
from ahm_jax.errors import UserError

SIZES = {'c': (40, 30), 'a': (25, 64), 'b': (33, 33), 'bare': (20, 20)}  # Width and height.


@pytest.fixture
def root(tmp_path):
  """Four images to test on, one without a mask; one to train on and one to validate."""
  root = tmp_path / 'lesions'
  for name in ('images', 'masks'):
    (root / name).mkdir(parents=True)
  rows = ['image,split']
  for number, (name, (width, height)) in enumerate(
    (SIZES | {'t': (16, 16), 'v': (16, 16)}).items()
  ):
    pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(root / 'images' / f'{name}.png')
    if name != 'bare':
      Image.fromarray(np.uint8(255 * (pixels[..., 0] > 99))).save(root / 'masks' / f'{name}.png')
    rows.append(f'{name},{ {"t": "train", "v": "validation"}.get(name, "test") }')
  (root / 'labels.csv').write_text('\n'.join(rows) + '\n')
  return root


def prepared(root, tmp_path, **options):
  config = DataConfig(name='folder', root=str(root), image_size=16, **options)
  return config, dataset.load(config, tmp_path / 'work').splits['test']


def test_images_come_as_their_files_hold_them_in_the_order_of_the_split(root, tmp_path):
  config, split = prepared(root, tmp_path)
  split = split.take(split.has_mask)
  found = list(pictures(config, 'test', split))
  assert sorted(split.ids) == ['a', 'b', 'c']
  assert len(found) == 3
  for name, pixels, i in zip(split.ids, found, range(3), strict=True):
    np.testing.assert_array_equal(pixels, np.asarray(Image.open(root / f'images/{name}.png')))
    assert pixels.shape[:2] == split.full_mask(i).shape == SIZES[name][::-1]


def test_grey_data_stay_grey(root, tmp_path):
  config, split = prepared(root, tmp_path, channels=1)
  for name, pixels in zip(split.ids, pictures(config, 'test', split), strict=True):
    np.testing.assert_array_equal(
      pixels[..., 0], np.asarray(Image.open(root / f'images/{name}.png').convert('L'))
    )


def test_every_second_slice_of_a_volume(root, tmp_path):
  values = np.random.default_rng(9).integers(0, 256, (12, 10, 5)).astype(np.uint8)
  nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), root / 'images/b_v.nii.gz')
  nibabel.save(nibabel.Nifti1Image(np.uint8(values > 99), np.eye(4)), root / 'masks/b_v.nii.gz')
  with (root / 'labels.csv').open('a') as table:
    table.write('b_v,test\n')
  config, split = prepared(root, tmp_path, every_slice=2)
  slices = [i for i, name in enumerate(split.ids) if name.startswith('b_v')]
  found = list(pictures(config, 'test', split))
  assert len(found) == len(split) and len(slices) == 3
  for i, number in zip(slices, (0, 2, 4), strict=True):
    np.testing.assert_array_equal(found[i][..., 0], values[..., number])
    np.testing.assert_array_equal(split.full_mask(i), values[..., number] > 99)


def test_files_that_are_not_those_that_were_prepared(root, tmp_path):
  config, split = prepared(root, tmp_path)
  (root / 'images/b.png').write_bytes(b'no image')
  with pytest.raises(UserError, match=r'images/b\.png can no longer be read; replace it'):
    list(pictures(config, 'test', split))
  (root / 'images/b.png').unlink()
  (root / 'masks/b.png').unlink()
  (root / 'labels.csv').write_text(
    'image,split\n' + ''.join(f'{name},test\n' for name in 'ac') + 't,train\nv,validation\n'
  )
  with pytest.raises(
    UserError, match='has changed since its images were prepared; start the same command again'
  ):
    list(pictures(config, 'test', split))


def test_phantoms_have_the_size_that_they_are_drawn_in(tmp_path):
  config = DataConfig(
    name='phantom', image_size=32, phantom=PhantomConfig(train=1, validation=1, test=3)
  )
  split = dataset.load(config, tmp_path).splits['test']
  np.testing.assert_array_equal(np.stack(list(pictures(config, 'test', split))), split.images)
