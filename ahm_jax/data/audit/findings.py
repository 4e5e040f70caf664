"""What there is to say of a data set that was inspected, worst first."""

from collections.abc import Sequence

from ahm_jax.config import DataConfig
from ahm_jax.data.audit import file_findings, image_findings, mask_findings, pair_findings
from ahm_jax.data.audit.finding import LEVELS, Finding
from ahm_jax.data.audit.inspection import Inspection


def find(inspection: Inspection, config: DataConfig) -> list[Finding]:
  """All findings, worst first."""
  images = inspection.images
  found = [
    *file_findings.find(inspection, config.skip_unreadable),
    *pair_findings.find(images),
    *mask_findings.find(images, config),
    *image_findings.find(images, config.image_size),
  ]
  return sorted(
    (finding for finding in found if finding.cases),
    key=lambda finding: LEVELS.index(finding.level),
  )


def worst(findings: Sequence[Finding]) -> str | None:
  """The level of the worst finding."""
  return min((finding.level for finding in findings), key=LEVELS.index, default=None)
