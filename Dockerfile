# Airflow with Perennial, for every Airflow component alike. Build: docker build -t perennial:0.1 .
# Health checks belong to the services (docker-compose.yaml); secrets come at run time, and none is in here.
ARG BASE_IMAGE=apache/airflow:3.3.2-python3.11
FROM ${BASE_IMAGE}

# the exact versions that were tested, checked by hash
COPY --chown=airflow:0 requirements.lock /opt/perennial/requirements.lock
USER airflow
RUN pip install --no-cache-dir --disable-pip-version-check --require-hashes --no-deps -r /opt/perennial/requirements.lock

COPY --chown=airflow:0 dags /opt/airflow/dags
COPY --chown=airflow:0 plugins /opt/airflow/plugins
COPY --chown=airflow:0 include /opt/airflow/include
# versions say which lock they were trained by
COPY --chown=airflow:0 requirements.lock /opt/airflow/requirements.lock

ENV PYTHONPATH=/opt/airflow/include \
    PERENNIAL_SPECS=/opt/airflow/include \
    OMP_NUM_THREADS=1 \
    OPENBLAS_NUM_THREADS=1 \
    MKL_NUM_THREADS=1 \
    DO_NOT_TRACK=true \
    MLFLOW_DISABLE_TELEMETRY=true \
    GX_ANALYTICS_ENABLED=false \
    SCARF_ANALYTICS=false \
    SCARF_NO_ANALYTICS=true \
    AIRFLOW__USAGE_DATA_COLLECTION__ENABLED=False \
    GIT_PYTHON_REFRESH=quiet \
    OPTUNA_DISABLE_TELEMETRY=true \
    AIRFLOW__CORE__LOAD_EXAMPLES=False
