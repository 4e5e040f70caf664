"""Lists the commands, or runs one: python -m launch COMMAND ..."""

from ahm_jax.api.command import main

if __name__ == '__main__':
  main()
