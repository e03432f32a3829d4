"""How much load this machine measures truthfully: found against the simulated server, kept for ``load`` to warn by.

``search`` finds the highest load that is measured well, ``measuring`` measures one load, ``kept`` remembers what was
found. The verdict on a run is ``structbench.verdict``'s; here the server's own send stamps judge too.
"""
