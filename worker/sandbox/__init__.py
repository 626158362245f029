"""The box: one hardened, fresh container per tool call, and the run's workspace volume."""
