r"""Shows where the time of a training step goes, by the JAX profiler.

Traces whole steps, after warm-up, and sums them up.

  python -m launch.profile --config=configs/phantom.py --workdir=runs/profile
  python -m launch.profile --config=configs/phantom.py --workdir=runs/profile --stage=segment \
    --config.profile.steps=20:40

Prints time by kind of operation, images/s, operations, memory and the costliest operations. The
trace lies in WORKDIR/profile, for XProf or TensorBoard (tensorboard --logdir=WORKDIR/profile) or
Perfetto. No checkpoint is kept; to profile a run that keeps its own, give that run's command
--config.profile.steps=a:b.

  --stage=NAME             pretrain (the default), segment or classify."""

from pathlib import Path

from absl import flags

from ahm_jax.config import Config
from ahm_jax.pipeline.setup import open_run
from ahm_jax.pipeline.stages import PRETRAIN, STAGES
from ahm_jax.runs import directory
from ahm_jax.runtime import profile_report
from ahm_jax.runtime import profiler as profiling
from ahm_jax.runtime.profiler import Profiler
from ahm_jax.training.stepper import Stepper
from launch import app

_STAGES = {stage.name: stage for stage in STAGES}
_STAGE = flags.DEFINE_enum('stage', PRETRAIN.name, list(_STAGES), 'Which training to profile.')
STEPS = '5:15'  # Where the config names none.


def main(config: Config, workdir: Path) -> None:
  steps = config.profile.steps or STEPS
  _, end = profiling.parse(steps)
  run = open_run(_STAGES[_STAGE.value], config, workdir)
  plan = run.stage.plan(run)
  source = plan.source(run)
  stepper = Stepper(plan.task, source, config.seed)
  capture = None
  with Profiler(steps, workdir / directory.PROFILE) as profiler:
    for step in range(end):
      profiler.before(step, stepper.state)
      stepper.step(stepper.next_inputs())
      capture = profiler.after(step, stepper.state)
  assert capture is not None  # The last step ends it.
  program = stepper.lowered(), stepper.operations()
  summary = profile_report.summarise(capture, *program, source.batch_size)
  print(profile_report.table(summary))
  print(f'\n{capture.directory}')


if __name__ == '__main__':
  app.run(main)
