"""The benchmark: the same scenarios on Slipway and, where it is installed, on dockerd beside it, in one run.

``./dev bench`` prints medians and ratios. These machines are noisy, so nothing here is an assertion.
"""
