"""Load tests: a node against a bare C loop in the same run. ``python -m loadtests --help`` explains."""
