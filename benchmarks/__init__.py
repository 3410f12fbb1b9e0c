"""Benchmarks: Qanat beside the programs that people would otherwise pick, measured in one interleaved run.

    python -m benchmarks --help

Words: a *system* is what stands between the load generator and the target (Qanat, nginx with `ssh -R`, …); a *scenario*
is one kind of load; a *measure* is one run of one scenario over one system; a result is the median of its repeats.
"""
