"""Ways to choose among samples that read the model's inside or stop samples early: what LRS is measured against."""
