"""Requirements on runs: the language of --slo, --fail-on and --goodput, judging, aborting early, JUnit XML.

Neighbours: ``results`` measures what is judged here; ``run`` and ``comparison`` ask for the judgement.
"""
