"""Tests of `worker/activities`."""
