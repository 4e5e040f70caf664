"""95 % intervals of means of per-image scores, over images and, where there are several runs, over
seeds.

A hierarchical bootstrap: every sample draws seeds and images, or where images come in groups
(slices of a volume, pictures of a patient) whole groups, with replacement. Percentiles over so few
seeds are far too narrow (three seeds: a nominal 95 % covers about 80 % where seeds differ more than
images do), hence two corrections. The seeds' share of each sample is stretched by sqrt(S / (S -
1)), and the variance over images, or over G groups of them, by G / (G - 1), which makes both
unbiased. And the interval is the estimate -+ t * standard error, t with Satterthwaite's degrees of
freedom, between S - 1 (seeds differ most) and G - 1 (groups differ most).

A difference is taken image by image first, so an image that has no score on one side counts on
neither.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple, TypeVar

import numpy as np
from scipy import stats

Interval = list[float] | None
Name = TypeVar('Name', bound=Hashable)


class Resampling(NamedTuple):
  """How a sample is drawn."""

  groups: tuple[int, ...]  # The group of each of I images, a number from 0 on.
  samples: int
  seed: int = 0


def group_indices(images: Sequence[Name], groups: Mapping[Name, int]) -> tuple[int, ...]:
  """The group of each image, without gaps from 0 on, from any numbers by name.

  An image without one is a group of its own.
  """
  numbers: dict[Hashable, int] = {}
  return tuple(numbers.setdefault(groups.get(image, image), len(numbers)) for image in images)


def mean_over_images(
  values: np.ndarray, samples: int, groups: Sequence[int] | None = None
) -> tuple[float | None, Interval]:
  """Mean of the scores [I] of one run, and its 95 % interval over images; images that are nan are
  left out.

  Args:
    samples: of the bootstrap.
    groups: the group of each image, see `group_indices`; None: each has its own.

  Returns:
    The mean, None where no score is known, and the interval, None where there is but one image or
    group.
  """
  groups = range(len(values)) if groups is None else groups
  return mean_over_runs(np.asarray(values, float)[None], Resampling(tuple(groups), samples))


def difference_over_images(
  values: np.ndarray, baseline: np.ndarray, samples: int, groups: Sequence[int] | None = None
) -> tuple[float | None, Interval]:
  """`mean_over_images` of the scores [I] of one method minus those of another.

  Images that are nan for either are left out.
  """
  return mean_over_images(np.asarray(values, float) - np.asarray(baseline, float), samples, groups)


def mean_over_runs(values: np.ndarray, resampling: Resampling) -> tuple[float | None, Interval]:
  """Mean over seeds of the mean over images of scores or of differences, float [S, I], and its 95 %
  interval.

  Images that are nan are left out of their seed's mean, and out of the count of groups where they
  are nan for every seed. From a single image or group there is no interval, however many seeds
  there are.
  """
  scored = np.flatnonzero(np.isfinite(values).any(axis=0))
  values, drawn = values[:, scored], group_indices([resampling.groups[i] for i in scored], {})
  seeds, groups = len(values), max(drawn, default=-1) + 1
  estimate = float(_means(values, np.ones((1, len(scored)))).mean())
  if not np.isfinite(estimate):
    return None, None
  image_draws, seed_draws = _draws(seeds, resampling._replace(groups=drawn))
  resampled = _means(values, image_draws)  # [samples, S]
  resampled = resampled[np.isfinite(resampled).all(axis=1)]
  if groups == 1 or len(resampled) < 2:
    return estimate, None
  over_images = resampled.mean(axis=1)
  from_images, from_seeds = over_images.var(ddof=1) * groups / (groups - 1), 0.0
  if seeds > 1:
    over_both = np.mean(resampled * seed_draws[: len(resampled)], axis=1)
    stretched = over_images + math.sqrt(seeds / (seeds - 1)) * (over_both - over_images)
    from_seeds = np.mean((stretched - over_images) ** 2)
  margin = _t_margin(from_images, groups - 1, from_seeds, seeds - 1)
  return estimate, [estimate - margin, estimate + margin]


def mean_over_seeds(values: Sequence[float]) -> tuple[float | None, Interval]:
  """Mean of one score a seed and its 95 % t-interval.

  No interval from a single seed, None and None from none.
  """
  if not values:
    return None, None
  mean = float(np.mean(values))
  if len(values) < 2:
    return mean, None
  margin = float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))
  return mean, [mean - margin, mean + margin]


def _means(values: np.ndarray, image_draws: np.ndarray) -> np.ndarray:
  """Mean over drawn images of each seed, images that are nan left out: [S, I], [samples, I] ->
  [samples, S].
  """
  known = np.isfinite(values)
  count = image_draws @ known.T
  total = image_draws @ np.where(known, values, 0).T
  return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


@lru_cache(maxsize=8)
def _draws(seeds: int, resampling: Resampling) -> tuple[np.ndarray, np.ndarray]:
  """How often each image, float [samples, I], and each seed, [samples, S], is drawn.

  A pure function of its arguments.
  """
  rng = np.random.default_rng(resampling.seed)
  groups = np.array(resampling.groups, int)
  count = groups.max(initial=-1) + 1
  draws = [
    rng.multinomial(n, np.full(n, 1 / n), size=resampling.samples).astype(np.float64)
    for n in (count, seeds)
  ]
  return draws[0][:, groups], draws[1]


def _t_margin(
  from_images: float, image_freedom: int, from_seeds: float, seed_freedom: int
) -> float:
  """Half the width of a 95 % interval from two variances and their degrees of freedom
  (Satterthwaite 1946).
  """
  variance = from_images + from_seeds
  if variance <= 0:
    return 0.0
  spread = from_images**2 / max(image_freedom, 1) + from_seeds**2 / max(seed_freedom, 1)
  return float(stats.t.ppf(0.975, variance**2 / spread) * math.sqrt(variance))
