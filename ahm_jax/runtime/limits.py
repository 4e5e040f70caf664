"""What the system must let a process have, since the libraries that need it hang or crash without:
addresses and threads.
"""

import os
import resource
import threading

from ahm_jax.errors import UserError

ADDRESSES = 4 * 2**30  # Bytes; the smallest run takes about 3 GiB.
THREADS = 64  # Besides two for each processor: array_record alone starts about 60.


def check() -> None:
  """Raises a UserError where the process may not have ADDRESSES or THREADS."""
  allowed, _ = resource.getrlimit(resource.RLIMIT_AS)
  if allowed != resource.RLIM_INFINITY and allowed < ADDRESSES:
    raise UserError(
      f'this shell allows a process {allowed / 2**30:.1f} GiB of addresses (ulimit -v), and at '
      f'least {ADDRESSES / 2**30:.0f} GiB are needed; raise the limit'
    )
  count = THREADS + 2 * (os.cpu_count() or 1)
  if not _can_start(count):
    raise UserError(
      f'this system does not let the process start {count} threads; raise the limit (ulimit -u, '
      'ulimit -v, or pids.max of a container)'
    )


def _can_start(count: int) -> bool:
  done = threading.Event()
  threads = [threading.Thread(target=done.wait, daemon=True) for _ in range(count)]
  started = []
  try:
    for thread in threads:
      thread.start()
      started.append(thread)
    return True
  except (RuntimeError, MemoryError):
    return False
  finally:
    done.set()
    for thread in started:
      thread.join()
