"""The endpoint, the training model, and how it trains, refuses, is saved and loaded."""
