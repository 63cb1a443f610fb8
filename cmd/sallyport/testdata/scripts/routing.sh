# Messages over routes of several hops, and commands whose results are piped into others.
ockam node create n1 >/dev/null
ockam node create n2 --tcp-listener-address="127.0.0.1:$P1" >/dev/null
ockam node create n3 --tcp-listener-address "127.0.0.1:$P2" >/dev/null

echo "one hop: $(ockam message send 'Hello Ockam!' --to /node/n1/service/uppercase)"
echo "from a node: $(ockam message send hello --from n1 --to /node/n2/service/uppercase)"
echo "within a node: $(ockam message send hello --from n1 --to /service/uppercase)"

ockam service start hop --at n1 --addr h1
ockam service start hop --at n2 --addr h2
ockam service start hop --at n3
echo "two local hops: $(ockam message send hello --from n1 --to /service/h1/service/uppercase)"
echo "hop elsewhere: $(ockam message send hello --from n1 --to /node/n2/service/h2/service/uppercase)"

to_n2=$(ockam tcp-connection create --from n1 --to "127.0.0.1:$P1")
echo "over a connection: $(ockam message send hello --from n1 --to "$to_n2/service/h2/service/uppercase")"
ockam tcp-connection create --from n1 --to "127.0.0.1:$P1" | ockam message send 'from a pipe' --from n1 --to -/service/uppercase
echo
to_n3=$(ockam tcp-connection create --from n2 --to "127.0.0.1:$P2")
echo "over two connections: $(ockam message send hello --from n1 --to "$to_n2/service/h2$to_n3/service/hop/service/uppercase")"

ockam secure-channel create --from n1 --to /node/n2/service/api | ockam message send 'a channel' --from n1 --to -/service/uppercase
echo
ockam secure-channel create --from n1 --to /node/n2/service/h2/service/api | ockam message send 'a channel over a hop' --from n1 --to -/service/uppercase
echo
ockam secure-channel create --from n1 --to /node/n2/service/api |
	ockam secure-channel create --from n1 --to -/service/api |
	ockam message send 'a channel in a channel' --from n1 --to -/service/uppercase
echo
echo "in place: $(ockam message send hello --to /node/n3/secure/api/service/uppercase)"
echo "both in place: $(ockam message send hello --to /dnsaddr/localhost/tcp/$P1/secure/api/service/uppercase)"

ockam secure-channel-listener create lst --at n3 >/dev/null
echo "its own listener: $(ockam message send hello --to /node/n3/secure/lst/service/echo)"
echo "raw: $(ockam message send --hex 00ff10 --to /node/n1/service/echo)"
ockam message send hello --timeout 1s --to /node/n1/service/nobody 2>/dev/null || echo "nobody there: $?"
ockam message send hello --timeout 1s --to "/ip4/127.0.0.1/tcp/$P9/service/echo" 2>/dev/null || echo "nothing there: $?"
ockam worker list --at n1 | grep -c h1
ockam service list --at n1 --jq '[.[] | select(.addr == "h1")] | length'
echo
ockam node delete --all --yes >/dev/null
ockam node list
echo
