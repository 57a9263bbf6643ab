"""`python -m csoftmax` prints the configuration."""

from csoftmax import show_config

show_config()
