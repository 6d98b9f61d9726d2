"""What MLflow and Prefect are told."""
