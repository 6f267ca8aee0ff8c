"""Engines of deep Local SGD: the same trajectory, computed in different ways."""
