"""Monitoring: drift of the inputs, realized performance, and the rule that turns windows into a question.

``drift`` measures (Evidently), ``calibration`` says what is unusual, ``performance`` compares with the holdout, and
``rule`` asks for retraining when k of the last n disjoint windows were flagged.
"""
