"""The steps from images to rows, each by itself, on planted images and a planted network."""

import itertools
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from ahm_jax.predict import stream
from ahm_jax.predict.options import Options, Predictor
from ahm_jax.predict.reading import Problem, Slice
from ahm_jax.predict.views import Whole
from ahm_jax.predict.writing import Written

SHAPE = (2, 2, 1)


def image(name, value, windows=1):
  """The slices of an image, all of one value."""
  seen = np.full(SHAPE, value, np.uint8)
  return [
    Slice(name, name, '', (2, 2), None, Whole(seen), number == windows - 1)
    for number in range(windows)
  ]


@pytest.fixture
def pool():
  with ThreadPoolExecutor(2) as pool:
    yield pool


def test_groups_are_whole_or_left_out():
  names = list('abcdefg')
  assert stream.groups(names, set(), 3) == [['a', 'b', 'c'], ['d', 'e', 'f'], ['g']]
  assert stream.groups(names, {'a', 'b', 'c', 'e', 'g'}, 3) == [['d', 'e', 'f']]
  assert stream.groups(names, set(names), 3) == []


def test_a_group_begins_a_batch_and_a_problem_keeps_a_place_empty():
  images = iter([image('a', 1), [Problem('b', 'bad')], image('c', 3, 2), image('d', 4)])
  batches = list(stream.fill([3, 1], images, 3, SHAPE))
  assert [batch.pixels[:, 0, 0, 0].tolist() for batch in batches] == [
    [1, 0, 3],
    [3, 0, 0],
    [4, 0, 0],
  ]
  names = [[window.part.image for window in batch.windows] for batch in batches]
  assert names == [['a', 'b', 'c'], ['c'], ['d']]


def test_one_batch_is_started_before_the_last_one_is_asked_for():
  log = []

  def network(pixels):
    log.append(('start', int(pixels.max())))
    return (pixels[..., 0] / np.float32(4),)

  batches = stream.fill(
    [1, 1, 1], iter([image(name, 1 + i) for i, name in enumerate('abc')]), 1, SHAPE
  )
  for batch, (found,) in stream.compute(batches, network):
    log.append(('found', int(batch.pixels.max())))
    np.testing.assert_array_equal(found, batch.pixels[..., 0] / np.float32(4))
  order = [('start', 1), ('start', 2), ('found', 1), ('start', 3), ('found', 2), ('found', 3)]
  assert log == order


def test_slices_and_problems_come_out_in_order():
  images = iter([image('a', 1, 2), [Problem('b', 'bad')], image('c', 3)])
  batches = stream.fill([3], images, 2, SHAPE)
  found = stream.compute(batches, lambda pixels: (pixels[..., 0].astype(np.float32),))
  parts = list(stream.assemble(found, Predictor(SimpleNamespace(class_names=()), Options(0.5))))
  assert [part.image for part in parts] == ['a', 'a', 'b', 'c']
  assert [part.last for part in parts] == [False, True, True, True]
  assert parts[3].view.result().tolist() == [[3, 3], [3, 3]]


@pytest.mark.parametrize('many', [stream.read_ahead, stream.write_behind])
def test_threads_are_no_further_ahead_than_they_may_and_keep_the_order(pool, many):
  taken = []

  def items():
    for number in range(20):
      taken.append(number)
      yield number

  for count, result in enumerate(many(pool, lambda x: x * x, items(), 3), start=1):
    assert result == (count - 1) ** 2 and len(taken) <= count + 3
  assert len(taken) == 20


class Immediate:
  """Threads that are always done already."""

  def submit(self, function, item):
    done = Future()
    done.set_result(function(item))
    return done


def test_what_is_written_is_told_before_the_next_is_taken():
  """So that the table grows with the images, however long the network takes for the next."""
  taken = []
  results = stream.write_behind(Immediate(), str, (taken.append(x) or x for x in range(3)), 5)
  assert next(results) == '0' and taken == [0]
  assert list(results) == ['1', '2']


def test_an_error_is_raised_where_its_result_is_wanted(pool):
  results = stream.write_behind(pool, lambda x: 1 // x, [1, 1, 0, 1], 5)
  assert [next(results), next(results)] == [1, 1]
  with pytest.raises(ZeroDivisionError):
    next(results)


def test_an_image_with_a_bad_slice_has_one_row():
  good, bad = {'status': 'ok'}, {'status': 'too long'}
  written = itertools.starmap(
    Written,
    [
      (good, {'a': 1}, True),
      (good, {'b': 2}, False),
      (bad, {'c': 3}, False),
      (bad, {}, True),
      (good, {'d': 4}, True),
    ],
  )
  assert list(stream.by_image(written)) == [
    ([good], {'a': 1}),
    ([bad], {'b': 2, 'c': 3}),
    ([good], {'d': 4}),
  ]
