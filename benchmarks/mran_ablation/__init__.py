"""MRAN beside its own ablations on school-like data, as its paper has them (Zhao et al. 2019).

Run: python -m benchmarks.mran_ablation [--seeds 10] [--epochs 20] [--page docs/mran_ablation.md]

The data are made here after the School data, exam scores of students of many schools. Schools are tasks of unequal
size. A score is the sum of a linear part that all schools share, one of the school's cluster and one of its own, a
mild nonlinear part of the cluster's, the school's level, and noise of half the variance of all that. A student's
features are numbers and flags of groups, of mean 0 and variance 1.

All arms but the first have a shared layer, linear heads and, where it is said, a layer per school, whose states MRAN
relates: nothing else differs. Every arm takes the same steps over the same students; its epoch is the best by
validation. A seed draws the schools, the students and the start, and arms are compared seed by seed. All seeds'
models train at once.
"""
