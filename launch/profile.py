"""Shows where the time of a training step goes: traces whole steps with the JAX profiler, after
warm-up, and sums them up.

  python -m launch.profile --config=configs/phantom.py --workdir=runs/profile python -m
  launch.profile --config=configs/phantom.py --workdir=runs/profile --stage=segment
  --config.profile.steps=20:40

Prints time by kind of operation, images/s, operations, memory and the costliest operations. The
trace lies in WORKDIR/profile, for XProf or TensorBoard (tensorboard --logdir=WORKDIR/profile) or
Perfetto. Nothing is trained for keeps; to profile a run that is, give its own command
--config.profile.steps=a:b.

  --stage=NAME             pretrain (the default), segment or classify."""

from absl import flags

from ahm_jax.pipeline import setup
from ahm_jax.runtime import profile_report
from ahm_jax.runtime import profiler as profiling
from ahm_jax.runtime.profiler import Profiler
from ahm_jax.training.stepper import Stepper
from launch import app

_PLANS = {'pretrain': setup.pretrain, 'segment': setup.segment, 'classify': setup.classify}
_STAGE = flags.DEFINE_enum('stage', 'pretrain', list(_PLANS), 'Which training to profile.')
STEPS = '5:15'  # Where the config names none.


def main(config, workdir):
  steps = config.profile.steps or STEPS
  _, end = profiling.parse(steps)
  plan = _PLANS[_STAGE.value](config, workdir)
  source = plan.source(config)
  stepper = Stepper(plan.task, source, config.seed)
  with Profiler(steps, workdir / 'profile') as profiler:
    for step in range(end):
      profiler.before(step, stepper.state)
      stepper.step(stepper.next_inputs())
      capture = profiler.after(step, stepper.state)
  print(
    profile_report.table(
      profile_report.summarise(capture, stepper.lowered(), stepper.operations(), source.batch_size)
    )
  )
  print(f'\n{capture.directory}')


if __name__ == '__main__':
  app.run(main)
