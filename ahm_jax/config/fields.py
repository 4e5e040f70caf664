"""Every field of a config: its type, range, default, meaning and unit.

`Literal[...]` lists what a field may be; `Annotated[type, ...]` adds its range, see
`ahm_jax.config.ranges`, and with `used_by` the stages whose result depends on it: all where it says
none. What must fit together across fields is in `ahm_jax.config.checks`.
"""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from ahm_jax.config.paths import local
from ahm_jax.config.ranges import (
  LARGEST,
  above,
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
  two_shares,
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
  root: Annotated[str, local] = ''  # The folder, for all but 'phantom'.
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
class AugmentConfig:
  """Random changes of a training image.

  Geometry moves image and mask together; colour touches the image alone, of one with modalities
  each by itself.
  """

  flip: bool = True  # Left-right, and quarter turns.
  # Resize a square of side between (1 - scale) and (1 + zoom_out) of the image's to full size; what
  # is outside of the image continues its border.
  scale: Annotated[float, between(0, 0.9)] = 0.2
  zoom_out: Annotated[float, between(0, 3)] = 0.0
  # Shift by up to this much, of an image range of 1; of modalities, whose intensities have no unit
  # but whose air is black, scale by a factor in [1 - brightness, 1 + brightness].
  brightness: Annotated[float, between(0, 1)] = 0.1
  # Scale about the mean by a factor in [1 - contrast, 1 + contrast].
  contrast: Annotated[float, between(0, 1)] = 0.1
  # Turn the hue by up to this share of the circle; RGB only.
  hue: Annotated[float, between(0, 1)] = 0.02


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
class MaskingConfig:
  strategy: str = 'ahm'  # One of `ahm_jax.masking.registry`.
  # Expected share of masked patches in every image.
  mask_ratio: Annotated[float, strictly_between(0, 1)] = 0.6
  patch_size: Literal[4, 8, 16, 32] = 16  # Side of a patch in pixels.
  # Every one of data.modalities has patches of its own, which are masked and rewarded by
  # themselves; mask_ratio is their share of all. Else a patch is of all modalities.
  per_modality: bool = False
  # The U-Net sees changed colours (pretrain.augment's) and reconstructs the true ones; else both
  # are of the changed image.
  restore_colour: bool = False
  # Parallel actors K; each has batch_size / K images and a key of its own.
  workers: Annotated[int, at_least(1)] = 4
  rounds: Annotated[int, at_least(1)] = 1  # Masking rounds T of an episode.
  gamma: Annotated[float, between(0, 1)] = 0.9  # Discount between rounds.
  entropy_weight: Annotated[float, at_least(0)] = 0.1  # beta.
  value_weight: Annotated[float, at_least(0)] = 0.5  # Weight of the critic's loss.
  # Of a masked patch: 'log', whitened log loss; 'rank', in [-1, 1]; 'progress', whitened log of a
  # teacher's loss / the loss, which is what was learnt of late and costs two more passes of the
  # U-Net.
  reward: Literal['log', 'rank', 'progress'] = 'log'
  # The masked patches that are compared: of all the worker's images, or of one 'image'.
  reward_within: Literal['worker', 'image'] = 'worker'
  # 'hard': mask what the reward (the saliency, adios's loss) is high for. 'easy': what it is low
  # for.
  polarity: Literal['hard', 'easy'] = 'hard'
  # Where mask_ratio holds in the mean: in an 'image', in each 'tile' of TILE x TILE patches (so
  # nothing is masked whole), or nowhere: 'none'.
  budget: Literal['image', 'tile', 'none'] = 'image'
  # Share of the steps over which masks go from uniform to the strategy's own.
  warmup: Annotated[float, between(0, 1)] = 1.0
  # What grows meanwhile: 'logits', a factor from 0 to 1, or 'share', from 0 to hard_share.
  warmup_by: Literal['logits', 'share'] = 'logits'
  # Share of masked patches that are not uniform; None: 0.5 in anatomask and hpm, else 1.
  hard_share: Annotated[float | None, between(0, 1)] = None
  learning_rate: Annotated[float, at_least(0)] = 2e-4  # Of the agent (Adam).


@dataclass(frozen=True)
class RecipeConfig:
  """How one stage is trained."""

  batch_size: Annotated[int, at_least(1)] = 12  # Images per step, over all devices.
  learning_rate: Annotated[float, at_least(0)] = 2e-4
  # Length of training in steps; where it is not set, in passes over the images:
  steps: Annotated[int | None, at_least(1)] = None
  epochs: Annotated[float | None, above(0)] = None
  # But so many passes at least, so that many images train for longer than `steps`.
  min_epochs: Annotated[float, at_least(0)] = 0.0
  optimizer: Literal['adam', 'adamw'] = 'adam'
  weight_decay: Annotated[float, at_least(0)] = 0.0  # AdamW's.
  # 'cosine': to 0. 'staircase': times decay_rate every decay_epochs.
  schedule: Literal['constant', 'cosine', 'staircase'] = 'constant'
  # Share of the steps over which the learning rate grows linearly from 0.
  warmup: Annotated[float, between(0, 1)] = 0.0
  decay_rate: Annotated[float, between(0, 1)] = 0.9
  decay_epochs: Annotated[float, above(0)] = 3.0
  # Largest global norm of the gradient; 0: no clipping.
  clip: Annotated[float, at_least(0)] = 0.0
  log_every: Annotated[int, at_least(1)] = 20  # Steps between lines of metrics.jsonl.
  # Steps between validations, each followed by a checkpoint; 0: ten times in a run.
  eval_every: Annotated[int, at_least(0)] = 0
  # Stop after this many validations without a better score; 0: never.
  patience: Annotated[int, at_least(0)] = 0
  augment: AugmentConfig = field(default_factory=AugmentConfig)


@dataclass(frozen=True)
class PretrainConfig(RecipeConfig):
  """How a pre-training is trained, and the weights of what it minimises on masked images."""

  # Reconstruction of masked patches: mean squared error.
  pixels: Annotated[float, at_least(0)] = 1.0
  # Prediction of an averaged U-Net's features of masked patches: 1 - cosine, at 1/16 and 1/4 of the
  # resolution.
  features: Annotated[float, at_least(0)] = 0.0
  # Telling the image from others of the batch, and its patches from each other (InfoNCE).
  contrast: Annotated[float, at_least(0)] = 0.0


@dataclass(frozen=True)
class UnlabelledConfig:
  """How a segmentation learns from images without their masks: `ahm_jax.training.consistency`."""

  # Images per step, over all devices, beside the labelled ones: any of the training split, in
  # pairs. 0: none.
  batch_size: Annotated[int, at_least(0)] = 0
  # What the student is to agree with: a finished segmentation run, or an export of one (noisy
  # student); {seed} and {labels} in it stand for those of the run. '': its own moving average.
  teacher: Annotated[str, local] = ''
  weight: Annotated[float, at_least(0)] = 1.0  # Of the consistency loss.
  # Share of the steps over which the weight grows, as exp(-5 (1 - t)^2).
  ramp: Annotated[float, between(0, 1)] = 0.3
  # What the student is to predict: the teacher's probabilities, or its most probable class.
  targets: Literal['soft', 'hard'] = 'soft'
  # A pixel is confident where the teacher's most probable class has at least this probability.
  confidence: Annotated[float, between(0, 1)] = 0.0
  # An image counts where the teacher finds the same twice, the second time turned by 180 degrees,
  # if `augment` has flips, and in its colours: where the Dice of the two masks, in the mean over
  # classes, is at least this. 0: it looks once, and all images count.
  agreement: Annotated[float, between(0, 1)] = 0.0
  # What counts: the confident 'pixels', or all of them by their 'share'.
  confident: Literal['pixels', 'share'] = 'pixels'
  cutmix: Annotated[float, between(0, 1)] = 1.0  # Share of pairs that exchange a box (CutMix).
  # Smallest and largest share of the image's area that a box has.
  cutmix_area: Annotated[tuple[float, ...], two_shares] = (0.1, 0.5)
  # How often the student sees each image, with other colours and boxes each time.
  views: Literal[1, 2] = 1
  # Share of the encoder's channels that are dropped in one more view, in the image's own colours
  # and without a box (UniMatch); 0: there is no such view.
  feature_dropout: Annotated[float, between(0, 0.9)] = 0.0
  # How the student sees an image; the teacher sees it as it is.
  augment: AugmentConfig = field(
    default_factory=lambda: AugmentConfig(brightness=0.3, contrast=0.3, hue=0.08)
  )
  # Patches that `masking` places are hidden from the student, in mid-grey or under the partner's;
  # '': none are.
  hide: Literal['', 'grey', 'partner'] = ''
  # What `masking` is rewarded for: the student's 'loss' against the teacher, of images that do not
  # count too; that of 'confident' pixels that do; or 'progress', the teacher's own loss on the same
  # image / the student's.
  reward: Literal['loss', 'confident', 'progress'] = 'loss'
  masking: MaskingConfig = field(
    default_factory=lambda: MaskingConfig(strategy='uniform', mask_ratio=0.3)
  )


@dataclass(frozen=True)
class DiagnosisConfig:
  """How a segmentation learns to tell the diagnosis too: `ahm_jax.training.diagnosis`."""

  # Images with a label per step, over all devices, beside those with a mask; they need no mask. 0:
  # no diagnosis is learnt.
  batch_size: Annotated[int, at_least(0)] = 0
  # How many of the training images with a label to learn from; 0: all.
  labels: Annotated[int, at_least(0)] = 0
  # How the losses are added: that of the diagnosis times `weight`, or both by learnt variances.
  weighting: Literal['fixed', 'learnt'] = 'fixed'
  weight: Annotated[float, at_least(0)] = 1.0
  # Weigh images in the loss so that every class counts alike, however few its images are.
  balanced: bool = True


@dataclass(frozen=True)
class ReconstructionConfig:
  """How a segmentation reconstructs masked images too: `ahm_jax.training.reconstruction`."""

  # Images per step, over all devices, any of the training split; 0: none.
  batch_size: Annotated[int, at_least(0)] = 0
  weight: Annotated[float, at_least(0)] = 1.0  # Of the mean squared error of masked patches.
  masking: MaskingConfig = field(default_factory=lambda: MaskingConfig(strategy='uniform'))


@dataclass(frozen=True)
class SegmentConfig(RecipeConfig):
  """How a segmentation is trained."""

  # Decay of a moving average of the network, at most (1 + t) / (10 + t) after t steps, which is
  # what is validated and kept, and the teacher of unlabelled images; 0: no average.
  ema_decay: Annotated[float, between(0, 0.99999)] = 0.0
  unlabelled: UnlabelledConfig = field(default_factory=UnlabelledConfig)
  diagnosis: DiagnosisConfig = field(default_factory=DiagnosisConfig)
  reconstruction: ReconstructionConfig = field(default_factory=ReconstructionConfig)


@dataclass(frozen=True)
class SafetyConfig:
  """What keeps a long run from being lost."""

  # Minutes of training after which a checkpoint is due, beside those at validations; 0: none.
  save_minutes: Annotated[float, at_least(0)] = 10.0
  # Steps in a row that are not finite, and so not taken, after which the run stops.
  skipped_steps: Annotated[int, at_least(1)] = 10


@dataclass(frozen=True)
class TransferConfig:
  """How a segmentation takes over a pre-trained U-Net."""

  # Learning rate of its encoder, as a share of the other layers'; from scratch all learn alike.
  encoder_rate: Annotated[float, between(0, 1)] = 1.0


@dataclass(frozen=True)
class ClassifyConfig:
  # 'image': as it is. 'crop': box around the predicted lesion. 'masked': all but the lesion blacked
  # out.
  input: Literal['image', 'crop', 'masked'] = 'crop'
  # Margin of the crop's box on each side, as a share of the box's side.
  margin: Annotated[float, between(0, 1)] = 0.1
  # Images to train on, of all with a label, also those without a mask; 0: the images of
  # data.labels.
  labels: Annotated[int, at_least(0)] = 0
  # Weigh images in the loss so that every class counts alike, however few its images are.
  balanced: bool = False


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
