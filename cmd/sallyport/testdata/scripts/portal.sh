# A portal by hand: outlet, relay, inlet, each on a node of its own, without any project.
ockam node create relay >/dev/null
ockam node create server_sidecar >/dev/null
ockam node create client_sidecar >/dev/null

ockam tcp-outlet create --at server_sidecar --from /service/outlet --to "127.0.0.1:$ECHO"
echo
ockam relay create server_sidecar --at /node/relay --to server_sidecar
echo
ockam secure-channel create --from client_sidecar --to /node/relay/service/forward_to_server_sidecar/service/api |
	ockam tcp-inlet create --at client_sidecar --from "127.0.0.1:$P1" --to -/service/outlet | sed "s/$P1/P1/"
echo
talk "$P1" 'over a relay'

# The same, in one command for each.
ockam tcp-inlet create direct --at client_sidecar --from "$P2" --to /node/server_sidecar/secure/api/service/outlet | sed "s/$P2/P2/"
echo
talk "$P2" 'direct'
ockam tcp-inlet create relayed --at client_sidecar --from "$P3" --to /node/relay/service/forward_to_server_sidecar/secure/api/service/outlet >/dev/null
talk "$P3" 'relayed'

ockam tcp-inlet list --at client_sidecar --output json --jq '[.[].status] | unique'
echo
ockam tcp-inlet show direct --at client_sidecar --jq '.status, .alias'
echo
ockam tcp-outlet list --at server_sidecar --jq '.[].from'
echo
ockam relay list --to server_sidecar --jq '.[] | {name, connection_status}' --compact-output
echo
ockam relay show server_sidecar --at server_sidecar --jq .remote_address
echo

# What was deleted does not work any more.
ockam tcp-inlet delete direct --at client_sidecar --yes >/dev/null
silent "$P2" 'deleted'
ockam tcp-outlet delete outlet --at server_sidecar --yes >/dev/null
silent "$P3" 'without its outlet'
ockam tcp-outlet show outlet --at server_sidecar && echo ' is what there is'
