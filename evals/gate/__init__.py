"""The gate against recorded attacks: see docs/policy.md for what is measured and how to run it."""
