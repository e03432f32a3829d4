"""What a run must reach: the language of --slo, --fail-on and --goodput, the judging, giving up early, JUnit XML.

The neighbours: ``results`` measures what is judged; ``run`` and ``comparison`` ask for judgement.
"""
