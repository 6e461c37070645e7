"""Every bound."""

LANES = 20_000  # one source's mail for one site each, in memory
LEARNED = 10_000  # branches whose limits are remembered when nothing goes there
