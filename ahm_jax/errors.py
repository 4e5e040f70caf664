"""The one exception for what a user can mend."""


class UserError(Exception):
  """Wrong input. The message says what is wrong, where, and what to do; launch scripts print it and exit with code 2."""
