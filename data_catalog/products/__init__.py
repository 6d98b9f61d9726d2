"""Products of the workflow: dataset snapshots, students by digest, and names."""
