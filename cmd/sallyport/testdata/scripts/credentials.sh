# Credentials by hand: one identity vouches for others, nodes believe it.
ockam identity create authority >/dev/null
AUTHORITY=$(ockam identity show authority)
HISTORY=$(ockam identity show authority --full --encoding hex)
ISSUER=$(ockam identity show authority --output json --jq .identifier | tr -d '"')
[ "$AUTHORITY" = "$ISSUER" ] && echo 'same identifier'
A=$(ockam identity create a)
B=$(ockam identity create b)
ockam credential issue --as authority --for "$A" --attribute city='New York' --encoding hex > a.credential
ockam credential issue --as authority --for "$B" --attribute city=Paris --encoding hex > b.credential
ockam credential verify --issuer "$AUTHORITY" --credential-path a.credential
echo
ockam credential verify --issuer "$A" --credential-path a.credential
echo
ockam credential verify --issuer "$AUTHORITY" --credential "$(cat b.credential)" --output json --compact-output
echo

ockam node create na --identity a --authority-identity "$HISTORY" --credential-scope test >/dev/null
ockam node create nb --identity b --authority-identity "$HISTORY" --credential-scope test >/dev/null
ockam node create stranger --identity c --authority-identity "$HISTORY" >/dev/null
ockam credential store --at na --issuer "$AUTHORITY" --credential-path a.credential --scope test >/dev/null
ockam credential store --at nb --issuer "$AUTHORITY" --credential "$(cat b.credential)" --scope test >/dev/null
ockam credential list --at na --jq '.[] | [.credential.attributes.city, .scope, .is_verified]' --compact-output
echo

ockam tcp-outlet create --at nb --to "$ECHO" --allow 'city="New York"' >/dev/null
ockam tcp-inlet create --at na --from "$P1" --to /node/nb/secure/api/service/outlet >/dev/null
talk "$P1" 'New York'
ockam tcp-inlet create --at stranger --from "$P2" --to /node/nb/secure/api/service/outlet >/dev/null
silent "$P2" 'nobody'

# Policies: of a resource, of a type, of an identifier.
ockam policy create --at nb --resource outlet --allow '(= subject.city "Rome")' >/dev/null
silent "$P1" 'Rome only'
ockam policy delete outlet --at nb --yes >/dev/null
ockam policy create --at nb --resource-type tcp-outlet --expression '(member? subject.city ["Paris" "New York"])' >/dev/null
talk "$P1" 'Paris or New York'
ockam policy list --at nb tcp-outlet --jq '.[].expression'
echo
ockam tcp-outlet create --at nb --from two --to "$ECHO" --allow "$A" >/dev/null
ockam tcp-inlet create --at na --from "$P3" --to /node/nb/secure/api/service/two >/dev/null
talk "$P3" 'by identifier'
ockam policy show --at nb two --jq .resource
echo
