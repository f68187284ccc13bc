"""What several claims share: tokens and reductions brought to arrays, correlations, verdicts, drawing."""
