"""The endpoint and the training model: training, input checks, saving and loading."""
