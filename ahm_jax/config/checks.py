"""Checks a config: each field's range, which stands at the field, and what must fit together."""

from ahm_jax.config.fields import TILE, Config, DataConfig
from ahm_jax.config.recipes import MaskingConfig, RecipeConfig
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
  _check_segmentation(config)
  for name, section in vars(config).items():
    if isinstance(section, RecipeConfig):
      _check_length(name, section)


def _check_data(config: Config) -> None:
  data = config.data
  _check_modalities(data)
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


def _check_modalities(data: DataConfig) -> None:
  default = DataConfig()
  if data.modality_dropout and len(data.modalities) < 2:
    raise UserError(
      f'config.data.modality_dropout is {data.modality_dropout}, but config.data.modalities names '
      f'{len(data.modalities) or "none"}, of which none can be left out; leave it at 0'
    )
  if not data.modalities:
    if data.intensity != default.intensity:
      raise UserError(
        f'config.data.intensity is {data.intensity}, but config.data.modalities names none; name '
        'them, or give config.data.window=CENTRE,WIDTH'
      )
    return
  for name in ('channels', 'window'):
    if (value := getattr(data, name)) != (usual := getattr(default, name)):
      raise UserError(
        f'config.data.{name} is {value}, but it is of images without modalities, and '
        f'config.data.modalities names {len(data.modalities)}; leave it at {usual}'
        f'{", and say how each is shown in config.data.intensity" if name == "window" else ""}'
      )
  if len(data.intensity) not in (1, len(data.modalities)):
    raise UserError(
      f'config.data.intensity has {len(data.intensity)} entries, and config.data.modalities names '
      f'{len(data.modalities)}; give one for each of them, or one for all'
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
  if masking.per_modality and not config.data.modalities:
    raise UserError(
      f'config.{name}.per_modality masks patches of each modality, and config.data.modalities '
      'names none; name them, or leave it at False'
    )
  patches = grid**2 * (config.data.depth if masking.per_modality else 1)
  hidden = round(masking.mask_ratio * patches)
  if masking.strategy == 'adamae' and hidden in (0, patches):
    raise UserError(
      f'config.{name}.mask_ratio is {masking.mask_ratio}, of which the strategy adamae masks '
      f'exactly {hidden} of {patches} patches; give smaller patches, or another ratio'
    )


def _check_objective(config: Config) -> None:
  """Of a pre-training: there is one, and what needs a reconstruction has it."""
  recipe, masking = config.pretrain, config.masking
  if not (recipe.pixels or recipe.features or recipe.contrast):
    raise UserError(
      'config.pretrain.pixels, config.pretrain.features and config.pretrain.contrast are all 0; '
      'give one of them a weight'
    )
  if masking.per_modality and (recipe.features or recipe.contrast):
    raise UserError(
      'config.masking.per_modality masks patches of single modalities, and those of '
      'config.pretrain.features and contrast are of all; set both to 0, or leave it at False'
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


def _check_segmentation(config: Config) -> None:
  recipe = config.segment
  if recipe.unlabelled.batch_size % 2:
    raise UserError(
      f'config.segment.unlabelled.batch_size is {recipe.unlabelled.batch_size}, and unlabelled '
      'images come in pairs; make it even'
    )
  augment = recipe.unlabelled.augment
  hue = augment.hue if config.data.is_colour else 0
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
    _check_one_view(config)
  if recipe.reconstruction.batch_size:
    _check_hidden(config, recipe.reconstruction.masking, 'segment.reconstruction.masking')


def _check_hidden(config: Config, masking: MaskingConfig, name: str) -> None:
  """Masks of a segmentation, whose U-Net does not reconstruct alone."""
  _check_masking(config, masking, name)
  if config.data.image_size % masking.patch_size:
    raise UserError(
      f'config.{name}.patch_size is {masking.patch_size}, which does not divide '
      f'config.data.image_size={config.data.image_size}'
    )
  if masking.strategy in ('anatomask', 'adios') or masking.reward == 'progress':
    raise UserError(
      f'config.{name} asks for {masking.strategy} with reward={masking.reward}, which needs a '
      'U-Net that reconstructs alone; take another strategy, or another reward'
    )
  if masking.rounds > 1:
    raise UserError(f'config.{name}.rounds is {masking.rounds}; there is one round here, 1')
  if masking.per_modality:
    raise UserError(f'config.{name}.per_modality is for a pre-training; leave it at False')


def _check_one_view(config: Config) -> None:
  unlabelled = config.segment.unlabelled
  if unlabelled.views > 1 or unlabelled.feature_dropout:
    raise UserError(
      'config.segment.unlabelled.hide needs a student with one view; set views to 1 and '
      'feature_dropout to 0'
    )


def _check_length(name: str, recipe: RecipeConfig) -> None:
  if recipe.steps is None and recipe.epochs is None:
    raise UserError(f'config.{name}.steps and config.{name}.epochs are both unset; set one of them')
