"""normprobe: does the norm of a hidden state tell when a language model reasons? (arXiv 2606.06188)"""
