// The example provider of github.com/zitadel/oidc with a client for the device flow: what the tests of sign-ins sign in with. It is a module of its own, so
// that the program does not depend on it. PORT is where it listens, on the loopback interface.
package main

import (
	"fmt"
	"log/slog"
	"net/http"
	"os"

	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/example/server/storage"
)

// users are the example's. Its device flow takes a user's name for its id.
type users struct{ storage.UserStore }

func (u users) GetUserByID(id string) *storage.User {
	if user := u.UserStore.GetUserByID(id); user != nil {
		return user
	}
	return u.UserStore.GetUserByUsername(id)
}

func main() {
	issuer := fmt.Sprintf("http://localhost:%s/", os.Getenv("PORT"))
	storage.RegisterClients(storage.DeviceClient("sallyport", "secret"), storage.DeviceClient("other", "secret"))
	handler := exampleop.SetupServer(issuer, storage.NewStorage(users{storage.NewUserStore(issuer)}), slog.New(slog.DiscardHandler), false)
	if err := http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), handler); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
