"""What a run is: frozen dataclasses, built once from a ConfigDict.

Every field is declared here with its default, its meaning and its unit, and its range is checked here and nowhere else. A file
in `configs/` starts from `default()`, a ConfigDict with the same fields, and changes what it wants changed.
"""

import ast
import dataclasses
import difflib
import math
import re
import types
import typing
from dataclasses import dataclass, field

import ml_collections
from ml_collections.config_dict import placeholder

from ahm_jax.errors import UserError

STRATEGIES = ('uniform', 'untrained', 'reinforce', 'ahm', 'blockwise', 'saliency', 'anatomask', 'hpm', 'adamae', 'adios')

MASK_CLASSES = 255  # At most so many: with background, what 8 bits can tell apart.

SCRATCH = 'scratch'  # The init without pre-training.
_CHANGED_BY_INIT = ('', 'masking', 'pretrain', 'segment', 'transfer')  # Parts of the config, see `with_init`.
_FINE_TUNING = ('segment.', 'transfer.')


@dataclass(frozen=True)
class PhantomConfig:
  """How many dermoscopy phantoms to draw; their size is `data.image_size`."""

  train: int = 1000
  validation: int = 60
  test: int = 120


@dataclass(frozen=True)
class DataConfig:
  # 'phantom': drawn from the seed. 'folder': images/, masks/ and labels.csv under `root`. 'isic2018': the official archives.
  name: str = 'phantom'
  root: str = ''  # The folder, for 'folder' and 'isic2018'.
  image_size: int = 224  # Side in pixels that images are resized to; a multiple of 16 and of masking.patch_size.
  channels: int = 3  # 3: RGB. 1: grey.
  labels: int = 0  # Labelled training images to use, chosen in nested, stratified order; 0: all.
  skip_unreadable: bool = False  # Drop and list files that cannot be read, instead of refusing to start.
  mask_classes: tuple[str, ...] = ()  # Names of the values 1, 2, ... of masks; 0 is background. Empty: binary lesion masks.
  window: tuple[float, ...] = ()  # Centre and width that more than 8 bits are shown by, as 40,400 HU; empty: the file's own.
  slice_axis: int = 2  # Axis of NIfTI volumes across which their slices lie: 0 sagittal, 1 coronal, 2 axial.
  every_slice: int = 1  # Take the slices 0, n, 2n, ... of a volume.
  split_fractions: tuple[float, ...] = (0.7, 0.1, 0.2)  # Train, validation, test, where labels.csv has no split column.
  split_seed: int = 0  # Seed of that split and of the phantoms.
  prepared_dir: str = ''  # Where prepared data is kept; empty: `data/` in the workdir.
  resident_share: float = 0.25  # Hold the training images on the device when they take at most this share of its memory.
  phantom: PhantomConfig = field(default_factory=PhantomConfig)


@dataclass(frozen=True)
class AugmentConfig:
  """Random changes of a training image. Geometry moves image and mask together; colour touches the image alone."""

  flip: bool = True  # Left-right, and quarter turns.
  scale: float = 0.2  # Crop a square of side between (1 - scale) and 1 of the image's, and resize it to full size.
  brightness: float = 0.1  # Shift by up to this much, of an image range of 1.
  contrast: float = 0.1  # Scale about the mean by a factor in [1 - contrast, 1 + contrast].
  hue: float = 0.02  # Turn the hue by up to this share of the circle; RGB only.


@dataclass(frozen=True)
class ModelConfig:
  unet_width: int = 64  # Channels of the U-Net's first level; each level down doubles them.
  dtype: str = 'float32'  # What convolutions compute in: 'float32' or 'bfloat16'. Parameters, losses, statistics stay float32.
  recompute: bool = False  # The U-Net computes its blocks again for the gradient: less memory, a third more operations.
  sync_batch_norm: bool = True  # Batch statistics over all devices (and workers), not over each device's share.
  agent_trunk: str = 'vgg16'  # 'vgg16': conv1_1..conv3_3 (the paper). 'light': a few strided convolutions.
  agent_width: int = 64  # Channels of the trunk's first level; heads have four times as many, or fewer for small patches.
  vgg_width: int = 64  # Channels of the classifier's first level.
  vgg_hidden: int = 4096  # Width of the classifier's two hidden dense layers.
  vgg_norm: str = ''  # After each convolution of the classifier: '' (the paper) or 'batch' (torchvision's vgg16_bn).
  # .safetensors or .npz of a VGG16, torchvision's or Keras's, that agent and classifier start from. The agent's trunk has no
  # norms: those of the file are folded into its convolutions. The classifier has them where the file has: see vgg_norm.
  vgg_weights: str = ''


@dataclass(frozen=True)
class MaskingConfig:
  strategy: str = 'ahm'  # One of STRATEGIES.
  mask_ratio: float = 0.6  # Expected share of patches hidden in every image, in (0, 1).
  patch_size: int = 16  # Side of a patch in pixels; 4, 8, 16 or 32.
  exact_count: bool = False  # Hide exactly round(mask_ratio * patches) patches by Gumbel top-k instead of independent draws.
  fill_value: float = 0.0  # What hidden pixels are set to, in normalised units; 0 is mid-grey.
  # The U-Net sees changed colours (pretrain.augment's) and repairs towards the true ones; else both are of the changed image.
  restore_colour: bool = False
  action_means: str = 'mask'  # 'mask': action 1 hides a patch. 'keep': action 1 keeps it.
  workers: int = 4  # Parallel actors K; each has batch_size / K images and a key of its own.
  rounds: int = 1  # Masking rounds T of an episode.
  gamma: float = 0.9  # Discount between rounds.
  bootstrap: bool = False  # The episode is cut after T rounds, not over: add gamma * V(last state) to the last return.
  entropy_weight: float = 0.1  # beta.
  value_weight: float = 0.5  # Weight of the critic's loss.
  # Of a hidden patch: 'log', whitened log loss; 'relative', loss / mean - 1; 'rank', in [-1, 1]; 'progress', whitened log of a
  # teacher's loss / the loss, which is what was learnt of late and costs two more passes of the U-Net.
  reward: str = 'log'
  reward_within: str = 'worker'  # The hidden patches that are compared: of all the worker's images, or of one 'image'.
  polarity: str = 'hard'  # 'hard': hide what the reward (the saliency, adios's loss) is high for. 'easy': what it is low for.
  logit_bound: float = 3.0  # Logits z are centred per image and bounded as c * tanh(z / c).
  temperature: float = 1.0  # Bounded logits are divided by it.
  budget: str = 'image'  # Where mask_ratio holds in the mean: 'image', 'tile' (so nothing is hidden whole), 'none' (nowhere).
  tile: int = 2  # Side of a tile in patches.
  ease_in: float = 1.0  # Share of the steps over which masks go from uniform to the strategy's own.
  ease_out: float = 0.0  # Share of the steps, the last ones, over which they go back to uniform.
  ease: str = 'logits'  # What grows meanwhile: 'logits', a factor from 0 to 1, or 'share', from 0 to hard_share.
  hard_share: float | None = None  # Share of hidden patches that are not uniform; None: 0.5 in anatomask and hpm, else 1.
  # Of teachers, at the start and from a quarter of the steps on; but never more than (1 + t) / (10 + t) after t steps.
  ema_decay: tuple[float, ...] = (0.999, 0.9999)
  saliency: str = 'gradient'  # What 'saliency' hides: 'gradient', patches with edges, or 'entropy', with many grey levels.
  learning_rate: float = 2e-4  # Of the agent (Adam).


@dataclass(frozen=True)
class RecipeConfig:
  """How one task is trained."""

  batch_size: int = 12  # Images per step, over all devices.
  learning_rate: float = 2e-4
  steps: int | None = None  # Length of training in steps; where it is not set, in passes over the images:
  epochs: float | None = None
  min_epochs: float = 0.0  # But so many passes at least, so that many images train for longer than `steps`.
  optimizer: str = 'adam'  # 'adam' or 'adamw'.
  weight_decay: float = 0.0  # AdamW's.
  schedule: str = 'constant'  # 'constant', 'cosine' (to 0), or 'staircase' (times decay_rate every decay_epochs).
  warmup: float = 0.0  # Share of the steps over which the learning rate grows linearly from 0.
  decay_rate: float = 0.9
  decay_epochs: float = 3.0
  clip: float = 0.0  # Largest global norm of the gradient; 0: no clipping.
  log_every: int = 20  # Steps between lines of metrics.jsonl.
  eval_every: int = 0  # Steps between validations, each followed by a checkpoint; 0: ten times in a run.
  patience: int = 0  # Stop after this many validations without a better score; 0: never.
  augment: AugmentConfig = field(default_factory=AugmentConfig)


@dataclass(frozen=True)
class SafetyConfig:
  """What keeps a long run from being lost."""

  save_minutes: float = 10.0  # Minutes of training after which a checkpoint is due, beside those at validations; 0: none.
  skipped_steps: int = 10  # Steps in a row that are not finite, and so not taken, after which the run stops.


@dataclass(frozen=True)
class TransferConfig:
  """How a segmentation takes over a pre-trained U-Net."""

  encoder_rate: float = 1.0  # Learning rate of its encoder, as a share of the other layers'; from scratch all learn alike.


@dataclass(frozen=True)
class TrainConfig:
  """Overrides: a field that is set here replaces the recipe's own in whatever stage is launched."""

  batch_size: int | None = None
  learning_rate: float | None = None
  steps: int | None = None
  epochs: float | None = None


@dataclass(frozen=True)
class ClassifyConfig:
  input: str = 'crop'  # 'image': as it is. 'crop': box around the predicted lesion. 'masked': all but the lesion blacked out.
  margin: float = 0.1  # Margin of the crop's box on each side, as a share of the box's side.
  labels: int = 0  # Images to train on, of all with a label, also those without a mask; 0: the images of data.labels.
  balanced: bool = False  # Weigh images in the loss so that every class counts alike, however few its images are.


@dataclass(frozen=True)
class EvaluateConfig:
  split: str = 'test'  # 'train', 'validation' or 'test'.
  batch_size: int = 32
  threshold: float = 0.5  # Lesion where the predicted probability is at least this; of several classes, the likeliest is taken.
  bootstrap_samples: int = 2000
  report_images: int = 6  # Held-out images shown in report.html.
  viewer_images: int = 120  # Those one can page through there; fewer where the page would pass 10 MiB.


@dataclass(frozen=True)
class GridConfig:
  """The cells of `reproduce`."""

  inits: tuple[str, ...] = ('scratch', 'uniform', 'ahm')  # 'scratch', or what `with_init` takes: 'ahm', 'ahm:rounds=2'.
  labels: tuple[int, ...] = (20, 50)
  seeds: tuple[int, ...] = (0, 1, 2)
  classify: bool = True
  results: tuple[str, ...] = ()  # Files results.json made elsewhere; cells of this grid that stand in them are not run again.


@dataclass(frozen=True)
class ProfileConfig:
  steps: str = ''  # 'a:b': trace steps a to b - 1.


@dataclass(frozen=True)
class Config:
  seed: int = 0
  # To start from. For segment: a pre-training run, its Orbax export, or a U-Net as .safetensors or .npz. For classify: a
  # segmentation run.
  init_from: str = ''
  data: DataConfig = field(default_factory=DataConfig)
  model: ModelConfig = field(default_factory=ModelConfig)
  masking: MaskingConfig = field(default_factory=MaskingConfig)
  train: TrainConfig = field(default_factory=TrainConfig)
  safety: SafetyConfig = field(default_factory=SafetyConfig)
  pretrain: RecipeConfig = field(default_factory=lambda: RecipeConfig(batch_size=12, learning_rate=2e-4, epochs=100))
  segment: RecipeConfig = field(
    default_factory=lambda: RecipeConfig(
      batch_size=4, learning_rate=3e-4, epochs=100, schedule='staircase', clip=1.0, patience=4
    )
  )
  transfer: TransferConfig = field(default_factory=TransferConfig)
  classify: ClassifyConfig = field(default_factory=ClassifyConfig)
  classifier: RecipeConfig = field(
    default_factory=lambda: RecipeConfig(batch_size=16, learning_rate=1e-4, epochs=50, patience=4)
  )
  evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
  grid: GridConfig = field(default_factory=GridConfig)
  profile: ProfileConfig = field(default_factory=ProfileConfig)


def default() -> ml_collections.ConfigDict:
  """The defaults of `Config` as a ConfigDict, unlocked, for a file in `configs/` to change."""
  return _to_config_dict(Config())


def _to_config_dict(instance) -> ml_collections.ConfigDict:
  tree = ml_collections.ConfigDict()
  hints = typing.get_type_hints(type(instance))
  for item in dataclasses.fields(instance):
    value = getattr(instance, item.name)
    if dataclasses.is_dataclass(value):
      tree[item.name] = _to_config_dict(value)
    elif isinstance(hints[item.name], types.UnionType):
      tree[item.name] = placeholder(typing.get_args(hints[item.name])[0])
      if value is not None:
        tree[item.name] = value
    else:
      tree[item.name] = value
  return tree


def from_config_dict(tree) -> Config:
  """Builds and checks a `Config`.

  Args:
    tree: a ConfigDict, or nested dict (as `to_dict` writes it); missing fields take their defaults.

  Raises:
    UserError: a field is unknown, of a wrong type, or out of its range.
  """
  plain = tree.to_dict() if isinstance(tree, ml_collections.ConfigDict) else tree
  config = _build(Config(), plain, '')
  check(config)
  return config


def to_dict(config: Config) -> dict:
  """The config as nested dicts that JSON can hold; `from_config_dict` reads them back."""
  return dataclasses.asdict(config)


def _build(default, values: dict, prefix: str):
  """`default`, a dataclass, with the fields in `values` put in its place; so the recipes keep their own defaults."""
  hints = typing.get_type_hints(type(default))
  unknown = sorted(set(values) - set(hints))
  if unknown:
    near = difflib.get_close_matches(unknown[0], hints, n=1, cutoff=0)
    raise UserError(f'config has no field {prefix}{unknown[0]}; did you mean {prefix}{near[0]}?')
  built = {}
  for name, value in values.items():
    current = getattr(default, name)
    if dataclasses.is_dataclass(current):
      built[name] = _build(current, value, f'{prefix}{name}.')
    else:
      built[name] = _convert(hints[name], value, prefix + name)
  return dataclasses.replace(default, **built)


def _convert(hint, value, name: str):
  if isinstance(hint, types.UnionType):
    return None if value is None else _convert(typing.get_args(hint)[0], value, name)
  if typing.get_origin(hint) is tuple:
    items = value if isinstance(value, list | tuple) else (value,)
    kind = typing.get_args(hint)[0]
    if kind is str and len(items) == 1:  # A flag's --config.grid.inits=scratch,ahm comes as one text.
      items = re.split(r',(?![^(]*\))', str(items[0]))  # But not within a tuple, as in ahm:ema_decay=(0.9,0.99).
    return tuple(_convert(kind, item, name) for item in items)
  accepted = (int, float) if hint is float else hint
  if not isinstance(value, accepted) or (isinstance(value, bool) and hint is not bool):
    raise UserError(f'config.{name} must be of type {hint.__name__}, not {value!r}')
  return hint(value)


def recipe(config: Config, stage: str) -> RecipeConfig:
  """The recipe of 'pretrain', 'segment' or 'classifier', with what is set in `config.train` put in its place."""
  overrides = {name: value for name, value in dataclasses.asdict(config.train).items() if value is not None}
  if 'steps' in overrides or 'epochs' in overrides:
    overrides = {'steps': None, 'epochs': None, 'min_epochs': 0.0} | overrides
  return dataclasses.replace(getattr(config, stage), **overrides)


def with_init(config: Config, init: str) -> Config:
  """The config of the runs that an entry of `grid.inits` names; its `grid` is without one.

  Args:
    init: a masking strategy, or 'scratch'; after a colon, fields that are changed for it, joined by '+'. Those of `masking` go
      by their name: 'ahm:mask_ratio=0.75+rounds=2'; those of `pretrain`, and the agent's of `model`, by their path:
      'ahm:pretrain.clip=2'; those of fine-tuning too: 'scratch:segment.learning_rate=1e-3', 'ahm:transfer.encoder_rate=0.3'.

  Raises:
    UserError: there is no such strategy or field, the field may not differ within a grid, or its value is out of its range.
  """
  strategy, _, changes = init.partition(':')
  _one_of('grid.inits', strategy, (SCRATCH, *STRATEGIES))
  tree = to_dict(dataclasses.replace(config, grid=GridConfig(inits=(SCRATCH,))))
  if strategy != SCRATCH:
    tree['masking']['strategy'] = strategy
  for change in changes.split('+') if changes else ():
    name, equals, text = change.partition('=')
    part, _, field_name = name.rpartition('.')
    if strategy == SCRATCH and part != 'segment':
      raise UserError(f'config.grid.inits holds {init!r}, where {change!r} is not segment.FIELD=VALUE')
    if not equals or not (part in _CHANGED_BY_INIT or name in ('model.agent_trunk', 'model.agent_width')):
      raise UserError(
        f'config.grid.inits holds {init!r}, where {change!r} is not FIELD=VALUE with a field of masking, pretrain.FIELD, '
        'segment.FIELD, transfer.FIELD, model.agent_trunk or model.agent_width'
      )
    tree[part or 'masking'][field_name] = _literal(text)
  return from_config_dict(tree)


def pretraining_of(init: str) -> str:
  """The entry of `grid.inits` that pre-trains for `init`: without what `init` changes of fine-tuning; '' for 'scratch'."""
  strategy, _, changes = init.partition(':')
  kept = [change for change in changes.split('+') if not change.startswith(_FINE_TUNING)]
  return '' if strategy == SCRATCH else ':'.join([strategy, *filter(None, ['+'.join(kept)])])


def is_tuned(init: str) -> bool:
  """Whether an entry of `grid.inits` changes how it is fine-tuned."""
  return any(change.startswith(_FINE_TUNING) for change in init.partition(':')[2].split('+'))


def _literal(text: str):
  """A number, truth value or tuple as Python writes it; else the text itself."""
  try:
    return ast.literal_eval(text)
  except (SyntaxError, ValueError):
    return text


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
  for init in config.grid.inits:
    if init != SCRATCH:
      with_init(config, init)
  for count in config.grid.labels:
    _at_least('grid.labels', count, 0)
  for seed in config.grid.seeds:
    _at_least('grid.seeds', seed, 0)
  for name in ('inits', 'labels', 'seeds'):
    if not getattr(config.grid, name):
      raise UserError(f'config.grid.{name} is empty; name at least one')
  _at_least('seed', config.seed, 0)


def _check_data(config: Config) -> None:
  data = config.data
  _one_of('data.name', data.name, ('phantom', 'folder', 'isic2018'))
  if data.name == 'folder' and not data.root:
    raise UserError('config.data.root is not set; give the folder that holds images/: --config.data.root=DIR')
  if data.name == 'isic2018' and not data.root:
    raise UserError('config.data.root is not set; give the folder that holds the official archives: --config.data.root=DIR')
  _at_least('data.image_size', data.image_size, 16)
  for divisor, why in ((16, 'the U-Net halves it four times'), (config.masking.patch_size, 'config.masking.patch_size')):
    if data.image_size % divisor:
      near = max(1, round(data.image_size / divisor)) * divisor
      raise UserError(
        f'config.data.image_size is {data.image_size}, not a multiple of {divisor} ({why}); the nearest is {near}'
      )
  grid = data.image_size // config.masking.patch_size
  if config.masking.budget == 'tile' and grid % config.masking.tile:
    raise UserError(f'config.masking.tile is {config.masking.tile}, which does not divide the grid of {grid} x {grid} patches')
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
    raise UserError(f'config.data.split_fractions is {fractions}; give three shares (train, validation, test) that sum to 1')
  _in_range('data.resident_share', data.resident_share, 0, 1)
  _check_reading(data)
  for name in ('train', 'validation', 'test'):
    _at_least(f'data.phantom.{name}', getattr(data.phantom, name), 1)


def _check_reading(data: DataConfig) -> None:
  if data.window and not (len(data.window) == 2 and all(map(math.isfinite, data.window)) and data.window[1] > 0):
    raise UserError(f'config.data.window is {data.window}; give a centre and a width above 0')
  _one_of('data.slice_axis', data.slice_axis, (0, 1, 2))
  _at_least('data.every_slice', data.every_slice, 1)


def _check_mask_classes(data: DataConfig) -> None:
  names = data.mask_classes
  if names and data.name != 'folder':
    raise UserError(f'config.data.mask_classes is {names}, but data.name={data.name} has binary masks; leave it empty: ()')
  for name in names:
    if not re.fullmatch('[A-Za-z0-9_-]+', name):
      raise UserError(f'config.data.mask_classes holds {name!r}; a name may have letters, digits, _ and -')
  if 'background' in (name.lower() for name in names):
    raise UserError('config.data.mask_classes holds background, which is value 0 by itself; name the values from 1 on')
  if 'mm' in names:
    raise UserError("config.data.mask_classes holds 'mm', but hd95_mm is the distance in millimetres; choose another name")
  twice = [name for name in names if names.count(name) > 1]
  if twice:
    raise UserError(f'config.data.mask_classes holds {twice[0]!r} twice; give every value a name of its own')
  if len(names) > MASK_CLASSES:
    raise UserError(f'config.data.mask_classes holds {len(names)} names; masks of 8 bits have room for {MASK_CLASSES}')


def _check_model(config: Config) -> None:
  model = config.model
  for name in ('unet_width', 'agent_width', 'vgg_width', 'vgg_hidden'):
    _at_least(f'model.{name}', getattr(model, name), 1)
  _one_of('model.dtype', model.dtype, ('float32', 'bfloat16'))
  _one_of('model.agent_trunk', model.agent_trunk, ('vgg16', 'light'))
  _one_of('model.vgg_norm', model.vgg_norm, ('', 'batch'))


def _check_masking(config: Config) -> None:
  masking = config.masking
  _one_of('masking.strategy', masking.strategy, STRATEGIES)
  _in_range('masking.mask_ratio', masking.mask_ratio, 0, 1, open_ends=True)
  _one_of('masking.patch_size', masking.patch_size, (4, 8, 16, 32))
  _one_of('masking.action_means', masking.action_means, ('mask', 'keep'))
  _one_of('masking.reward', masking.reward, ('log', 'relative', 'rank', 'progress'))
  _one_of('masking.reward_within', masking.reward_within, ('worker', 'image'))
  _one_of('masking.polarity', masking.polarity, ('hard', 'easy'))
  _one_of('masking.budget', masking.budget, ('image', 'tile', 'none'))
  _one_of('masking.ease', masking.ease, ('logits', 'share'))
  _one_of('masking.saliency', masking.saliency, ('gradient', 'entropy'))
  _at_least('masking.workers', masking.workers, 1)
  _at_least('masking.rounds', masking.rounds, 1)
  _in_range('masking.gamma', masking.gamma, 0, 1)
  _in_range('masking.ease_in', masking.ease_in, 0, 1)
  _in_range('masking.ease_out', masking.ease_out, 0, 1)
  if masking.ease_in + masking.ease_out > 1:
    raise UserError(f'config.masking.ease_in and ease_out are {masking.ease_in} and {masking.ease_out}; their sum is above 1')
  for name in ('entropy_weight', 'value_weight', 'learning_rate'):
    _at_least(f'masking.{name}', getattr(masking, name), 0)
  for name in ('logit_bound', 'temperature'):
    _above_0(f'masking.{name}', getattr(masking, name))
  if not math.isfinite(masking.fill_value):
    raise UserError(f'config.masking.fill_value is {masking.fill_value}; give a number')
  if masking.hard_share is not None:
    _in_range('masking.hard_share', masking.hard_share, 0, 1)
  if len(masking.ema_decay) != 2 or not all(0 <= decay < 1 for decay in masking.ema_decay):
    raise UserError(f'config.masking.ema_decay is {masking.ema_decay}; give two numbers in [0, 1), first and last')
  _at_least('masking.tile', masking.tile, 1)
  if masking.budget != 'image' and masking.exact_count:
    raise UserError(f'config.masking.exact_count is for masking.budget=image; it is {masking.budget}')


def _check_recipe(item: RecipeConfig, stage: str) -> None:
  _at_least(f'{stage}.batch_size', item.batch_size, 1)
  if item.steps is None and item.epochs is None:
    raise UserError(f'config.{stage}.steps and config.{stage}.epochs are both unset; set one of them')
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
    raise UserError(f'config.{name} is {value!r}; it may be {", ".join(str(item) or repr(item) for item in allowed)}{hint}')


def _at_least(name: str, value, low) -> None:
  if not low <= value < math.inf:
    raise UserError(f'config.{name} is {value}; it must be at least {low}{"" if math.isfinite(value) else ", and finite"}')


def _above_0(name: str, value) -> None:
  if not 0 < value < math.inf:
    raise UserError(f'config.{name} is {value}; it must be above 0{"" if math.isfinite(value) else ", and finite"}')


def _in_range(name: str, value, low, high, open_ends: bool = False) -> None:
  inside = low < value < high if open_ends else low <= value <= high
  if not inside:
    raise UserError(f'config.{name} is {value}; it must lie {"strictly " if open_ends else ""}between {low} and {high}')
