"""Figures of the chapter on Jacobian frequency regularisation."""
