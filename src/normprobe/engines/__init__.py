"""What runs a model and applies policies to it: the only places that know an inference engine."""
