"""The demonstration: a fictional state, its registers, and the day on which its home goes dark.

All its data is synthetic.
"""
