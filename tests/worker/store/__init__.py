"""Tests of `worker/store`."""
