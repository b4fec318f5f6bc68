"""Simulators, so that every recipe has data to run on: one file and one `simulate` per case.

`m2m simulate NAME` calls ``map2map.synthetic.NAME.simulate``, whose signature is the command line.
"""
