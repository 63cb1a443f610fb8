package proxy

import (
	"crypto/tls"
	"log"
	"testing"

	"go.uber.org/goleak"

	"sallyport/internal/servers"
)

// believed is the certificate of localhost, of a root in place of the system's.
var believed tls.Certificate

func TestMain(m *testing.M) {
	var err error
	if believed, err = servers.Root("localhost"); err != nil {
		log.Fatal(err)
	}
	goleak.VerifyTestMain(m)
}
