import json

from ahm_jax.runs.metrics_log import FILE, MetricsLog


def lines(workdir):
  return [json.loads(line) for line in (workdir / FILE).read_text().splitlines()]


def write(workdir, start, stop, log_every=2, validations=()):
  with MetricsLog(workdir, 'toy', start, 10, batch_size=4) as log:
    for step in range(start + 1, stop + 1):
      log.add({'loss': float(step), 'extra': 1.0, 'skipped': 0.0})
      if step in validations or step % log_every == 0:
        log.line(step, {'score': step / 10} if step in validations else None)


def test_a_line_is_the_mean_since_the_line_before(tmp_path):
  write(tmp_path, 0, 5, validations=(3,))
  assert lines(tmp_path) == [
    {'step': 2, 'loss': 1.5, 'extra': 1.0},
    {'step': 3, 'loss': 3.0, 'extra': 1.0, 'validation/score': 0.3},
    {'step': 4, 'loss': 4.0, 'extra': 1.0},
  ]


def test_what_is_not_finite_is_null(tmp_path):
  with MetricsLog(tmp_path, 'toy', 0, 10, batch_size=4) as log:
    log.add({'loss': 1.0, 'extra': float('nan'), 'skipped': 0.0})
    log.line(1, {'score': float('inf')})
  assert lines(tmp_path) == [{'step': 1, 'loss': 1.0, 'extra': None, 'validation/score': None}]


def test_skipped_steps_are_counted_and_not_averaged(tmp_path):
  with MetricsLog(tmp_path, 'toy', 0, 10, batch_size=4) as log:
    for loss, skipped in ((1.0, 0.0), (float('nan'), 1.0), (3.0, 0.0), (7.0, 1.0)):
      log.add({'loss': loss, 'skipped': skipped})
    log.line(4)
    log.add({'loss': float('inf'), 'skipped': 1.0})
    log.line(5)
    log.add({'loss': 2.0, 'skipped': 0.0})
    log.line(6)
  assert lines(tmp_path) == [
    {'step': 4, 'loss': 2.0, 'skipped': 2},
    {'step': 5, 'loss': None, 'skipped': 1},
    {'step': 6, 'loss': 2.0},
  ]


def test_the_steps_since_the_last_line_are_handed_over(tmp_path):
  write(tmp_path, 0, 6, log_every=4)
  whole = lines(tmp_path)
  with MetricsLog(tmp_path, 'toy', 0, 10, batch_size=4) as log:
    for step in (1, 2):
      log.add({'loss': float(step), 'extra': 1.0, 'skipped': 0.0})
    handed_over = list(log.since_line)
  with MetricsLog(tmp_path, 'toy', 2, 10, batch_size=4, since_line=handed_over) as log:
    for step in (3, 4):
      log.add({'loss': float(step), 'extra': 1.0, 'skipped': 0.0})
    log.line(4)
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
