import pytest

from ahm_jax.benchmark import timing
from ahm_jax.benchmark.timing import alternate, figure, ratios


class Clock:
  """Time that passes only when a side works."""

  def __init__(self, monkeypatch):
    self.now = 0.0
    self.order = []
    monkeypatch.setattr(timing.time, 'perf_counter', lambda: self.now)

  def side(self, name, seconds):
    def work():
      self.order.append(name)
      self.now += seconds

    return work


def test_sides_take_turns_of_two_calls_after_a_warm_up(monkeypatch):
  clock = Clock(monkeypatch)
  taken = alternate({'a': clock.side('a', 1.0), 'b': clock.side('b', 2.0)}, seconds=22.0)
  assert clock.order == ['a', 'b'] + ['a', 'a', 'b', 'b'] * 4
  assert taken == {'a': [1.0] * 4, 'b': [2.0] * 4}


def test_of_a_turn_the_second_call_is_timed(monkeypatch):
  clock = Clock(monkeypatch)

  def slow_at_first():
    clock.now += 1.0 if clock.order[-1] == 'a' else 5.0
    clock.order.append('a')

  clock.order.append('start')
  taken = alternate({'a': slow_at_first, 'b': clock.side('b', 2.0)}, seconds=0.0)
  assert taken['a'] == [1.0] * timing.FEWEST_ROUNDS


@pytest.mark.parametrize(('seconds', 'rounds'), [(0.0, timing.FEWEST_ROUNDS), (1e9, timing.ROUNDS)])
def test_there_are_never_too_few_rounds_nor_too_many(monkeypatch, seconds, rounds):
  clock = Clock(monkeypatch)
  assert len(alternate({'a': clock.side('a', 1.0)}, seconds)['a']) == rounds


def test_a_figure_is_the_median_between_the_extremes():
  assert figure('w', 'n', 'ms', [3.0, 1.0, 8.0, 4.0])[3:] == (3.5, 1.0, 8.0, 4)


def test_ratios_are_taken_within_rounds():
  assert ratios([2.0, 9.0], [1.0, 3.0]) == [2.0, 3.0]
