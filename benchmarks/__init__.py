"""The benchmark suite: radioloader beside its peers, on the same files, in the same minutes.

    python -m benchmarks quick      # the matrix behind the verdict table, under 30 minutes on 2 cores
    python -m benchmarks full       # every peer and every table
    python -m benchmarks report DIR # tables and pictures of records that are there already

See ``docs/performance.md`` for how to run it and how to read it. The package is not part of radioloader's wheel, and neither are the
peers, which live in an environment of their own (``make bench``).

One process measures one contestant (:mod:`benchmarks.child`); the parent starts it, watches it and samples its memory
(:mod:`benchmarks.launch`); :mod:`benchmarks.suite` says what runs when, :mod:`benchmarks.matrix` what there is to run.
"""
