import io
import re
import sys
import time

from ahm_jax.runtime.progress import Bar


def test_without_a_terminal_the_bar_is_one_line(capsys):
  bar = Bar('toy', 0, 2, batch_size=4)
  bar.advance(0.5)
  bar.advance(0.25)
  bar.show({'score': 0.75})
  bar.close()
  out, err = capsys.readouterr()
  assert out == ''
  assert err.count('\n') == 1 and '\r' not in err
  for part in ('toy', '8/8', 'images/s', 'loss=0.25', 'score=0.75'):
    assert part in err


def test_the_rate_does_not_count_the_first_step_which_compiles(capsys):
  bar = Bar('toy', 1000, 1003, batch_size=4)
  time.sleep(1.5)
  bar.advance(0.5)
  time.sleep(0.05)
  bar.advance(0.5)
  bar.close()
  rate = float(re.search(r'([\d.]+)images/s', capsys.readouterr().err)[1])
  assert 8 / 1.55 < rate <= 4 / 0.05


def test_on_a_terminal_the_bar_is_drawn_in_place(monkeypatch):
  terminal = io.StringIO()
  terminal.isatty = lambda: True
  monkeypatch.setattr(sys, 'stderr', terminal)
  bar = Bar('toy', 1, 3, batch_size=4)
  bar.advance(0.5)
  bar.advance(0.25)
  bar.close()
  drawn = terminal.getvalue()
  assert drawn.startswith('\r') and '12/12' in drawn and 'loss=0.25' in drawn
