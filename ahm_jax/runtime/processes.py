"""What the processes of a run tell each other, and which of them this is.

In a process that has joined no others (`joining.join`), all of this does nothing and waits for
nobody.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from ahm_jax.errors import UserError


def has_others() -> bool:
  """Whether this process has joined others."""
  return jax.distributed.is_initialized()


def is_first() -> bool:
  """Whether this is process 0, which writes the run's files; also where there is no other."""
  return not has_others() or jax.process_index() == 0


def from_first(numbers: Any) -> Any:
  """A pytree of Python numbers as process 0 has it, whatever the others have.

  Of the same structure in all.
  """
  if not has_others():
    return numbers
  leaves, structure = jax.tree.flatten(numbers)
  bits = np.array(leaves, np.float64).view(np.uint32)  # JAX would round to float32.
  sent = np.asarray(multihost_utils.broadcast_one_to_all(bits)).view(np.float64)
  return jax.tree.unflatten(
    structure, [type(leaf)(value) for leaf, value in zip(leaves, sent.tolist(), strict=True)]
  )


def all_of(flag: bool) -> bool:
  """Whether `flag` is true in every process."""
  return bool(np.all(multihost_utils.process_allgather(np.array(flag)))) if has_others() else flag


@contextlib.contextmanager
def first_alone() -> Iterator[None]:
  """The block runs in process 0, and then, if it succeeded there, in the others.

  Raises:
    UserError: in the others, where it failed in process 0.
  """
  if not is_first() and not from_first(True):
    raise UserError('process 0 has stopped; its own line says why')
  done = False
  try:
    yield
    done = True
  finally:
    if is_first():
      from_first(done)
