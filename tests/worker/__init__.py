"""Tests; a package so that no folder here shadows the product package of the same name."""
