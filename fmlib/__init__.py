"""Fourier masks of neural networks: learn them, measure them, reproduce the paper.

From the ground up: `config`, `runtime` and `spectra` (specs, devices, pure tensor functions); `data`, `models`,
`attacks`, `jacobian`, `frequency_maps`, `store`, `results` and `intervals` (parts); `training`, `masks`, `heatmaps`,
`corruptions`, `harmonics`, `similarity`, `claims` and `plots` (science); `lab` and `experiments` (what is computed from
what, and the experiments); `chapters`, `status`, `provenance`, `laboratory`, `book` and `cli` (the faces).
"""

__version__ = "0.1.0"
