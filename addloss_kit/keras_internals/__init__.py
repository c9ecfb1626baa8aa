"""What Keras keeps private, and what else has no public way: all of it, and only here.

Each function says why there is no public way; `tests/keras_internals` has a test for
each private name, which fails with that name when Keras moves it.
"""
