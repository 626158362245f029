"""Tests of the background duties."""
