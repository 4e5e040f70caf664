"""What C++ writes to standard error while several processes train: passed on, without the stack
traces and the reports that a lost process makes, of which one line remains.
"""

import os
import re
import sys
import threading
import time

from ahm_jax.runtime import streams

_EVERY = 0.5  # Seconds between two looks at what was written.
_HEAD = re.compile(r'[IWEF]\d{4} \d\d:\d\d:\d\d')  # Of a record of the log, of one line or more.
_LOSS = re.compile('coordination_service|JAX distributed service')
_TRACE = re.compile(r'\*\*\* Check failure stack trace|\s+@\s+0x')
_STATUS = re.compile(r'\b(?:UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED|INTERNAL|CANCELLED): ([^\[]+)')


class NativeErrors:
  """Stands between C++ and standard error from now on; `sys.stderr` goes by it.

  In a file in memory, not a pipe, whose writer might wait for its reader. Where the system has no
  such files (Linux has), nothing is changed.

  Attributes:
    reason: why JAX says that a process was lost; '' where it says nothing.
  """

  def __init__(self) -> None:
    self.reason = ''
    self._read, self._drops = 0, False
    self._unfinished = b''  # A line that was begun.
    self._lock = threading.Lock()
    self._file: int | None = None
    if not hasattr(os, 'memfd_create'):
      return
    self._file = os.memfd_create('stderr')
    sys.stderr = streams.steady(os.dup(2), sys.stderr)
    os.dup2(self._file, 2)
    threading.Thread(target=self._keep_passing, daemon=True).start()

  def pass_on(self, is_last: bool = True) -> None:
    """Passes on what was written since the last time.

    Args:
      is_last: also a line that has no end yet.
    """
    if self._file is None:
      return
    with self._lock:
      found = b''
      while part := os.pread(self._file, 2**16, self._read + len(found)):
        found += part
      self._read += len(found)
      *lines, self._unfinished = (self._unfinished + found).split(b'\n')
      if is_last and self._unfinished:
        lines.append(self._unfinished)
        self._unfinished = b''
      kept = [text for line in lines if self._keeps(text := line.decode(errors='replace'))]
      if kept:
        print('\n'.join(kept), file=sys.stderr, flush=True)

  def _keeps(self, line: str) -> bool:
    if _TRACE.match(line):
      return False
    if _HEAD.match(line):
      self._drops = bool(_LOSS.search(line))
    if self._drops and (status := _STATUS.search(line)):
      self.reason = status[1].strip(' :')
    return not self._drops

  def _keep_passing(self) -> None:
    while True:
      time.sleep(_EVERY)
      self.pass_on(is_last=False)
