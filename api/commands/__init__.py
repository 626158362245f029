"""The commands of `gatehouse`, one module a noun. Heavy imports stay inside the commands: `--help` must be quick."""
