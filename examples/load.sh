#!/usr/bin/env bash
# Start the simulated server, load it in an open loop with Poisson arrivals, and query the results with SQL.
set -euo pipefail
folder=$(mktemp -d)
structbench simulate --port 0 > "$folder/simulator.txt" &
simulator=$!
trap 'kill "$simulator"; rm -rf "$folder"' EXIT
until url=$(grep -o 'http://[0-9.:]*' -m 1 "$folder/simulator.txt"); do sleep 0.1; done

structbench load --host "$url" --models llama3.2:1b --suites tools --requests 20 \
    --rate 10 --arrival poisson --db "$folder/example.duckdb" --metrics-port 0 --quiet

python - "$folder/example.duckdb" <<'PY'
import sys
import duckdb
with duckdb.connect(sys.argv[1], read_only=True) as con:
    print(con.sql("SELECT outcome, count(*) AS requests FROM requests GROUP BY outcome ORDER BY requests DESC"))
PY
