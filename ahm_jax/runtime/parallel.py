"""What several devices share: state, replicated without a leading axis, and batches, split.

Where several processes train together, `devices` are the D devices of all of them, and each process
holds what its own d need.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ahm_jax.errors import UserError

DEVICES = 'devices'  # Name of the axis that a step reduces over.


class Picks(NamedTuple):
  """Which of the resident images each of the d devices of this process takes, b of them."""

  indices: np.ndarray  # int32 [d, b]
  positions: np.ndarray  # int32 [d, b], in the global batch


class Resident(NamedTuple):
  """A whole split, once on every device of this process."""

  images: jax.Array  # uint8 [N, S, S, C]
  masks: jax.Array  # uint8 [N, S, S]
  labels: jax.Array  # int32 [N]


def all_devices() -> tuple[jax.Device, ...]:
  """What a run trains on: the devices of process 0, then those of process 1, and so on."""
  return tuple(sorted(jax.devices(), key=lambda device: (device.process_index, device.id)))


def own(devices: Sequence[jax.Device]) -> tuple[jax.Device, ...]:
  """Those of this process."""
  return tuple(device for device in devices if device.process_index == jax.process_index())


def check_shared(batch_size: int, devices: Sequence[jax.Device], field: str = 'batch_size') -> None:
  """Makes sure that D devices have the same number of images.

  Raises a UserError that says what to change.
  """
  if batch_size % len(devices):
    raise UserError(
      f'{field} is {batch_size}, which {len(devices)} devices cannot share evenly; '
      f'make it a multiple of {len(devices)}'
    )


def own_rows(array: np.ndarray, devices: Sequence[jax.Device]) -> np.ndarray:
  """[B, ...], of the global batch, as [d, B / D, ...]: the rows that this process's devices take.

  Raises:
    UserError: D does not divide B.
  """
  check_shared(len(array), devices)
  return array.reshape(len(devices), -1, *array.shape[1:])[
    [device.process_index == jax.process_index() for device in devices]
  ]


def replicated(devices: Sequence[jax.Device]) -> NamedSharding:
  """The sharding of an array of which every device holds a whole copy."""
  return NamedSharding(Mesh(np.array(devices), (DEVICES,)), PartitionSpec())


def replicate(tree: Any, devices: Sequence[jax.Device]) -> Any:
  """Puts a whole copy of every array on every device of this process.

  Nothing is sent where it is there already.
  """
  return jax.device_put(tree, replicated(own(devices)))


def of_all(tree: Any, devices: Sequence[jax.Device]) -> Any:
  """Arrays that every process has replicated, as arrays replicated over the devices of all.

  Nothing is copied or sent.
  """
  sharding = replicated(devices)

  def join(array):
    copies = [shard.data for shard in array.addressable_shards]
    return jax.make_array_from_single_device_arrays(array.shape, sharding, copies)

  return tree if len(own(devices)) == len(devices) else jax.tree.map(join, tree)


def abstract(tree: Any, sharding: jax.sharding.Sharding) -> Any:
  """Shapes and dtypes of `tree` with the sharding that its arrays are to have."""
  return jax.tree.map(
    lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding), tree
  )


def one_copy(tree: Any) -> Any:
  """The first device's copy of replicated arrays, without moving any.

  Valid until the next step takes them over. Of the same type as what was put on the device, since
  what is compiled for one is not for another: the type of a shard itself names the step's mesh.
  """

  def alone(array):
    (device,) = (copy := array.addressable_shards[0].data).devices()
    sharding = jax.sharding.SingleDeviceSharding(device)
    return jax.make_array_from_single_device_arrays(copy.shape, sharding, [copy])

  return jax.tree.map(alone, tree)


def fetch(metrics: dict[str, jax.Array]) -> dict[str, float]:
  """A step's metrics as floats, read off the first device (indexing the split array would be ten
  times slower).
  """
  return {name: value.item() for name, value in jax.device_get(one_copy(metrics)).items()}
