"""Checks a config: each field's range, which stands at the field, and what must fit together."""

from ahm_jax.config.fields import TILE, Config, MaskingConfig, RecipeConfig
from ahm_jax.config.tree import leaves
from ahm_jax.errors import UserError


def check(config: Config) -> None:
  """Checks every field's range, and the fields that must fit each other.

  Raises:
    UserError: names the first field that is out of range, its value, and what it may be.
  """
  for leaf in leaves(config):
    if fault := leaf.fault():
      raise UserError(f'config.{leaf.name} {fault}')
  _check_data(config)
  _check_model(config)
  _check_masking(config, config.masking, 'masking')
  _check_objective(config)
  _check_unlabelled(config)
  for name, section in vars(config).items():
    if isinstance(section, RecipeConfig):
      _check_length(name, section)


def _check_data(config: Config) -> None:
  data = config.data
  for divisor, why in (
    (16, 'the U-Net halves it four times'),
    (config.masking.patch_size, 'config.masking.patch_size'),
  ):
    if data.image_size % divisor:
      near = max(1, round(data.image_size / divisor)) * divisor
      raise UserError(
        f'config.data.image_size is {data.image_size}, not a multiple of {divisor} ({why}); '
        f'the nearest is {near}'
      )


def _check_model(config: Config) -> None:
  model = config.model
  if model.vgg_input == 'caffe' and not model.vgg_weights:
    raise UserError(
      'config.model.vgg_input=caffe gives a VGG16 numbers up to 151, which suit weights that were '
      'trained on them alone; give these, --config.model.vgg_weights=FILE, or another vgg_input'
    )


def _check_masking(config: Config, masking: MaskingConfig, name: str) -> None:
  grid = config.data.image_size // masking.patch_size
  if masking.budget == 'tile' and grid % TILE:
    raise UserError(
      f'config.{name}.budget=tile needs tiles of {TILE} x {TILE} patches, which do not divide the '
      f'grid of {grid} x {grid} patches'
    )
  hidden = round(masking.mask_ratio * grid**2)
  if masking.strategy == 'adamae' and hidden in (0, grid**2):
    raise UserError(
      f'config.{name}.mask_ratio is {masking.mask_ratio}, of which the strategy adamae masks '
      f'exactly {hidden} of {grid**2} patches; give smaller patches, or another ratio'
    )


def _check_objective(config: Config) -> None:
  """Of a pre-training: there is one, and what needs a reconstruction has it."""
  recipe, masking = config.pretrain, config.masking
  if not (recipe.pixels or recipe.features or recipe.contrast):
    raise UserError(
      'config.pretrain.pixels, config.pretrain.features and config.pretrain.contrast are all 0; '
      'give one of them a weight'
    )
  by_progress = masking.strategy in ('ahm', 'reinforce') and masking.reward == 'progress'
  if recipe.features and by_progress:
    raise UserError(
      f'config.masking.reward is progress, of reconstruction alone, and config.pretrain.features '
      f'is {recipe.features}; take the reward log or rank'
    )
  reconstructing = {
    f'masking.strategy={masking.strategy}': masking.strategy in ('anatomask', 'adios'),
    'masking.reward=progress': by_progress,
    f'masking.rounds={masking.rounds}': masking.rounds > 1,
    f'pretrain.patience={recipe.patience}': recipe.patience > 0,
  }
  found = [setting for setting, needs in reconstructing.items() if needs]
  if found and not recipe.pixels:
    raise UserError(
      f'config.{found[0]} needs a reconstruction, which config.pretrain.pixels=0 leaves untrained; '
      'give it a weight'
    )


def _check_unlabelled(config: Config) -> None:
  recipe = config.segment
  if recipe.unlabelled.batch_size % 2:
    raise UserError(
      f'config.segment.unlabelled.batch_size is {recipe.unlabelled.batch_size}, and unlabelled '
      'images come in pairs; make it even'
    )
  augment = recipe.unlabelled.augment
  hue = augment.hue if config.data.channels == 3 else 0
  if recipe.unlabelled.agreement and not (
    augment.flip or augment.brightness or augment.contrast or hue
  ):
    raise UserError(
      'config.segment.unlabelled.agreement compares two looks at an image, which are the same '
      'without flips and colours in config.segment.unlabelled.augment; set one of them, or '
      'agreement=0'
    )
  if recipe.unlabelled.batch_size and not recipe.ema_decay:
    raise UserError(
      'config.segment.unlabelled needs a teacher, which is a moving average of the network; set '
      'config.segment.ema_decay, to 0.99 for one'
    )
  if recipe.unlabelled.hide:
    _check_hidden(config, recipe.unlabelled.masking, 'segment.unlabelled.masking')


def _check_hidden(config: Config, masking: MaskingConfig, name: str) -> None:
  """Masks for a student, which reconstructs nothing."""
  _check_masking(config, masking, name)
  if config.data.image_size % masking.patch_size:
    raise UserError(
      f'config.{name}.patch_size is {masking.patch_size}, which does not divide '
      f'config.data.image_size={config.data.image_size}'
    )
  if masking.strategy in ('anatomask', 'adios') or masking.reward == 'progress':
    raise UserError(
      f'config.{name} asks for {masking.strategy} with reward={masking.reward}, which needs a '
      'reconstruction; take another strategy, and config.segment.unlabelled.reward=progress'
    )
  unlabelled = config.segment.unlabelled
  if unlabelled.views > 1 or unlabelled.feature_dropout:
    raise UserError(
      'config.segment.unlabelled.hide needs a student with one view; set views to 1 and '
      'feature_dropout to 0'
    )
  if masking.rounds > 1:
    raise UserError(f'config.{name}.rounds is {masking.rounds}; a student has one round, 1')


def _check_length(name: str, recipe: RecipeConfig) -> None:
  if recipe.steps is None and recipe.epochs is None:
    raise UserError(f'config.{name}.steps and config.{name}.epochs are both unset; set one of them')
