"""In processes of their own, which are sent real signals."""

import signal
import subprocess
import sys
import threading
import time

import pytest

from ahm_jax.runtime import signals
from ahm_jax.runtime.signals import LINE, TRY_AGAIN, Stopped

SCRIPT = """
import ctypes, signal, sys, time
from ahm_jax.runtime import signals
signal.signal(signal.SIGINT, signal.default_int_handler)  # Also where this process ignores it.
signals.GRACE = {grace}

def wait():
  print('ready', flush=True)
  {wait}

with signals.{context}() as stop:
  {body}
print('left')
"""
# Blocked in C, as while XLA compiles, a process does not run Python's own handlers.
IN_C = (
  'mutex = ctypes.create_string_buffer(64); '
  '[ctypes.CDLL(None).pthread_mutex_lock(mutex) for _ in range(2)]'
)
IN_PYTHON = 'time.sleep(60)'


def interrupted(
  *numbers, grace=60, wait=IN_PYTHON, context='at_next_step', body='wait()', between=0.5
):
  """(exit code, standard output, standard error) of a script that waits and is sent signals, and
  how long it took to end.
  """
  script = SCRIPT.format(grace=grace, wait=wait, context=context, body=body)
  pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'text': True}
  with subprocess.Popen([sys.executable, '-c', script], **pipes) as process:
    assert process.stdout.readline() == 'ready\n'
    for number in numbers:
      time.sleep(between)  # Until it waits.
      process.send_signal(number)
      since = time.monotonic()
    out, err = process.communicate(timeout=50)
  return process.returncode, out, err, time.monotonic() - since


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_for_the_end_of_the_block_and_no_longer(number):
  body = (
    'print("ready", flush=True)\n'
    '  while not stop.made: time.sleep(0.05)\n'
    '  print("stops", flush=True)'
  )
  code, out, err, seconds = interrupted(number, body=body)
  assert out == 'stops\n' and 'Stopped' in err and code != TRY_AGAIN and seconds < 20


@pytest.mark.parametrize('context', ['at_next_step', 'raising'])
def test_a_process_that_does_not_come_back_ends_after_a_while(context):
  code, out, err, seconds = interrupted(signal.SIGTERM, grace=1, wait=IN_C, context=context)
  assert (code, out, err) == (TRY_AGAIN, '', f'\n{LINE}\n')
  assert 0.7 < seconds < 20


def test_a_second_signal_ends_it_at_once():
  code, out, err, seconds = interrupted(signal.SIGINT, signal.SIGINT, wait=IN_C)
  assert (code, out, err) == (TRY_AGAIN, '', f'\n{LINE}\n') and seconds < 20


def test_elsewhere_a_signal_raises():
  body = 'try: wait()\n  except KeyboardInterrupt: print("raised", flush=True)'
  assert interrupted(signal.SIGTERM, context='raising', body=body)[:3] == (0, 'raised\nleft\n', '')


@pytest.fixture
def heard():
  handlers = [signal.signal(number, signal.default_int_handler) for number in signals.SIGNALS]
  yield
  for number, handler in zip(signals.SIGNALS, handlers, strict=True):
    signal.signal(number, handler)


@pytest.mark.usefixtures('heard')
def test_handlers_and_threads_are_as_they_were_afterwards():
  before = threading.active_count()
  with signals.raising(), signals.at_next_step() as stop:
    assert threading.active_count() == before + 2
  assert not stop.made
  assert all(signal.getsignal(number) is signal.default_int_handler for number in signals.SIGNALS)
  assert signal.set_wakeup_fd(-1) == -1
  deadline = time.monotonic() + 20
  while threading.active_count() > before and time.monotonic() < deadline:
    time.sleep(0.01)
  assert threading.active_count() == before


@pytest.mark.usefixtures('heard')
def test_what_is_ignored_stays_ignored():
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  with signals.at_next_step() as stop:
    signal.raise_signal(signal.SIGINT)
    assert not stop.made
  assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


@pytest.mark.usefixtures('heard')
def test_a_signal_may_raise_for_a_while():
  with pytest.raises(Stopped), signals.at_next_step() as stop:
    with pytest.raises(Stopped), stop.interrupts():
      signal.raise_signal(signal.SIGTERM)
    with stop.interrupts(False):
      assert stop.made
    with pytest.raises(Stopped), stop.interrupts():
      raise AssertionError('it came before')


@pytest.mark.usefixtures('heard')
def test_another_thread_has_no_say():
  found = []

  def work():
    with signals.at_next_step() as stop:
      found.append(stop.made)

  thread = threading.Thread(target=work)
  thread.start()
  thread.join()
  assert found == [False]
