"""The panel of a notebook: a run as it goes, the batch jobs, the cache. Importing this imports no ipywidgets."""
