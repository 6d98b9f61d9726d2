"""Reports to MLflow and to Prefect."""
