"""Masks that are not named as their images: what is said of each way."""

import time

import pytest

from ahm_jax.data.sets import naming

IMAGES = [f'im{number:02}' for number in range(12)]
SETS = 'or set --config.data.mask_suffix'


def said(masks, images=IMAGES):
  """The lines, and how many masks they explain."""
  lone = [mask for mask in masks if mask not in images]
  told, explained = naming.lines(naming.misfits(lone, images), len(masks))
  return told, len(explained)


@pytest.mark.parametrize(
  'affix',
  ['_mask', '_seg', '_segmentation', '_GT', '-mask', '.mask', ' mask', 'mask', '_1', '_lésion'],
)
def test_what_stands_behind_the_names_of_images(affix):
  shown = f"'{affix}'" if ' ' in affix or 'é' in affix else affix
  assert said([name + affix for name in IMAGES]) == (
    [f'12 of 12 masks end in {shown}; name them as their images, {SETS}={shown}'], 12
  )  # fmt: skip


@pytest.mark.parametrize('affix', ['mask_', 'GT-', 'seg.', 'Mask'])
def test_what_stands_before_the_names_of_images(affix):
  assert said([affix + name for name in IMAGES]) == (
    [f'12 of 12 masks begin with {affix}; name them as their images'], 12
  )  # fmt: skip


@pytest.mark.parametrize(
  ('change', 'how'),
  [
    (str.upper, ''),
    (str.title, ''),
    (lambda name: f'{name.upper()}_MASK', 'end in _MASK and '),
    (lambda name: f'Mask_{name.upper()}', 'begin with Mask_ and '),
  ],
)
def test_upper_and_lower_case(change, how):
  assert said([change(name) for name in IMAGES]) == (
    [
      f'12 of 12 masks {how}differ from their images in upper and lower case; name them as their '
      'images'
    ],
    12,
  )


@pytest.mark.parametrize(
  ('change', 'how'),
  [
    ('{}_img', 'end in _img'),
    ('image-{}', 'begin with image-'),
  ],
)
def test_what_the_names_of_images_have_more(change, how):
  assert said(IMAGES, [change.format(name) for name in IMAGES]) == (
    [
      f'12 of 12 masks have images whose names {how}; leave that out of the names of the images'
    ],
    12,
  )  # fmt: skip


def test_numbers_of_channels_are_those_of_modalities():
  (line,), explained = said(IMAGES, [f'{name}_0000' for name in IMAGES])
  assert explained == 12
  assert line.startswith("12 of 12 masks have images whose names end in _0000, nnU-Net's number")
  assert line.endswith(
    'leave that out of the names of the images, or name its modalities in config.data.modalities'
  )


def test_several_ways_at_once():
  masks = [f'{name}_mask' for name in IMAGES[:5]] + [f'{name}_seg' for name in IMAGES[5:8]]
  told, explained = said([*masks, *IMAGES[8:11], 'other'])
  assert [line.split(';')[0] for line in told] == [
    '5 of 12 masks end in _mask',
    '3 of 12 masks end in _seg',
  ]
  assert explained == 8


@pytest.mark.parametrize(
  'masks',
  [
    ['im100', 'im101', 'im010'],  # Numbers go on.
    ['im0', 'im1'],
    ['other', 'another'],
    ['im00a', 'im01b', 'im02_copy', 'im03-2'],  # Each in its own way.
    ['im77_mask', 'im78_mask'],  # Of images that are not there.
  ],
)
def test_names_that_say_nothing(masks):
  assert said(masks) == ([], 0)


@pytest.mark.parametrize('name', ['im00_mask', 'IM00', 'maskim00'])
def test_one_mask_is_enough_where_it_is_plain(name):
  assert said([name, *IMAGES[1:]])[1] == 1


def test_the_longest_image_counts():
  told, _ = said(['a_1_mask', 'a_mask', 'a_1_b_mask'], ['a', 'a_1', 'a_1_b'])
  assert told == [f'3 of 3 masks end in _mask; name them as their images, {SETS}=_mask']


def test_what_is_not_printable_is_escaped():
  told, _ = said([f'{name}_\x1b' for name in IMAGES])
  assert told[0].startswith(r"12 of 12 masks end in '_\x1b';")


def test_images_that_are_likely_masks():
  names = ['a', 'a_mask', 'b', 'b-GT', 'c_1', 'c', 'd (1)', 'd (1)_Segmentation', 'mask', 'e_mask']
  assert naming.likely_masks(names) == ['a_mask', 'b-GT', 'd (1)_Segmentation']


def uid(number):
  return f'1.2.840.113619.2.55.3.{number * 7919}.{number * 104729 % 99991}.{number}'


AFFIXES = {'{}_mask': ('', '_mask'), 'other-{}': ('other-', ''), '{}b': ('', 'b')}


@pytest.mark.parametrize('name', ['case_{}'.format, uid, lambda n: f'{uid(n)}_{"part-" * 20}{n}'])
@pytest.mark.parametrize('change', AFFIXES)
def test_many_names_take_seconds(name, change):
  """Cuts that leave no name of another length are not looked at."""
  images = [name(number) for number in range(10_000)]
  masks = [change.format(image) for image in images]
  since = time.process_time()
  found = naming.misfits(masks, images)
  assert naming.likely_masks(images) == []
  assert time.process_time() - since < 4
  assert found == dict.fromkeys(masks, naming.Misfit(*AFFIXES[change]))


def test_what_is_iterated_once_is_enough():
  found = naming.misfits(iter(['a_mask', 'q']), iter(['a', 'q_0000']))
  assert found == {
    'a_mask': naming.Misfit(suffix='_mask'),
    'q': naming.Misfit(suffix='_0000', of_image=True),
  }
