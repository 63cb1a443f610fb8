# Configuration files: one node, several nodes, variables, JSON, inline texts.
export NAME=edge
cat > node.yaml <<END
# the node
version: 1
variables:
  PORT: $ECHO
name: \$NAME
tcp-listener-address: 127.0.0.1:$P1
policies:
  - resource-type: tcp-outlet
    expression: (= subject.component "web")
tcp-outlets:
  db:
    to: 127.0.0.1:\$PORT
  open:
    to: \${PORT}
    allow: "true"
tcp-inlet:
  in:
    from: 127.0.0.1:$P2
    to: /node/edge/secure/api/service/db
END
ockam node create node.yaml >/dev/null
ockam node show edge --jq '.status, ([.outlets[].worker_address // .outlets[].worker_addr] | length)'
echo
ockam tcp-outlet list --at edge --jq '[.[].from] | sort' --compact-output
echo
talk "$P2" 'from a file'
ockam policy show tcp-outlet --at edge --jq .expression
echo
ockam message send hello --to "/ip4/127.0.0.1/tcp/$P1/service/uppercase"
echo

cat > several.json <<END
{
	# comments and trailing commas are fine
	"variables": {"first": "n1", "port": $ECHO,},
	"nodes": ["\$first", "n2",],
	"relays": {"r1": {"at": "/node/n2", "to": "n1",}},
	"tcp-outlets": {"web": {"at": "n1", "to": "\$port"}},
	"tcp-inlets": [{"at": "n2", "from": "127.0.0.1:$P3", "to": "/service/forward_to_r1/secure/api/service/web"}],
}
END
ockam run several.json >/dev/null
talk "$P3" 'several nodes'
ockam relay show r1 --at n1 --jq .connection_status
echo

printf 'name: fetched\nrelay: r2\n' | sed 's|r2|{r2: {at: /node/n2}}|' > web.yaml
ockam node create "$WEB/web.yaml" >/dev/null
ockam relay list --to fetched --jq '.[].name'
echo
ockam node create "${WEB#http://}/nothing.yaml" >/dev/null 2>&1 || echo "not on the web: $?"

ockam node create --configuration "{name: inline, tcp-outlet: {to: $ECHO}}" >/dev/null
ockam tcp-outlet list --at inline --jq '.[].from'
echo
ockam node create other --configuration "{name: inline2, tcp-outlet: {one: {to: $ECHO}}}" >/dev/null
ockam tcp-outlet list --at other --jq '.[].from'
echo
ockam node create --configuration "{name: flags, tcp-listener-address: nonsense}" -t "127.0.0.1:$P4" >/dev/null
ockam message send hello --to "/ip4/127.0.0.1/tcp/$P4/service/uppercase"
echo
ockam node create --configuration '{name: $WHO}' --variable WHO=known >/dev/null
ockam node create --configuration '{name: $UNKNOWN}' >/dev/null 2>&1 || echo "unknown variable: $?"
ockam node create --configuration "{name: broken, tcp-outlet: {to: nonsense}}" >/dev/null 2>&1 || echo "bad outlet: $?"
ockam node show broken >/dev/null 2>&1 || echo "deleted again: $?"
ockam node list --jq '[.[].node_name] | sort' --compact-output
echo
ockam run --inline "{vaults: [v1], identities: {i1: {vault: v1}}, nodes: {last: {identity: i1}}}" >/dev/null
ockam identity list --jq '[.[] | select(.name == "i1") | .vault_name] | first'
echo
ockam node show last --jq .identity_name
echo
