"""Placement: which pool takes a volume, claimed by a conditional update so that nothing is promised twice."""
