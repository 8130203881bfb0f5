"""Training: plan what may be known, freeze it, fit, evaluate on later data."""
