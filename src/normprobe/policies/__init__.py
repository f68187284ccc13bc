"""Interventions as pure tensor maths on rows. No policy knows a model; an engine brings it the rows."""
