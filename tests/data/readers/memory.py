"""What a reader must not do with a header that promises more than its file holds."""

import tracemalloc

import pytest

from ahm_jax.data.readers import dispatch
from ahm_jax.data.readers.base import Unreadable


def refused_in_little_memory(paths):
  tracemalloc.start()
  try:
    for path in paths:
      with pytest.raises(Unreadable):
        dispatch.read_slices(path, 3)
    assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
  finally:
    tracemalloc.stop()
