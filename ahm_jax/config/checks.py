"""The range of every field, and the fields that must fit each other."""

import difflib
import math
import re

from ahm_jax.config.fields import MASK_CLASSES, Config, DataConfig, RecipeConfig
from ahm_jax.config.recipe import recipe
from ahm_jax.errors import UserError


def check(config: Config) -> None:
  """Checks every field's range, and the fields that must fit each other.

  Raises:
    UserError: names the first field that is out of range, its value, and what it may be.
  """
  _check_masking(config)
  _check_data(config)
  _check_model(config)
  if config.train.steps is not None and config.train.epochs is not None:
    raise UserError('config.train.steps and config.train.epochs are both set; set one of them')
  for stage in ('pretrain', 'segment', 'classifier'):
    _check_recipe(recipe(config, stage), stage)
  _at_least('safety.save_minutes', config.safety.save_minutes, 0)
  _at_least('safety.skipped_steps', config.safety.skipped_steps, 1)
  _in_range('transfer.encoder_rate', config.transfer.encoder_rate, 0, 1)
  _one_of('classify.input', config.classify.input, ('image', 'crop', 'masked'))
  _in_range('classify.margin', config.classify.margin, 0, 1)
  _at_least('classify.labels', config.classify.labels, 0)
  _one_of('evaluate.split', config.evaluate.split, ('train', 'validation', 'test'))
  _in_range('evaluate.threshold', config.evaluate.threshold, 0, 1, open_ends=True)
  _at_least('evaluate.batch_size', config.evaluate.batch_size, 1)
  _at_least('evaluate.bootstrap_samples', config.evaluate.bootstrap_samples, 100)
  _at_least('evaluate.report_images', config.evaluate.report_images, 0)
  _at_least('evaluate.viewer_images', config.evaluate.viewer_images, 0)
  for count in config.grid.labels:
    _at_least('grid.labels', count, 0)
  for seed in config.grid.seeds:
    _at_least('grid.seeds', seed, 0)
  for name in ('methods', 'labels', 'seeds'):
    if not getattr(config.grid, name):
      raise UserError(f'config.grid.{name} is empty; name at least one')
  _at_least('seed', config.seed, 0)


def _check_data(config: Config) -> None:
  data = config.data
  _at_least('data.image_size', data.image_size, 16)
  for divisor, why in (
    (16, 'the U-Net halves it four times'),
    (config.masking.patch_size, 'config.masking.patch_size'),
  ):
    if data.image_size % divisor:
      near = max(1, round(data.image_size / divisor)) * divisor
      raise UserError(
        f'config.data.image_size is {data.image_size}, not a multiple of {divisor} ({why}); the nearest is {near}'
      )
  grid = data.image_size // config.masking.patch_size
  if config.masking.budget == 'tile' and grid % config.masking.tile:
    raise UserError(
      f'config.masking.tile is {config.masking.tile}, which does not divide the grid of {grid} x {grid} patches'
    )
  hidden = round(config.masking.mask_ratio * grid**2)
  if (config.masking.exact_count or config.masking.strategy == 'adamae') and hidden in (0, grid**2):
    raise UserError(
      f'config.masking.mask_ratio is {config.masking.mask_ratio}, which hides {hidden} of {grid**2} patches where they are '
      'counted exactly (exact_count, or strategy adamae); give smaller patches, or another ratio'
    )
  _one_of('data.channels', data.channels, (1, 3))
  _at_least('data.labels', data.labels, 0)
  _at_least('data.split_seed', data.split_seed, 0)
  _check_mask_classes(data)
  fractions = data.split_fractions
  if len(fractions) != 3 or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
    raise UserError(
      f'config.data.split_fractions is {fractions}; give three shares (train, validation, test) that sum to 1'
    )
  _in_range('data.resident_share', data.resident_share, 0, 1)
  _check_reading(data)
  for name in ('train', 'validation', 'test'):
    _at_least(f'data.phantom.{name}', getattr(data.phantom, name), 1)


def _check_reading(data: DataConfig) -> None:
  if data.window and not (
    len(data.window) == 2 and all(map(math.isfinite, data.window)) and data.window[1] > 0
  ):
    raise UserError(f'config.data.window is {data.window}; give a centre and a width above 0')
  _one_of('data.slice_axis', data.slice_axis, (0, 1, 2))
  _at_least('data.every_slice', data.every_slice, 1)


def _check_mask_classes(data: DataConfig) -> None:
  names = data.mask_classes
  for name in names:
    if not re.fullmatch('[A-Za-z0-9_-]+', name):
      raise UserError(
        f'config.data.mask_classes holds {name!r}; a name may have letters, digits, _ and -'
      )
  if 'background' in (name.lower() for name in names):
    raise UserError(
      'config.data.mask_classes holds background, which is value 0 by itself; name the values from 1 on'
    )
  if 'mm' in names:
    raise UserError(
      "config.data.mask_classes holds 'mm', but hd95_mm is the distance in millimetres; choose another name"
    )
  twice = [name for name in names if names.count(name) > 1]
  if twice:
    raise UserError(
      f'config.data.mask_classes holds {twice[0]!r} twice; give every value a name of its own'
    )
  if len(names) > MASK_CLASSES:
    raise UserError(
      f'config.data.mask_classes holds {len(names)} names; masks of 8 bits have room for {MASK_CLASSES}'
    )


def _check_model(config: Config) -> None:
  model = config.model
  for name in ('unet_width', 'agent_width', 'vgg_width', 'vgg_hidden'):
    _at_least(f'model.{name}', getattr(model, name), 1)
  _one_of('model.dtype', model.dtype, ('float32', 'bfloat16'))
  _one_of('model.agent_trunk', model.agent_trunk, ('vgg16', 'light'))
  _one_of('model.vgg_norm', model.vgg_norm, ('', 'batch'))


def _check_masking(config: Config) -> None:
  masking = config.masking
  _in_range('masking.mask_ratio', masking.mask_ratio, 0, 1, open_ends=True)
  _one_of('masking.patch_size', masking.patch_size, (4, 8, 16, 32))
  _one_of('masking.action_means', masking.action_means, ('mask', 'keep'))
  _one_of('masking.reward', masking.reward, ('log', 'relative', 'rank', 'progress'))
  _one_of('masking.reward_within', masking.reward_within, ('worker', 'image'))
  _one_of('masking.polarity', masking.polarity, ('hard', 'easy'))
  _one_of('masking.budget', masking.budget, ('image', 'tile', 'none'))
  _one_of('masking.warmup_by', masking.warmup_by, ('logits', 'share'))
  _one_of('masking.saliency', masking.saliency, ('gradient', 'entropy'))
  _at_least('masking.workers', masking.workers, 1)
  _at_least('masking.rounds', masking.rounds, 1)
  _in_range('masking.gamma', masking.gamma, 0, 1)
  _in_range('masking.warmup', masking.warmup, 0, 1)
  _in_range('masking.ease_out', masking.ease_out, 0, 1)
  if masking.warmup + masking.ease_out > 1:
    raise UserError(
      f'config.masking.warmup and ease_out are {masking.warmup} and {masking.ease_out}; their sum is above 1'
    )
  for name in ('entropy_weight', 'value_weight', 'learning_rate'):
    _at_least(f'masking.{name}', getattr(masking, name), 0)
  for name in ('logit_bound', 'temperature'):
    _above_0(f'masking.{name}', getattr(masking, name))
  if not math.isfinite(masking.fill_value):
    raise UserError(f'config.masking.fill_value is {masking.fill_value}; give a number')
  if masking.hard_share is not None:
    _in_range('masking.hard_share', masking.hard_share, 0, 1)
  if len(masking.ema_decay) != 2 or not all(0 <= decay < 1 for decay in masking.ema_decay):
    raise UserError(
      f'config.masking.ema_decay is {masking.ema_decay}; give two numbers in [0, 1), first and last'
    )
  _at_least('masking.tile', masking.tile, 1)
  if masking.budget != 'image' and masking.exact_count:
    raise UserError(
      f'config.masking.exact_count is for masking.budget=image; it is {masking.budget}'
    )


def _check_recipe(item: RecipeConfig, stage: str) -> None:
  _at_least(f'{stage}.batch_size', item.batch_size, 1)
  if item.steps is None and item.epochs is None:
    raise UserError(
      f'config.{stage}.steps and config.{stage}.epochs are both unset; set one of them'
    )
  _at_least(f'{stage}.steps', 1 if item.steps is None else item.steps, 1)
  if item.epochs is not None:
    _above_0(f'{stage}.epochs', item.epochs)
  _one_of(f'{stage}.optimizer', item.optimizer, ('adam', 'adamw'))
  _one_of(f'{stage}.schedule', item.schedule, ('constant', 'cosine', 'staircase'))
  _in_range(f'{stage}.warmup', item.warmup, 0, 1)
  _in_range(f'{stage}.decay_rate', item.decay_rate, 0, 1)
  _above_0(f'{stage}.decay_epochs', item.decay_epochs)
  for name in ('min_epochs', 'learning_rate', 'weight_decay', 'clip', 'eval_every', 'patience'):
    _at_least(f'{stage}.{name}', getattr(item, name), 0)
  _at_least(f'{stage}.log_every', item.log_every, 1)
  _in_range(f'{stage}.augment.scale', item.augment.scale, 0, 0.9)
  for name in ('brightness', 'contrast', 'hue'):
    _in_range(f'{stage}.augment.{name}', getattr(item.augment, name), 0, 1)


def _one_of(name: str, value, allowed) -> None:
  if value not in allowed:
    near = difflib.get_close_matches(str(value), [str(item) for item in allowed], n=1)
    hint = f'; did you mean {near[0]}?' if near else ''
    raise UserError(
      f'config.{name} is {value!r}; it may be {", ".join(str(item) or repr(item) for item in allowed)}{hint}'
    )


def _at_least(name: str, value, low) -> None:
  if not low <= value < math.inf:
    raise UserError(
      f'config.{name} is {value}; it must be at least {low}{"" if math.isfinite(value) else ", and finite"}'
    )


def _above_0(name: str, value) -> None:
  if not 0 < value < math.inf:
    raise UserError(
      f'config.{name} is {value}; it must be above 0{"" if math.isfinite(value) else ", and finite"}'
    )


def _in_range(name: str, value, low, high, open_ends: bool = False) -> None:
  inside = low < value < high if open_ends else low <= value <= high
  if not inside:
    raise UserError(
      f'config.{name} is {value}; it must lie {"strictly " if open_ends else ""}between {low} and {high}'
    )
