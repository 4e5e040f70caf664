import io
import json
import re
import sys
import time

from ahm_jax.runs.metrics_log import FILE, Bar, Writer


def lines(workdir):
  return [json.loads(line) for line in (workdir / FILE).read_text().splitlines()]


def write(workdir, start, stop, log_every=2, validations=()):
  with Writer(workdir, 'toy', start, 10, batch_size=4) as writer:
    for step in range(start + 1, stop + 1):
      writer.add({'loss': float(step), 'extra': 1.0, 'skipped': 0.0})
      if step in validations or step % log_every == 0:
        writer.line(step, {'score': step / 10} if step in validations else None)


def test_a_line_is_the_mean_since_the_line_before(tmp_path):
  write(tmp_path, 0, 5, validations=(3,))
  assert lines(tmp_path) == [
    {'step': 2, 'loss': 1.5, 'extra': 1.0},
    {'step': 3, 'loss': 3.0, 'extra': 1.0, 'validation/score': 0.3},
    {'step': 4, 'loss': 4.0, 'extra': 1.0},
  ]


def test_what_is_not_finite_is_null(tmp_path):
  with Writer(tmp_path, 'toy', 0, 10, batch_size=4) as writer:
    writer.add({'loss': 1.0, 'extra': float('nan'), 'skipped': 0.0})
    writer.line(1, {'score': float('inf')})
  assert lines(tmp_path) == [{'step': 1, 'loss': 1.0, 'extra': None, 'validation/score': None}]


def test_steps_that_were_not_taken_are_counted_and_not_averaged(tmp_path):
  with Writer(tmp_path, 'toy', 0, 10, batch_size=4) as writer:
    for loss, skipped in ((1.0, 0.0), (float('nan'), 1.0), (3.0, 0.0), (7.0, 1.0)):
      writer.add({'loss': loss, 'skipped': skipped})
    writer.line(4)
    writer.add({'loss': float('inf'), 'skipped': 1.0})
    writer.line(5)
    writer.add({'loss': 2.0, 'skipped': 0.0})
    writer.line(6)
  assert lines(tmp_path) == [
    {'step': 4, 'loss': 2.0, 'skipped': 2},
    {'step': 5, 'loss': None, 'skipped': 1},
    {'step': 6, 'loss': 2.0},
  ]


def test_the_steps_since_the_last_line_are_handed_over(tmp_path):
  write(tmp_path, 0, 6, log_every=4)
  whole = lines(tmp_path)
  with Writer(tmp_path, 'toy', 0, 10, batch_size=4) as writer:
    for step in (1, 2):
      writer.add({'loss': float(step), 'extra': 1.0, 'skipped': 0.0})
    handed_over = list(writer.since_line)
  with Writer(tmp_path, 'toy', 2, 10, batch_size=4, since_line=handed_over) as writer:
    for step in (3, 4):
      writer.add({'loss': float(step), 'extra': 1.0, 'skipped': 0.0})
    writer.line(4)
  assert lines(tmp_path) == whole


def test_resuming_leaves_no_gap_and_no_repeat(tmp_path):
  write(tmp_path, 0, 10, validations=(3,))
  whole = (tmp_path / FILE).read_bytes()
  with (tmp_path / FILE).open('a') as file:
    file.write('{"step": 11, "lo')
  write(tmp_path, 3, 10)
  assert (tmp_path / FILE).read_bytes() == whole


def test_starting_afresh_cuts_everything(tmp_path):
  write(tmp_path, 0, 4)
  write(tmp_path, 0, 2)
  assert [line['step'] for line in lines(tmp_path)] == [2]


def test_half_a_line_alone_is_cut(tmp_path):
  (tmp_path / FILE).write_text('{"st')
  write(tmp_path, 0, 2)
  assert [line['step'] for line in lines(tmp_path)] == [2]


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
