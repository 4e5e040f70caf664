"""Every field of a config: its type, range, default, meaning and unit.

`Literal[...]` lists what a field may be; `Annotated[type, ...]` adds its range, see
`ahm_jax.config.ranges`, and with `used_by` the stages whose result depends on it: all where it says
none. Those of how a stage is trained are in `ahm_jax.config.recipes`; what must fit together across
fields is in `ahm_jax.config.checks`.
"""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from ahm_jax.config.paths import local
from ahm_jax.config.ranges import (
  LARGEST,
  at_least,
  between,
  centre_and_width,
  class_names,
  each,
  intensities,
  modality_names,
  named_methods,
  not_empty,
  part_of_a_name,
  strictly_between,
  three_shares,
)
from ahm_jax.config.recipes import (
  ClassifyConfig,
  MaskingConfig,
  PretrainConfig,
  RecipeConfig,
  SegmentConfig,
  TransferConfig,
)

# The stages of a run, and the grid of them.
PRETRAIN, SEGMENT, CLASSIFY = 'pretrain', 'segment', 'classify'
STAGES = (PRETRAIN, SEGMENT, CLASSIFY)
REPRODUCE = 'reproduce'
BASELINES = ('scratch', 'uniform', 'ahm')  # Methods that others are compared with.
TILE = 2  # Side in patches of the squares that each keep to the ratio under masking.budget 'tile'.


@dataclass(frozen=True)
class UsedBy:
  stages: frozenset[str]


def used_by(*stages: str) -> UsedBy:
  """The stages whose result depends on a field, or on the fields of a section."""
  return UsedBy(frozenset(stages))


MAY_CHANGE = used_by()  # No training depends on it: a run may resume with another value.


class FrozenDict(dict):
  """A dict that nobody changes, so that a config can be hashed."""

  def __hash__(self) -> int:  # type: ignore[override]
    return hash(frozenset(self.items()))


@dataclass(frozen=True)
class PhantomConfig:
  """How many phantoms to draw; their size is `data.image_size`."""

  train: Annotated[int, at_least(1)] = 1000
  validation: Annotated[int, at_least(1)] = 60
  test: Annotated[int, at_least(1)] = 120


@dataclass(frozen=True)
class DataConfig:
  # One of `ahm_jax.data.sets`. 'phantom', 'phantom_mri': drawn from the seed. 'folder': images/,
  # masks/ and labels.csv under `root`. 'isic2018': the official archives. 'nnunet': the raw format
  # of nnU-Net, and the Medical Segmentation Decathlon's.
  name: str = 'phantom'
  root: Annotated[str, local] = ''  # The folder, of all but phantoms.
  # Side in pixels that images are resized to; a multiple of 16 and of masking.patch_size.
  image_size: Annotated[int, at_least(16)] = 224
  channels: Literal[1, 3] = 3  # 3: RGB. 1: grey. Of images without modalities.
  # Names of a case's modalities, as flair,t1,t2, which are its channels in this order. Empty:
  # images have `channels`.
  modalities: Annotated[tuple[str, ...], modality_names] = ()
  # What becomes 0 and 255 in each modality of a case, or one for all: 'percentile', the 0.5th and
  # 99.5th of its foreground (what is not 0); 'zscore', 3 standard deviations below and above the
  # foreground's mean; 'window/CENTRE/WIDTH', as window/40/400. Without modalities see `window`.
  intensity: Annotated[tuple[str, ...], intensities] = ('percentile',)
  # Labelled training images to use, chosen in nested, stratified order; 0: all.
  labels: Annotated[int, at_least(0), used_by(SEGMENT, CLASSIFY)] = 0
  # Table whose column `image` names the training images whose masks are learnt from, best first, as
  # launch.select writes it: the first data.labels of them, or all. {seed} in it stands for the
  # seed. Empty: chosen at random.
  labelled_from: Annotated[str, local, used_by(SEGMENT, CLASSIFY)] = ''
  # Drop and list files that cannot be read, instead of refusing to start.
  skip_unreadable: bool = False
  # What the masks of a folder have behind the names of their images, as '_mask' in ID_mask.png.
  mask_suffix: Annotated[str, part_of_a_name, MAY_CHANGE] = ''
  # Names of the values 1, 2, ... of masks; 0 is background. Empty: binary lesion masks.
  mask_classes: Annotated[tuple[str, ...], class_names, used_by(SEGMENT, CLASSIFY)] = ()
  # Probability that a modality of a training image is hidden from the networks as a whole, in
  # mid-grey, but never all; the U-Net of a pre-training reconstructs them all the same (after M3AE,
  # arXiv 2303.05302). Above 0, cases may lack modalities, in training and in launch.predict.
  modality_dropout: Annotated[float, between(0, 0.9)] = 0.0
  # Centre and width that more than 8 bits are shown by, as 40,400 HU; empty: the file's own.
  window: Annotated[tuple[float, ...], centre_and_width] = ()
  # Axis of NIfTI volumes across which their slices lie: 0 sagittal, 1 coronal, 2 axial.
  slice_axis: Literal[0, 1, 2] = 2
  every_slice: Annotated[int, at_least(1)] = 1  # Take the slices 0, n, 2n, ... of a volume.
  fold: Annotated[int, at_least(0)] = 0  # Of nnU-Net's splits_final.json, where there is one.
  # Train, validation, test, where no column of labels.csv and no splits_final.json says it.
  split_fractions: Annotated[tuple[float, ...], three_shares] = (0.7, 0.1, 0.2)
  split_seed: Annotated[int, between(0, LARGEST)] = 0  # Seed of that split and of the phantoms.
  # Where prepared data is kept; empty: `data/` in the workdir.
  prepared_dir: Annotated[str, local, MAY_CHANGE] = ''
  # Hold the training images on the device when they take at most this share of its memory.
  resident_share: Annotated[float, between(0, 1), MAY_CHANGE] = 0.25
  phantom: PhantomConfig = field(default_factory=PhantomConfig)

  @property
  def depth(self) -> int:
    """Numbers at each pixel of an image."""
    return len(self.modalities) or self.channels

  @property
  def is_colour(self) -> bool:
    """Whether they are red, green and blue."""
    return not self.modalities and self.channels == 3


@dataclass(frozen=True)
class ModelConfig:
  # Channels of the U-Net's first level; each level down doubles them.
  unet_width: Annotated[int, at_least(1)] = 64
  # What convolutions compute in. Parameters, losses, statistics stay float32.
  dtype: Literal['float32', 'bfloat16'] = 'float32'
  # The U-Net computes its blocks again for the gradient: less memory, a third more operations.
  recompute: Annotated[bool, MAY_CHANGE] = False
  # Batch statistics over all devices (and workers), not over each device's share.
  sync_batch_norm: bool = True
  # 'vgg16': conv1_1..conv3_3 (the paper). 'light': a few strided convolutions.
  agent_trunk: Literal['vgg16', 'light'] = 'vgg16'
  # Channels of the trunk's first level; heads have four times as many, or fewer for small patches.
  agent_width: Annotated[int, at_least(1)] = 64
  # Channels of the classifier's first level.
  vgg_width: Annotated[int, at_least(1), used_by(CLASSIFY)] = 64
  # Width of the classifier's two hidden dense layers.
  vgg_hidden: Annotated[int, at_least(1), used_by(CLASSIFY)] = 4096
  # After each convolution of the classifier: '' (the paper) or 'batch' (torchvision's vgg16_bn).
  vgg_norm: Annotated[Literal['', 'batch'], used_by(CLASSIFY)] = ''
  # .safetensors or .npz of a VGG16, torchvision's or Keras's, that agent and classifier start from.
  # The agent's trunk has no norms: those of the file are folded into its convolutions. The
  # classifier has them where the file has: see vgg_norm.
  vgg_weights: Annotated[str, local, used_by(PRETRAIN, CLASSIFY)] = ''
  # How the images that they were trained on are scaled, which the first layer then does. '': as
  # those of all our networks. 'torchvision': by the mean and deviation of ImageNet. 'caffe':
  # Caffe's and Keras's, BGR less ImageNet's mean colour. A grey image is RGB to the latter two.
  # Where it is '' and the file's names are those of torchvision or Keras, a run asks for it.
  vgg_input: Annotated[Literal['', 'torchvision', 'caffe'], used_by(PRETRAIN, CLASSIFY)] = ''


@dataclass(frozen=True)
class SafetyConfig:
  """What keeps a long run from being lost."""

  # Minutes of training after which a checkpoint is due, beside those at validations; 0: none.
  save_minutes: Annotated[float, at_least(0)] = 10.0
  # Steps in a row that are not finite, and so not taken, after which the run stops.
  skipped_steps: Annotated[int, at_least(1)] = 10


@dataclass(frozen=True)
class EvaluateConfig:
  split: Annotated[Literal['train', 'validation', 'test'], MAY_CHANGE] = 'test'
  batch_size: Annotated[int, at_least(1), MAY_CHANGE] = 32
  # Lesion where the predicted probability is at least this; of several classes, the likeliest is
  # taken.
  threshold: Annotated[float, strictly_between(0, 1)] = 0.5
  # Score masks averaged over an image as it is, upside down, mirrored and both.
  flips: bool = False
  bootstrap_samples: Annotated[int, at_least(100), MAY_CHANGE] = 2000
  # Held-out images shown in report.html; 0: no pictures there, but for those one can page through.
  report_images: Annotated[int, at_least(0), MAY_CHANGE] = 6
  # Those one can page through there; fewer where the page would pass 10 MiB.
  viewer_images: Annotated[int, at_least(0), MAY_CHANGE] = 120


@dataclass(frozen=True)
class GridConfig:
  """The cells of `reproduce`."""

  # What is compared: 'scratch', a masking strategy, one with changed fields as in 'ahm:rounds=2',
  # or a name of `variants`. See `ahm_jax.config.methods`.
  methods: Annotated[tuple[str, ...], not_empty] = BASELINES
  # Methods by name, each a masking strategy and what is changed for it:
  # {'ahm_r2': dict(strategy='ahm', rounds=2, segment=dict(learning_rate=1e-3))}.
  variants: Annotated[FrozenDict, named_methods] = field(default_factory=FrozenDict)
  # Of these, all methods are compared with those that the grid has.
  baselines: Annotated[tuple[str, ...], not_empty] = BASELINES
  labels: Annotated[tuple[int, ...], not_empty, each(at_least(0))] = (20, 50)  # As data.labels.
  # Of `methods`, those that are trained with all labels too: what more labels would give.
  all_labels: tuple[str, ...] = ()
  seeds: Annotated[tuple[int, ...], not_empty, each(between(0, LARGEST))] = (0, 1, 2)
  classify: bool = True
  # Files results.json made elsewhere; cells of this grid that stand in them are not run again.
  results: Annotated[tuple[str, ...], each(local)] = ()


@dataclass(frozen=True)
class ProfileConfig:
  steps: str = ''  # 'a:b': trace steps a to b - 1.


@dataclass(frozen=True)
class Config:
  seed: Annotated[int, between(0, LARGEST)] = 0
  # To start from. For segment: a pre-training run, its Orbax export, or a U-Net as .safetensors or
  # .npz. For classify: a segmentation run.
  init_from: Annotated[str, local, used_by(SEGMENT, CLASSIFY)] = ''
  data: DataConfig = field(default_factory=DataConfig)
  model: ModelConfig = field(default_factory=ModelConfig)
  masking: Annotated[MaskingConfig, used_by(PRETRAIN)] = field(default_factory=MaskingConfig)
  safety: Annotated[SafetyConfig, MAY_CHANGE] = field(default_factory=SafetyConfig)
  pretrain: Annotated[PretrainConfig, used_by(PRETRAIN)] = field(
    default_factory=lambda: PretrainConfig(batch_size=12, learning_rate=2e-4, epochs=100)
  )
  segment: Annotated[SegmentConfig, used_by(SEGMENT)] = field(
    default_factory=lambda: SegmentConfig(
      batch_size=4, learning_rate=3e-4, epochs=100, schedule='staircase', clip=1.0, patience=4
    )
  )
  transfer: Annotated[TransferConfig, used_by(SEGMENT)] = field(default_factory=TransferConfig)
  classify: Annotated[ClassifyConfig, used_by(CLASSIFY)] = field(default_factory=ClassifyConfig)
  classifier: Annotated[RecipeConfig, used_by(CLASSIFY)] = field(
    default_factory=lambda: RecipeConfig(batch_size=16, learning_rate=1e-4, epochs=50, patience=4)
  )
  evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
  grid: Annotated[GridConfig, MAY_CHANGE] = field(default_factory=GridConfig)
  profile: Annotated[ProfileConfig, MAY_CHANGE] = field(default_factory=ProfileConfig)
