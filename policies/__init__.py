"""Decisions: who may do what, who may answer, what rules do when models fail. No clock, no network, no database."""
