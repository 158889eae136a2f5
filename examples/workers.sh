#!/usr/bin/env bash
# usage: [PORT=8080] [BACKEND=8000] examples/workers.sh
#
# Serves examples/workers.py on http://127.0.0.1:8080: nginx, behind it four workers on port 8000, and a Redis between
# them on a unix socket. All of them run until Ctrl+C, and keep their files in a folder of their own.
# Debian has what it needs in the packages nginx, python3-venv and redis-server; root need not install them.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:/usr/sbin"

port="${PORT:-8080}" backend="${BACKEND:-8000}"
scripts/install demo nginx redis-server

folder="$(mktemp -d)"
chmod 755 "$folder" # nginx gives up the rights of root
cat >"$folder/nginx.conf" <<END
daemon off;
pid pid;
events {}
http {
  access_log off;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  $(sed "s/listen 80;/listen 127.0.0.1:$port;/; s/127.0.0.1:8000/127.0.0.1:$backend/" examples/nginx.conf)
}
END

# The workers stop first: they store what waits, and hand their sources over.
stop() {
  trap - EXIT INT TERM
  kill "$workers" || true
  wait "$workers" || true
  kill "$nginx" "$redis" || true
  wait || true
  rm -rf "$folder"
}

# In sessions of their own, so that Ctrl+C does not stop all at once.
setsid redis-server examples/redis.conf --dir "$folder" --unixsocket "$folder/redis" --loglevel warning &
redis=$!
setsid nginx -p "$folder" -e stderr -c nginx.conf &
nginx=$!
COMET_BROKER="redis+unix://$folder/redis" setsid .venv/bin/python -m uvicorn --workers 4 --port "$backend" \
  --timeout-graceful-shutdown 5 --timeout-worker-healthcheck 20 --no-access-log \
  --ws-max-size 65536 --ws-per-message-deflate false examples.workers:app &
workers=$!
trap stop EXIT
trap exit INT TERM
wait "$workers"
