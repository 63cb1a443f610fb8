package project

import "sallyport/crypto/identity"

// What errors say that is right for identifiers and histories.
const (
	identifierProblem = "must be an identifier, I and 64 hex digits"
	historyProblem    = "must be a valid change history in hex"
)

// verifyHistory checks a change history in hex and returns its identifier as text and the hex in lower case.
func verifyHistory(text string) (identifier, history string, err error) {
	id, err := identity.ImportHex(text, nil)
	if err != nil {
		return "", "", err
	}
	return id.Identifier().String(), id.Hex(), nil
}

func parseIdentifier(text string) (string, error) {
	id, err := identity.ParseIdentifier(text)
	if err != nil {
		return "", err
	}
	return id.String(), nil
}
