"""The only code that uses private names of Keras and other packages.

Each function says why there is no public alternative; `tests/keras_internals` tests each
private name, and names it when Keras moves it.
"""
