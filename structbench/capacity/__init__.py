"""The load that holds: the highest at which a rule is still kept, what is served there, and what limits it.

``search`` chooses the loads (pure), ``steps`` measures them, each as a cell, ``limits`` says what limits (pure).
"""
