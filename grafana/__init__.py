"""The dashboards as code: ``python -m grafana`` writes dashboards/*.json; ``python -m grafana.render`` draws them."""
