"""What an agent may ask for. Pure data: programs in this package run only inside the sandbox, never in ours."""
