"""What a run found, made readable: the verdict table, figures, token heat maps and the HTML report. Runs no model."""
