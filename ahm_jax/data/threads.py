"""A function of many images, in a few threads."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from threadpoolctl import threadpool_limits
from tqdm import tqdm

# Images that are worked on before any result is taken; bounds the memory.
CHUNK = 64

T = TypeVar('T')
R = TypeVar('R')


def in_parallel(
  function: Callable[[T], R], arguments: Sequence[T], description: str, chunk: int = CHUNK
) -> Iterator[R]:
  """Results of a function in order, from a few threads, under a progress bar."""
  progress = tqdm(total=len(arguments), desc=description, unit='image', disable=None)
  # Threads of BLAS within threads of ours wait for each other: on two busy cores that was 25 times
  # slower.
  with (
    threadpool_limits(1, user_api='blas'),
    ThreadPoolExecutor(os.cpu_count()) as pool,
    progress as bar,
  ):
    for start in range(0, len(arguments), chunk):
      for result in pool.map(function, arguments[start : start + chunk]):
        yield result
        bar.update()
