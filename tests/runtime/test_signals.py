"""In processes of their own, which are sent real signals."""

import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from ahm_jax.runtime import signals
from ahm_jax.runtime.signals import LINE, TRY_AGAIN, Stopped

SCRIPT = """
import ctypes, signal, sys, time
from ahm_jax.runtime import signals
for number in signals.SIGNALS:  # Also where this process ignores it, as under nohup.
  signal.signal(number, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
signals.GRACE, signals.ECHO = {grace}, {echo}

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
  *numbers, grace=60, echo=0.2, wait=IN_PYTHON, context='at_next_step', body='wait()', between=0.5
):
  """(exit code, standard output, standard error) of a script that waits and is sent signals, and
  how long it took to end.
  """
  script = SCRIPT.format(grace=grace, echo=echo, wait=wait, context=context, body=body)
  pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'text': True}
  with subprocess.Popen([sys.executable, '-c', script], **pipes) as process:
    assert process.stdout.readline() == 'ready\n'
    for number in numbers:
      time.sleep(between)  # Until it waits.
      process.send_signal(number)
      since = time.monotonic()
    try:
      out, err = process.communicate(timeout=50)
    finally:
      process.kill()  # Else one that does not end would be waited for.
  return process.returncode, out, err, time.monotonic() - since


WAITS = (
  'print("ready", flush=True)\n'
  '  while not stop.made: time.sleep(0.05)\n'
  '  print("stops", flush=True)'
)
RAISES = 'try: wait()\n  except KeyboardInterrupt: print("raised", flush=True)'
CONTEXTS = ('at_next_step', 'raising')


@pytest.fixture(scope='module')
def ended():
  """What `interrupted` gives of scripts that run all at the same time, since they but wait."""
  with ThreadPoolExecutor(20) as pool:

    def start(*numbers, **options):
      return pool.submit(interrupted, *numbers, **options)

    found = {
      **{number: start(number, body=WAITS) for number in signals.SIGNALS},
      **{name: start(signal.SIGTERM, grace=1, wait=IN_C, context=name) for name in CONTEXTS},
      'two': start(signal.SIGINT, signal.SIGINT, wait=IN_C),
      'elsewhere': start(signal.SIGTERM, context='raising', body=RAISES),
    }
  return {name: future.result() for name, future in found.items()}


@pytest.mark.parametrize('number', signals.SIGNALS)
def test_a_signal_waits_for_the_end_of_the_block_and_no_longer(ended, number):
  code, out, err, seconds = ended[number]
  assert out == 'stops\n' and 'Stopped' in err and code != TRY_AGAIN and seconds < 20


@pytest.mark.parametrize('context', CONTEXTS)
def test_a_process_that_does_not_come_back_ends_after_a_while(ended, context):
  code, out, err, seconds = ended[context]
  assert (code, out, err) == (TRY_AGAIN, '', f'\n{LINE}\n')
  assert 0.7 < seconds < 20


def test_a_second_signal_ends_it_at_once(ended):
  code, out, err, seconds = ended['two']
  assert (code, out, err) == (TRY_AGAIN, '', f'\n{LINE}\n') and seconds < 20


# Saves for a second once it is asked to stop, and tells what came besides.
SAVES = """
import signal, sys, time
from ahm_jax.runtime import signals
with signals.raising():
  try:
    with signals.at_next_step(lambda: 'step 7 is saved') as stop:
      print('ready', flush=True)
      while not stop.made: time.sleep(0.01)
      time.sleep(1)
      print('saved', flush=True)
  except signals.Stopped as stopped:
    time.sleep(0.5)
    print(signals.line(str(stopped)), flush=True)
print('left', flush=True)
"""
# How a training is stopped by what sends more than one signal, or sends one to a whole group.
SENDERS = {
  'timeout': 'exec timeout 2 "$@"',
  'timeout in the foreground': 'exec timeout --foreground 2 "$@"',
  'timeout by SIGINT': 'exec timeout -s INT 2 "$@"',
  'timeout within timeout': 'exec timeout 2 timeout 2 "$@"',
  'kill of a group': 'set -m; "$@" & sleep 2; kill -- -$!; wait $!',
  'a group and a process': 'set -m; "$@" & sleep 2; kill -- -$!; kill $!; kill -INT $!; wait $!',
  'two signals': '"$@" & sleep 2; kill -INT $!; kill -TERM $!; wait $!',
  'a closed terminal': '"$@" & sleep 2; kill -HUP $!; kill -CONT $!; kill -TERM $!; wait $!',
  'one after the other': '"$@" & sleep 2; for i in 1 2 3 4 5; do kill $!; sleep 0.2; done; wait $!',
  'nohup': 'nohup "$@" & sleep 2; kill -HUP $!; sleep 0.5; kill -TERM $!; wait $!',
}


@pytest.fixture(scope='module')
def stopped():
  """(standard output, standard error) of each of SENDERS, which ran at the same time."""
  command = ['bash', '-c', None, 'bash', sys.executable, '-c', 'import signal\n' + HEARD + SAVES]
  pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'text': True}
  running = {}
  for name, sender in SENDERS.items():
    command[2] = sender
    running[name] = subprocess.Popen(command, start_new_session=True, **pipes)
  return {name: process.communicate(timeout=50) for name, process in running.items()}


# Jobs of a shell without job control ignore it.
HEARD = 'signal.signal(signal.SIGINT, signal.default_int_handler)\n'


@pytest.mark.parametrize('name', SENDERS)
def test_whoever_sends_the_signals_they_save_as_one_does(stopped, name):
  out, err = stopped[name]
  line = 'interrupted; step 7 is saved; run the same command again to resume'
  assert out.splitlines() == ['ready', 'saved', line, 'left'], err
  assert 'Traceback' not in err and 'interrupted' not in err


def test_what_is_said_at_the_end_is_what_was_saved():
  class Ends(BaseException):
    pass

  def ends(code):
    raise Ends(code)

  def wrong():
    raise ValueError

  with pytest.MonkeyPatch.context() as patch:
    said = []
    patch.setattr('builtins.print', lambda text, **_: said.append(text))
    patch.setattr(signals.os, '_exit', ends)
    for saved in (lambda: 'step 3 is saved', str, wrong):
      with pytest.raises(Ends, match='75'):
        signals.end_at_once(saved)
  resumes = '\ninterrupted; step 3 is saved; run the same command again to resume'
  assert said == [resumes, f'\n{LINE}', f'\n{LINE}']


def test_elsewhere_a_signal_raises(ended):
  assert ended['elsewhere'][:3] == (0, 'raised\nleft\n', '')


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
def test_a_signal_at_the_very_end_is_heard_before_it(monkeypatch):
  """Else its timer would end the process later, whatever that does then."""
  hear, heard = signals._Came.hear, []

  def slowly(came, grace, end):
    time.sleep(0.2)
    hear(came, grace, end)
    heard.append(came.timer)

  monkeypatch.setattr(signals._Came, 'hear', slowly)
  with pytest.raises(Stopped), signals.at_next_step():
    signal.raise_signal(signal.SIGTERM)
  assert signals._came.first is None
  (timer,) = heard
  assert timer.finished.is_set()


@pytest.mark.usefixtures('heard')
@pytest.mark.parametrize('number', signals.SIGNALS)
def test_what_is_ignored_stays_ignored(number):
  signal.signal(number, signal.SIG_IGN)
  with signals.at_next_step() as stop:
    signal.raise_signal(number)
    assert not stop.made
  assert signal.getsignal(number) == signal.SIG_IGN


@pytest.mark.usefixtures('heard')
def test_what_comes_after_the_first_signal_raises_nothing():
  with pytest.raises(Stopped, match='all is saved'), signals.raising():
    with signals.at_next_step(lambda: 'all is saved'):
      with pytest.raises(KeyboardInterrupt), signals.raising():
        signal.raise_signal(signal.SIGTERM)
      signal.raise_signal(signal.SIGINT)
      raise Stopped
    raise AssertionError


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
