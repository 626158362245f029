"""Implementations of `workflows.ports`: methods of objects that hold their collaborators."""
