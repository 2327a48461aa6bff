"""Mixed supervision for brain tumour segmentation: the method of Mlynarski, Delingette, Criminisi and Ayache.

The modules follow the order of the paper: `cohort` and `slices` prepare the data, `protocol`, `training_slices` and
`sampling` decide who is annotated and what goes into a batch, `branches`, `model`, `losses` and `optim` are the method,
`training` is the visible loop, `segmentation` and `metrics` evaluate it, `runs` and `results` keep and compare
experiments.
"""

__version__ = "0.1.0"
