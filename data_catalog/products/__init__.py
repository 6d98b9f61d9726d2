"""What the workflow hands on: dataset snapshots, students by digest, and names."""
