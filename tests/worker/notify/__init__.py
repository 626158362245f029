"""Tests of channels and their senders, against loopback servers that check what arrives."""
