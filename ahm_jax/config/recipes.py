"""The fields of how a stage is trained: recipes, masks, augmentation; see `fields`."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from ahm_jax.config.paths import local
from ahm_jax.config.ranges import above, at_least, between, strictly_between, two_shares


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
