"""What people see: figures, sliders, and the running and publishing of notebooks."""
