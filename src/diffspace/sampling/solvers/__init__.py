"""Solvers of the ODE and of the SDE, one family a module."""
