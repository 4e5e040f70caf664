"""Every field of a config: its default, its meaning and its unit."""

from dataclasses import dataclass, field

MASK_CLASSES = 255  # At most so many: with background, what 8 bits can tell apart.
SCRATCH = 'scratch'  # The method without pre-training.
TILE = 2  # Side in patches of the squares that each keep to the ratio under masking.budget 'tile'.


@dataclass(frozen=True)
class PhantomConfig:
  """How many dermoscopy phantoms to draw; their size is `data.image_size`."""

  train: int = 1000
  validation: int = 60
  test: int = 120


@dataclass(frozen=True)
class DataConfig:
  # 'phantom': drawn from the seed. 'folder': images/, masks/ and labels.csv under `root`.
  # 'isic2018': the official archives.
  name: str = 'phantom'
  root: str = ''  # The folder, for 'folder' and 'isic2018'.
  image_size: int = (
    224  # Side in pixels that images are resized to; a multiple of 16 and of masking.patch_size.
  )
  channels: int = 3  # 3: RGB. 1: grey.
  labels: int = 0  # Labelled training images to use, chosen in nested, stratified order; 0: all.
  skip_unreadable: bool = (
    False  # Drop and list files that cannot be read, instead of refusing to start.
  )
  mask_classes: tuple[
    str, ...
  ] = ()  # Names of the values 1, 2, ... of masks; 0 is background. Empty: binary lesion masks.
  window: tuple[
    float, ...
    # Centre and width that more than 8 bits are shown by, as 40,400 HU; empty: the file's own.
  ] = ()
  slice_axis: int = (
    2  # Axis of NIfTI volumes across which their slices lie: 0 sagittal, 1 coronal, 2 axial.
  )
  every_slice: int = 1  # Take the slices 0, n, 2n, ... of a volume.
  split_fractions: tuple[float, ...] = (
    0.7,
    0.1,
    0.2,
  )  # Train, validation, test, where labels.csv has no split column.
  split_seed: int = 0  # Seed of that split and of the phantoms.
  prepared_dir: str = ''  # Where prepared data is kept; empty: `data/` in the workdir.
  resident_share: float = (
    0.25  # Hold the training images on the device when they take at most this share of its memory.
  )
  phantom: PhantomConfig = field(default_factory=PhantomConfig)


@dataclass(frozen=True)
class AugmentConfig:
  """Random changes of a training image.

  Geometry moves image and mask together; colour touches the image alone.
  """

  flip: bool = True  # Left-right, and quarter turns.
  # Crop a square of side between (1 - scale) and 1 of the image's, and resize it to full size.
  scale: float = 0.2
  brightness: float = 0.1  # Shift by up to this much, of an image range of 1.
  contrast: float = 0.1  # Scale about the mean by a factor in [1 - contrast, 1 + contrast].
  hue: float = 0.02  # Turn the hue by up to this share of the circle; RGB only.


@dataclass(frozen=True)
class ModelConfig:
  unet_width: int = 64  # Channels of the U-Net's first level; each level down doubles them.
  # What convolutions compute in: 'float32' or 'bfloat16'. Parameters, losses, statistics stay
  # float32.
  dtype: str = 'float32'
  # The U-Net computes its blocks again for the gradient: less memory, a third more operations.
  recompute: bool = False
  sync_batch_norm: bool = (
    True  # Batch statistics over all devices (and workers), not over each device's share.
  )
  agent_trunk: str = (
    'vgg16'  # 'vgg16': conv1_1..conv3_3 (the paper). 'light': a few strided convolutions.
  )
  # Channels of the trunk's first level; heads have four times as many, or fewer for small patches.
  agent_width: int = 64
  vgg_width: int = 64  # Channels of the classifier's first level.
  vgg_hidden: int = 4096  # Width of the classifier's two hidden dense layers.
  # After each convolution of the classifier: '' (the paper) or 'batch' (torchvision's vgg16_bn).
  vgg_norm: str = ''
  # .safetensors or .npz of a VGG16, torchvision's or Keras's, that agent and classifier start from.
  # The agent's trunk has no norms: those of the file are folded into its convolutions. The
  # classifier has them where the file has: see vgg_norm.
  vgg_weights: str = ''


@dataclass(frozen=True)
class MaskingConfig:
  strategy: str = 'ahm'  # One of `ahm_jax.masking.registry`.
  mask_ratio: float = 0.6  # Expected share of patches hidden in every image, in (0, 1).
  patch_size: int = 16  # Side of a patch in pixels; 4, 8, 16 or 32.
  # The U-Net sees changed colours (pretrain.augment's) and repairs towards the true ones; else both
  # are of the changed image.
  restore_colour: bool = False
  workers: int = 4  # Parallel actors K; each has batch_size / K images and a key of its own.
  rounds: int = 1  # Masking rounds T of an episode.
  gamma: float = 0.9  # Discount between rounds.
  entropy_weight: float = 0.1  # beta.
  value_weight: float = 0.5  # Weight of the critic's loss.
  # Of a hidden patch: 'log', whitened log loss; 'rank', in [-1, 1];
  # 'progress', whitened log of a teacher's loss / the loss, which is what was learnt of late and
  # costs two more passes of the U-Net.
  reward: str = 'log'
  reward_within: str = (
    'worker'  # The hidden patches that are compared: of all the worker's images, or of one 'image'.
  )
  # 'hard': hide what the reward (the saliency, adios's loss) is high for. 'easy': what it is low
  # for.
  polarity: str = 'hard'
  # Where mask_ratio holds in the mean: 'image', 'tile' (so nothing is hidden whole), 'none'
  # (nowhere).
  budget: str = 'image'
  warmup: float = 1.0  # Share of the steps over which masks go from uniform to the strategy's own.
  # What grows meanwhile: 'logits', a factor from 0 to 1, or 'share', from 0 to hard_share.
  warmup_by: str = 'logits'
  hard_share: float | None = (
    None  # Share of hidden patches that are not uniform; None: 0.5 in anatomask and hpm, else 1.
  )
  learning_rate: float = 2e-4  # Of the agent (Adam).


@dataclass(frozen=True)
class RecipeConfig:
  """How one task is trained."""

  batch_size: int = 12  # Images per step, over all devices.
  learning_rate: float = 2e-4
  steps: int | None = (
    None  # Length of training in steps; where it is not set, in passes over the images:
  )
  epochs: float | None = None
  min_epochs: float = (
    0.0  # But so many passes at least, so that many images train for longer than `steps`.
  )
  optimizer: str = 'adam'  # 'adam' or 'adamw'.
  weight_decay: float = 0.0  # AdamW's.
  schedule: str = (
    'constant'  # 'constant', 'cosine' (to 0), or 'staircase' (times decay_rate every decay_epochs).
  )
  warmup: float = 0.0  # Share of the steps over which the learning rate grows linearly from 0.
  decay_rate: float = 0.9
  decay_epochs: float = 3.0
  clip: float = 0.0  # Largest global norm of the gradient; 0: no clipping.
  log_every: int = 20  # Steps between lines of metrics.jsonl.
  eval_every: int = (
    0  # Steps between validations, each followed by a checkpoint; 0: ten times in a run.
  )
  patience: int = 0  # Stop after this many validations without a better score; 0: never.
  augment: AugmentConfig = field(default_factory=AugmentConfig)


@dataclass(frozen=True)
class SafetyConfig:
  """What keeps a long run from being lost."""

  # Minutes of training after which a checkpoint is due, beside those at validations; 0: none.
  save_minutes: float = 10.0
  skipped_steps: int = (
    10  # Steps in a row that are not finite, and so not taken, after which the run stops.
  )


@dataclass(frozen=True)
class TransferConfig:
  """How a segmentation takes over a pre-trained U-Net."""

  # Learning rate of its encoder, as a share of the other layers'; from scratch all learn alike.
  encoder_rate: float = 1.0


@dataclass(frozen=True)
class TrainConfig:
  """Overrides: a field that is set here replaces the recipe's own in whatever stage is launched."""

  batch_size: int | None = None
  learning_rate: float | None = None
  steps: int | None = None
  epochs: float | None = None


@dataclass(frozen=True)
class ClassifyConfig:
  # 'image': as it is. 'crop': box around the predicted lesion. 'masked': all but the lesion blacked
  # out.
  input: str = 'crop'
  margin: float = 0.1  # Margin of the crop's box on each side, as a share of the box's side.
  # Images to train on, of all with a label, also those without a mask; 0: the images of
  # data.labels.
  labels: int = 0
  balanced: bool = (
    False  # Weigh images in the loss so that every class counts alike, however few its images are.
  )


@dataclass(frozen=True)
class EvaluateConfig:
  split: str = 'test'  # 'train', 'validation' or 'test'.
  batch_size: int = 32
  # Lesion where the predicted probability is at least this; of several classes, the likeliest is
  # taken.
  threshold: float = 0.5
  bootstrap_samples: int = 2000
  report_images: int = 6  # Held-out images shown in report.html.
  viewer_images: int = (
    120  # Those one can page through there; fewer where the page would pass 10 MiB.
  )


@dataclass(frozen=True)
class GridConfig:
  """The cells of `reproduce`."""

  methods: tuple[str, ...] = (
    'scratch',
    'uniform',
    'ahm',
  )  # 'scratch', or what `with_method` takes: 'ahm', 'ahm:rounds=2'.
  labels: tuple[int, ...] = (20, 50)
  seeds: tuple[int, ...] = (0, 1, 2)
  classify: bool = True
  results: tuple[
    str, ...
    # Files results.json made elsewhere; cells of this grid that stand in them are not run again.
  ] = ()


@dataclass(frozen=True)
class ProfileConfig:
  steps: str = ''  # 'a:b': trace steps a to b - 1.


@dataclass(frozen=True)
class Config:
  seed: int = 0
  # To start from. For segment: a pre-training run, its Orbax export, or a U-Net as .safetensors or
  # .npz. For classify: a segmentation run.
  init_from: str = ''
  data: DataConfig = field(default_factory=DataConfig)
  model: ModelConfig = field(default_factory=ModelConfig)
  masking: MaskingConfig = field(default_factory=MaskingConfig)
  train: TrainConfig = field(default_factory=TrainConfig)
  safety: SafetyConfig = field(default_factory=SafetyConfig)
  pretrain: RecipeConfig = field(
    default_factory=lambda: RecipeConfig(batch_size=12, learning_rate=2e-4, epochs=100)
  )
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
