"""Random changes of training images: geometry, which moves image and mask together, and colour.

Every image has a key of its own, made from its position in the global batch, so that a batch is
augmented alike however it is divided among devices.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

from ahm_jax.config import AugmentConfig, DataConfig
from ahm_jax.data.readers.intensity import MISSING

_NEAR = 1e-4  # What interpolation may change a value that is the same everywhere by.


@dataclasses.dataclass(frozen=True)
class ModalityAugment(AugmentConfig):
  """The same, of images whose channels are modalities.

  Their intensities have no common unit, and none at all in MRI, where a scanner's gain scales each
  sequence by itself. So contrast and brightness are drawn for each channel, contrast is about its
  own mean, and brightness is a factor, which leaves air black, as nnU-Net's (Isensee et al., 2021)
  and MONAI's RandScaleIntensity. There is no hue. A channel that is MISSING stays so.
  """

  # Probability that a channel becomes MISSING, as `DataConfig` has it.
  dropout: float = 0.0


def for_data(config: AugmentConfig, data: DataConfig) -> AugmentConfig:
  """How the images of a data set are changed where its config asks for `config`."""
  if not data.modalities:
    return config
  return ModalityAugment(**vars(config), dropout=data.modality_dropout)


def augment_batch(
  key: jax.Array, images: jax.Array, masks: jax.Array, positions: jax.Array, config: AugmentConfig
) -> tuple[jax.Array, jax.Array]:
  """Augments every image of a batch, or of a device's share of it.

  Args:
    key: the key of the training step.
    images: uint8 [b, S, S, C].
    masks: uint8 or bool [b, S, S], values 0 and 1.
    positions: int32 [b], each image's position in the global batch.
    config: static.

  Returns:
    Images float32 [b, S, S, C] in [0, 1], and masks float32 [b, S, S], values 0 and 1.
  """
  return jax.vmap(lambda key, image, mask: augment(key, image, mask, config))(
    _each(key, positions), images / jnp.float32(255), masks.astype(jnp.float32)
  )


def recolour_batch(
  key: jax.Array, images: jax.Array, positions: jax.Array, config: AugmentConfig
) -> jax.Array:
  """The colours of `augment_batch` alone: what it does to images that it has only moved, with the
  same key and positions.

  Args:
    images: float32 [b, S, S, C] in [0, 1].
    positions: int32 [b].

  Returns:
    Of the same shape and range.
  """
  return jax.vmap(lambda key, image: _recolour(jax.random.split(key)[1], image, config))(
    _each(key, positions), images
  )


def move_batch(
  key: jax.Array, planes: jax.Array, positions: jax.Array, config: AugmentConfig
) -> jax.Array:
  """The geometry of `augment_batch` alone, with the same key and positions, of anything that lies
  in the images' pixels.

  Args:
    planes: float32 [b, S, S, n].
    positions: int32 [b].

  Returns:
    Of the same shape, interpolated.
  """
  return jax.vmap(lambda key, x: _move(jax.random.split(key)[0], x, config))(
    _each(key, positions), planes
  )


def geometry_only(config: AugmentConfig) -> AugmentConfig:
  """The config without changes of colour, and without channels that become MISSING."""
  return without_dropout(dataclasses.replace(config, brightness=0.0, contrast=0.0, hue=0.0))


def without_dropout(config: AugmentConfig) -> AugmentConfig:
  """The config without channels that become MISSING."""
  if isinstance(config, ModalityAugment):
    return dataclasses.replace(config, dropout=0.0)
  return config


def drop_batch(
  key: jax.Array, images: jax.Array, positions: jax.Array, config: AugmentConfig
) -> jax.Array:
  """The dropout of `augment_batch` alone, with the same key and positions.

  Args:
    images: float32 [b, S, S, C] in [0, 1].
    positions: int32 [b].

  Returns:
    Of the same shape.
  """
  if not isinstance(config, ModalityAugment):
    return images
  return jax.vmap(lambda key, image: _drop(jax.random.split(key)[1], image, config))(
    _each(key, positions), images
  )


def augment(
  key: jax.Array, image: jax.Array, mask: jax.Array, config: AugmentConfig
) -> tuple[jax.Array, jax.Array]:
  """Augments one image and its mask; with every field of the config at 0 or False, changes nothing.

  Args:
    image: float32 [S, S, C] in [0, 1].
    mask: float32 [S, S], values 0 and 1. It is interpolated like the image, then cut at 0.5.
    config: static.

  Returns:
    Image and mask, of the same shapes and ranges.
  """
  geometry_key, colour_key = jax.random.split(key)
  moved = _move(geometry_key, jnp.concatenate([image, mask[..., None]], -1), config)
  mask = (moved[..., -1] >= 0.5).astype(mask.dtype)
  return _recolour(colour_key, moved[..., :-1], config), mask


def normalise(x: jax.Array) -> jax.Array:
  """What the networks see of an image in [0, 1]: mid-grey is 0, and the range is [-2, 2]."""
  return (x - 0.5) / 0.25


def denormalise(x: jax.Array) -> jax.Array:
  """The inverse of `normalise`."""
  return x * 0.25 + 0.5


def _each(key: jax.Array, positions: jax.Array) -> jax.Array:
  """A key for every image."""
  return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, positions)


def _move(key: jax.Array, planes: jax.Array, config: AugmentConfig) -> jax.Array:
  """[S, S, n] in a random pose."""
  if not (config.flip or config.scale or config.zoom_out):
    return planes
  transpose, coordinates = _pose(key, len(planes), config)
  return jax.vmap(_sample, in_axes=(2, None, None), out_axes=2)(planes, transpose, coordinates)


def _pose(key: jax.Array, size: int, config: AugmentConfig) -> tuple[jax.Array, list[jax.Array]]:
  """A random square, in the image or around it, in one of 8 poses: whether to transpose, then each
  pixel's row and column of origin, [size, size].
  """
  scale_key, corner_key, pose_key = jax.random.split(key, 3)
  share = 1 + config.zoom_out - (config.scale + config.zoom_out) * jax.random.uniform(scale_key)
  corner = jax.random.uniform(corner_key, (2, 1)) * (1 - share) * size
  origins = corner + (jnp.arange(size) + 0.5) * share - 0.5  # [2, size]: of rows, of columns.
  transpose, *reverse = jax.random.bernoulli(pose_key, 0.5 if config.flip else 0.0, (3,))
  origins = jnp.where(jnp.stack(reverse)[:, None], origins[:, ::-1], origins)
  return transpose, jnp.meshgrid(*origins, indexing='ij')


def _sample(plane: jax.Array, transpose: jax.Array, coordinates: list[jax.Array]) -> jax.Array:
  return map_coordinates(jnp.where(transpose, plane.T, plane), coordinates, order=1, mode='nearest')


def _recolour(key: jax.Array, image: jax.Array, config: AugmentConfig) -> jax.Array:
  """Turns the hue, scales the contrast about the image's mean and shifts the brightness of [S,
  S, C]; of modalities see `ModalityAugment`. Clips to [0, 1].
  """
  if isinstance(config, ModalityAugment):
    return _rescale(key, image, config)
  hue, contrast, brightness = jax.random.uniform(key, (3,), minval=-1.0)
  if config.hue and image.shape[-1] == 3:
    image = _turn_hue(image, config.hue * hue)
  if config.contrast:
    mean = image.mean()
    image = mean + (1 + config.contrast * contrast) * (image - mean)
  if config.brightness:
    image = image + config.brightness * brightness
  return jnp.clip(image, 0, 1)


def _rescale(key: jax.Array, image: jax.Array, config: ModalityAugment) -> jax.Array:
  missing = _is_missing(image)
  contrast, brightness = jax.random.uniform(key, (2, image.shape[-1]), minval=-1.0)
  if config.contrast:
    mean = image.mean((0, 1))
    image = mean + (1 + config.contrast * contrast) * (image - mean)
  if config.brightness:
    image = image * (1 + config.brightness * brightness)
  return _drop(key, jnp.where(missing, MISSING / 255, jnp.clip(image, 0, 1)), config)


def _drop(key: jax.Array, image: jax.Array, config: ModalityAugment) -> jax.Array:
  """Channels of [S, S, C] that become MISSING, each by itself, but never the last that is there."""
  if not config.dropout:
    return image
  drop_key, keep_key = jax.random.split(jax.random.fold_in(key, 1))
  missing, shape = _is_missing(image), (image.shape[-1],)
  dropped = missing | jax.random.bernoulli(drop_key, config.dropout, shape)
  order = jnp.where(missing, -1.0, jax.random.uniform(keep_key, shape))
  kept = dropped.all() & (jnp.arange(shape[0]) == order.argmax())
  return jnp.where(dropped & ~kept, MISSING / 255, image)


def _is_missing(image: jax.Array) -> jax.Array:
  """Of [S, S, C] in [0, 1], maybe moved, which channels have no file: bool [C]."""
  return (jnp.abs(image - MISSING / 255) < _NEAR).all((0, 1))


def _turn_hue(image: jax.Array, turn: jax.Array) -> jax.Array:
  """Adds `turn`, a share of the circle, to the hue of RGB [..., 3] and keeps HSV's saturation
  and value.
  """
  red, green, blue = image[..., 0], image[..., 1], image[..., 2]
  value = image.max(-1)
  chroma = value - image.min(-1)
  divisor = jnp.where(chroma > 0, chroma, 1)
  # Never whether a channel equals `value`: where XLA computes it twice, it may round in two ways.
  sextant = jnp.where(
    red >= jnp.maximum(green, blue),
    (green - blue) / divisor,
    jnp.where(green >= blue, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
  )
  # Each channel is the value less the chroma times a trapezoid of the hue, the same for all three
  # but for its phase.
  phase = (sextant + 6 * turn)[..., None] + jnp.array([5.0, 3.0, 1.0])
  phase = phase - 6 * jnp.floor(phase / 6)
  return value[..., None] - chroma[..., None] * jnp.clip(jnp.minimum(phase, 4 - phase), 0, 1)
