"""A backend `cpu` of Triton that compiles nothing: with TRITON_INTERPRET=1 kernels run as Python."""
