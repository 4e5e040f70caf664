"""What a kind of training is to the rest of the package; `ahm_jax.pipeline.stages` has them all."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ahm_jax.config import Config


class Card(NamedTuple):
  """What a model card says of every network of a stage."""

  network: str  # 'This is ...'
  use: str  # 'Intended: ...'
  outputs: Callable[[Config, Sequence[str]], str]  # Of a config, and the names of diagnoses.


class Stage(NamedTuple):
  """One kind of training: a task, what it is made from, and how its result is used and scored.

  `Run` and `Plan` are those of `ahm_jax.pipeline.setup`.
  """

  name: str  # In run.json, in the folders of a grid and in messages.
  title: str  # In reports.
  recipe: str  # The field of a config that holds its recipe.
  scored_by: str  # What an image must have to be scored: 'image', 'mask' or 'label'.
  keeps_best: bool  # Whether its result is the best checkpoint by validation, or the last.
  # The Flax module, of a config, and the names of diagnoses.
  network: Callable[[Config, Sequence[str]], Any]
  # (network, variables, images uint8 [B, S, S, C]) -> probabilities, pure; None: it has none.
  probabilities: Callable[[Any, Any, Any], Any] | None
  start: Callable[[Config], Any]  # config -> Start: what a run of it begins with.
  plan: Callable[[Any], Any]  # Run -> Plan: the task, ready to be trained.
  score: Callable[[Any], tuple[dict[str, Any], list[dict]]]  # Run -> scores, rows of images.
  curves: tuple[tuple[str, str], ...]  # Metrics of metrics.jsonl that reports draw, with titles.
  card: Card
  following: str  # What goes on from a run in the folder {workdir}, said after a training.
  check: Callable[[Config], None] = lambda _: None  # What it asks of a config beyond ranges.
  # As `probabilities`, with those of diagnoses, float32 [B, classes], behind them; None: a network
  # of this stage never has both.
  with_diagnoses: Callable[[Any, Any, Any], tuple[Any, Any]] | None = None

  def __str__(self) -> str:
    return self.name


def names(stages: Sequence[Stage]) -> str:
  """'pretrain or segment', for a message."""
  return ' or '.join(stage.name for stage in stages)
