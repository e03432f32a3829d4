"""Grafana dashboards as code: ``python -m grafana`` writes dashboards/*.json, ``grafana.render`` draws them."""
