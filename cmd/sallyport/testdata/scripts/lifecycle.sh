# Nodes come and go; identities and vaults; exit codes that scripts rely on.
set +e
ockam node create n1 >/dev/null; echo "create: $?"
ockam node create n1 >/dev/null 2>&1; echo "again: $?"
ockam node create n2 >/dev/null
ockam node default n2 >/dev/null; echo "default: $?"
ockam node list --jq '.[] | select(.is_default) | .node_name'; echo
ockam node stop n2 >/dev/null; echo "stop: $?"
ockam tcp-outlet create --to 5000 >/dev/null 2>&1; echo "default node is stopped: $?"
ockam node create; echo
ockam node stop n1 >/dev/null
before=$(ockam node show n1 --jq .route.verbose)
ockam node start n1 >/dev/null; echo "start: $?"
[ "$before" = "$(ockam node show n1 --jq .route.verbose)" ] && echo 'same address'
ockam node show n1 --jq .status; echo
kill -9 "$(ockam node show n1 --jq .pid)"
until ockam node show n1 --jq .status | grep -q stopped; do :; done
ockam node start n1 >/dev/null; echo "start after a crash: $?"
ockam node show n1 --jq .status; echo
ockam node delete nope --yes >/dev/null 2>&1; echo "delete nobody: $?"
ockam node delete n1 --yes >/dev/null; echo "delete: $?"
ockam node show n1 >/dev/null 2>&1; echo "gone: $?"

ockam vault create v1 >/dev/null
ockam identity create i1 --vault v1 >/dev/null
ockam identity create i2 --vault default >/dev/null
ockam identity list --jq '[.[] | select(.name | startswith("i")) | .vault_name == "v1"]' --compact-output; echo
first=$(ockam identity create i3 --vault v1); second=$(ockam identity create i3 --vault v1)
[ "$first" = "$second" ] && echo 'created once'
history=$(ockam identity show i1 --full --encoding hex)
ockam identity delete i1 --yes >/dev/null; echo "delete identity: $?"
ockam identity create public --vault default --identity "$history" >/dev/null; echo "import: $?"
ockam identity show i1 >/dev/null 2>&1; echo "no such identity: $?"
ockam vault move v1 --path "$PWD/moved" >/dev/null 2>&1; echo "move: $?"
ockam vault list --jq 'length'; echo
ockam vault delete v1 --yes >/dev/null; echo "delete vault: $?"

ockam nosuchcommand >/dev/null 2>&1; echo "no such command: $?"
ockam node create --nosuchflag >/dev/null 2>&1; echo "no such flag: $?"
ockam node list --output xml >/dev/null 2>&1; echo "no such form: $?"
ockam --env QUIET=true identity create i4 --vault v1 2>&1 | wc -l
ockam node list --env OCKAM_HOME="$OCKAM_HOME/else" --jq length; echo
ockam reset --yes >/dev/null; echo "reset: $?"
ockam node list --jq length; echo
