"""MLflow: runs, bundles, versions and aliases. The aliases are the only truth of what serves."""
