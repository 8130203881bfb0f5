"""Perennial's Airflow side: operators, sensors, triggers, schedules. Thin: the work is done by ``perennial``."""
