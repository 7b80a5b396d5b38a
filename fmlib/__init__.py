"""Fourier masks of neural networks: learn them, measure them, reproduce the paper.

The pieces, from the ground up: `spectra` (pure tensor functions), `data`, `models`,
`attacks` and `store` (parts), `training`, `masks`, `harmonics`, `claims` and `plots`
(science), `experiments` and `book` (recipes), `cli` (the command line).
"""

__version__ = "0.1.0"
