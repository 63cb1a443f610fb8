# An authority, tickets and members, without the hosted service (docs/protocol/03 §11).
ADMIN=$(ockam identity create admin)
ockam identity create authority >/dev/null
AUTHORITY=$(ockam identity show authority --full --encoding hex)
PROJECT=1d0c1a9f-7a51-4a2b-9b1a-3f0a6d2f0001
ockam authority create --identity authority --project-identifier "$PROJECT" --tcp-listener-address "127.0.0.1:$P1" \
	--trusted-identities "{\"$ADMIN\":{\"ockam-role\":\"enroller\"}}" >/dev/null
RELAY=$(ockam identity create project)
HISTORY=$(ockam identity show project --full --encoding hex)
ockam node create relay --identity project --authority-identity "$AUTHORITY" --tcp-listener-address "127.0.0.1:$P2"
echo
cat > project.json <<END
{"id":"$PROJECT","name":"partners","space_name":"self","space_id":"s1",
 "access_route":"/dnsaddr/127.0.0.1/tcp/$P2/service/api","users":[],"user_roles":[],
 "identity":"$RELAY","project_change_history":"$HISTORY",
 "authority_access_route":"/dnsaddr/127.0.0.1/tcp/$P1/service/api","authority_identity":"$AUTHORITY"}
END
ockam project import --project-file project.json >/dev/null
ockam project ticket --identity admin --relay blue --attribute company=acme --expires-in 1h > blue.ticket
GREEN=$(ockam project ticket --identity admin -a company=beta -a reader --usage-count 2)
RED=$(ockam project ticket --identity admin --attribute company=gamma --hex)

# Each company has a home of its own.
home=$OCKAM_HOME
export OCKAM_HOME=$home/blue
ockam project enroll blue.ticket --output json --jq .credential.attributes.company
echo
ockam node create blue >/dev/null
ockam tcp-outlet create --at blue --from db --to "127.0.0.1:$ECHO" --allow '(= subject.company "beta")'
echo
ockam relay create blue --to blue
echo
ockam policy list --at blue --jq '[.[] | select(.resource == "db") | .expression]' --compact-output
echo

export OCKAM_HOME=$home/green
ockam project enroll "$GREEN" >/dev/null
ockam node create green >/dev/null
ockam tcp-inlet create --at green --from "$P3" --to db --via blue >/dev/null
talk "$P3" 'green may'
ockam credential list --at green --jq '.[].credential.attributes | {company, reader}' --compact-output
echo

export OCKAM_HOME=$home/red
printf %s "$RED" > red.ticket
ockam project enroll "$WEB/red.ticket" >/dev/null
ockam node create red >/dev/null
ockam tcp-inlet create --at red --from "$P4" --to db --via blue >/dev/null
silent "$P4" 'red may not'

export OCKAM_HOME=$home
ockam project-member list --identity admin --jq '[.[].attributes.attributes.company] | sort' --compact-output
echo
ockam project-member list --enrollers --identity admin --jq length
echo
NEW=$(ockam identity create new)
ockam project-member add "$NEW" --identity admin --project-name partners --attribute company=beta --relay new >/dev/null
ockam project-member show "$NEW" --identity admin -p partners --jq '.attributes.attributes["ockam-relay"]'
echo
ockam project enroll --identity new --project partners >/dev/null && echo enrolled
ockam project-member delete "$NEW" --identity admin >/dev/null
ockam project enroll --identity new 2>/dev/null || echo "no member any more: $?"
ockam project enroll garbage 2>/dev/null || echo "no ticket: $?"
ockam project ticket --identity new 2>/dev/null || echo "no enroller: $?"
