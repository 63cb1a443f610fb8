package main

import (
	"context"
	"log/slog"
	"path/filepath"

	"sallyport/sandbox"
	"sallyport/state"
)

// ownProcess marks the context of a program that runs one command line and ends: a node may then restrict the process for good.
type ownProcess struct{}

func ownsProcess(ctx context.Context) bool {
	own, _ := ctx.Value(ownProcess{}).(bool)
	return own
}

// confine restricts a node's process to its own directories and calls (docs/security.md). What the kernel refuses is said, and
// does not keep the node from running.
func (a *app) confine(ctx context.Context, o state.NodeOptions, socket string, log *slog.Logger) {
	if !ownsProcess(ctx) || o.NoSandbox {
		return
	}
	writable := []string{a.dirOnce.Path(), filepath.Dir(socket)}
	if a.isInMemory {
		writable = append(writable, filepath.Dir(a.dirOnce.Path())) // the directory itself is removed at the end
	}
	if path, ok := recordFile(o.Records); ok {
		writable = append(writable, filepath.Dir(path))
	}
	vaults, err := a.dirOnce.Vaults()
	if err != nil {
		log.Warn("vaults not listed for the sandbox", "err", err.Error())
	}
	for _, v := range vaults {
		writable = append(writable, v.Path)
		switch v.Kind {
		case state.VaultTPM:
			writable = append(writable, v.Device)
		case state.VaultPKCS11:
			// The program that loads the token's module is not confined if it is started now. A resource may need it later, for an identity of its own.
			if _, err := a.openVault(v).get(ctx); err != nil {
				log.Warn("a vault cannot be opened now, and perhaps not later, when the node has confined itself", "vault", v.Name, "reason", err.Error())
			}
		}
	}
	a.vaults.mu.Lock()
	a.vaults.confined = true
	a.vaults.mu.Unlock()
	inForce, err := sandbox.Confine(writable)
	if err != nil {
		log.Warn("the sandbox is not complete", "in_force", inForce, "err", err.Error())
		return
	}
	log.Info("sandbox", "in_force", inForce)
}
