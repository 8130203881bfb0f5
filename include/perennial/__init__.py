"""Perennial: the whole life of a machine-learning model, as Apache Airflow DAGs.

This package is the ML core. It never imports Airflow: the same code runs in a worker, in a container, in a notebook
and from the command line. The Airflow side (operators, sensors, timetables) lives in ``plugins/perennial_airflow``.
"""

__version__ = "0.1.0"
