"""Of files and tables: what does not fit together, or cannot be read."""

from collections.abc import Iterable

from ahm_jax.data.audit.finding import ERROR, WARNING, Case, Finding
from ahm_jax.data.audit.inspection import UNAVAILABLE, UNREADABLE, UNSUPPORTED, Inspection


def find(inspection: Inspection, skip_unreadable: bool) -> Iterable[Finding]:
  """All of them; with `skip_unreadable`, damage is no error."""
  yield Finding(
    ERROR,
    'layout',
    'files and tables do not fit together',
    'fix each as its line says; an image whose row is wrong counts here as one without a row',
    tuple(Case(line) for line in inspection.layout),
  )
  yield Finding(
    ERROR,
    'group_in_several_splits',
    'data leakage: groups are in several splits',
    'give all images of a group one split',
    tuple(Case(line) for line in inspection.crossing),
  )
  yield Finding(
    WARNING,
    'reading',
    'parts of the folder are ignored, or may be read otherwise than is meant',
    'look at each line, and change the folder or its table where it is not what is meant',
    tuple(Case(line) for line in inspection.notes),
  )
  unreadable = _problem_cases(inspection, UNREADABLE)
  if skip_unreadable:
    what = 'files cannot be read and are left out'
    yield Finding(WARNING, 'unreadable', what, 'replace them', unreadable)
  else:
    do = 'replace them, or have such files left out by --config.data.skip_unreadable'
    yield Finding(ERROR, 'unreadable', 'files cannot be read', do, unreadable)
  yield Finding(
    ERROR,
    'unavailable',
    'the system does not hand out files; what they hold is not known',
    'make them readable, and check again',
    _problem_cases(inspection, UNAVAILABLE),
  )
  yield Finding(
    ERROR,
    'unsupported',
    'files can be read but not used',
    'fix each as its line says',
    _problem_cases(inspection, UNSUPPORTED),
  )


def _problem_cases(inspection: Inspection, kind: str) -> tuple[Case, ...]:
  return tuple(Case(problem.text) for problem in inspection.problems if problem.kind == kind)
