"""What every method of selection returns."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Pick:
  """An image that was chosen."""

  index: int  # Among the features.
  score: float | None = None  # Why it was: see each method. None: there is nothing to say.
  cluster: int | None = None  # That it is in; None where a method has none.
