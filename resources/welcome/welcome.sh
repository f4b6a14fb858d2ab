#!/bin/sh
# A shell as process 1 gets no default action for signals: without the trap a stop would wait for its whole grace time.
trap 'kill $server 2>/dev/null; echo "Slipway welcome: stopped"; exit 0' TERM INT
httpd -f -v -p 80 -h /www &
server=$!
echo "Slipway welcome: a page is served on port 80 of this container"
wait $server
