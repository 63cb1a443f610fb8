# Nodes in the foreground, as in a container.
ockam node create fg --foreground > fg.out 2>/dev/null &
pid=$!
until_running fg
until_printed fg.out
cat fg.out
echo
ockam message send hello --to /node/fg/service/uppercase
echo
kill -TERM $pid
wait $pid && echo "ended by a signal: $?"
ockam node show fg --jq .status
echo

mkfifo in
ockam node create eof -f --exit-on-eof < in > eof.out 2>/dev/null &
pid=$!
exec 9> in
until_running eof
exec 9>&-
wait $pid && echo "ended with its input: $?"

ockam node create conf --foreground --configuration "{tcp-outlets: {web: {to: $ECHO}}, tcp-inlet: {from: $P1, to: /service/web}, tcp-listener-address: 127.0.0.1:$P2}" >/dev/null 2>&1 &
pid=$!
until_open "$P1"
ockam tcp-outlet list --at conf --jq '.[].from'
echo
talk "$P1" 'from a node in the foreground'
kill $pid
wait $pid && echo "ended: $?"

ockam node create mem -f --in-memory -t "127.0.0.1:$P3" >/dev/null 2>&1 &
pid=$!
until_open "$P3"
ockam message send hello --to "/ip4/127.0.0.1/tcp/$P3/service/uppercase"
echo
ockam node show mem >/dev/null 2>&1 || echo "not on disk: $?"
kill $pid
wait $pid && echo "ended: $?"
ockam node create x -e >/dev/null 2>&1 || echo "only in the foreground: $?"
