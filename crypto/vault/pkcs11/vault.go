package pkcs11

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"sallyport/crypto/vault"
	"sallyport/crypto/vault/program"
)

// Program is the name of the program that loads modules.
const Program = "sallyport-pkcs11"

// Timeout is how long the program gives a module for one request; Wait is how long its answer is waited for.
const (
	Timeout = 30 * time.Second
	Wait    = Timeout + 5*time.Second
)

// label is what keys are called in the token.
const label = "sallyport"

// Options say which token a vault is.
type Options struct {
	// Records is a directory for what is known of keys.
	Records string
	URI     URI
	// PIN is asked for at every use; the vault wipes what it returns.
	PIN func(ctx context.Context) ([]byte, error)
	// Confined tells that this process may not write everywhere, and with it not the program that loads the module, which says so in errors.
	Confined bool
}

var _ vault.Vault = (*Vault)(nil)

// Vault is a token's keys.
type Vault struct {
	o       Options
	module  string
	records vault.Records
	program program.Process

	mu    sync.Mutex
	wrong error // a wrong PIN is not tried again: tokens lock themselves after a few
}

// Open makes a vault of a token, which need not be there yet. It starts the program that will load the token's module, before the process is
// confined.
func Open(o Options) (*Vault, error) {
	module, err := o.URI.Module()
	if err != nil {
		return nil, err
	}
	records, err := vault.OpenRecords(o.Records)
	if err != nil {
		return nil, err
	}
	v := &Vault{o: o, module: module, records: records, program: program.Process{
		Program: Program, Made: "make pkcs11", Wait: Wait,
		// All that modules may need, and nothing of clouds.
		Env: func(name string) bool { return !strings.HasPrefix(name, "AWS_") },
	}}
	return v, v.program.Start()
}

// Close ends the program.
func (v *Vault) Close() { v.program.Stop() }

// Check reports whether the token is there and the PIN right.
func (v *Vault) Check(ctx context.Context) error {
	_, err := v.ask(ctx, Request{Op: OpCheck})
	return err
}

// GenerateSigningKey implements vault.Vault.
func (v *Vault) GenerateSigningKey(ctx context.Context, a vault.KeyAlgorithm) (vault.Handle, vault.VerifyingKey, error) {
	r, err := v.ask(ctx, Request{Op: OpGenerate, Algorithm: a, Label: label})
	if err != nil {
		return "", vault.VerifyingKey{}, err
	}
	h, key, err := v.keep(r)
	if err != nil { // nothing half-made stays in the token
		_, deleteErr := v.ask(context.WithoutCancel(ctx), Request{Op: OpDelete, Algorithm: r.Algorithm, ID: r.ID})
		err = errors.Join(err, deleteErr)
	}
	return h, key, err
}

// AdoptSigningKey takes a key into use that the token has, by its label, by "id=" and hex digits, or by a pkcs11: URI with object or id.
func (v *Vault) AdoptSigningKey(ctx context.Context, name string) (vault.Handle, vault.VerifyingKey, error) {
	req := Request{Op: OpFind, Label: name}
	if digits, ok := strings.CutPrefix(name, "id="); ok {
		id, err := hex.DecodeString(digits)
		if err != nil {
			return "", vault.VerifyingKey{}, fmt.Errorf("the key's id is hex: %w", err)
		}
		req.Label, req.ID = "", id
	} else if _, ok := cutScheme(name); ok {
		u, err := ParseURI(name)
		if err != nil {
			return "", vault.VerifyingKey{}, err
		}
		req.Label, req.ID = u.Object, u.ID
	}
	r, err := v.ask(ctx, req)
	if err != nil {
		return "", vault.VerifyingKey{}, err
	}
	return v.keep(r)
}

// keep writes down a key of the token.
func (v *Vault) keep(r Response) (vault.Handle, vault.VerifyingKey, error) {
	key := vault.VerifyingKey{Algorithm: r.Algorithm, Bytes: r.Public}
	if err := vault.CheckPublic(key); err != nil {
		return "", vault.VerifyingKey{}, err
	}
	h, err := v.records.Put(vault.Record{Algorithm: r.Algorithm, Public: r.Public, Blob: r.ID})
	return h, key, err
}

// VerifyingKey implements vault.Vault. The token is not asked.
func (v *Vault) VerifyingKey(ctx context.Context, h vault.Handle) (vault.VerifyingKey, error) {
	return v.records.VerifyingKey(ctx, h)
}

// Sign implements vault.Vault.
func (v *Vault) Sign(ctx context.Context, h vault.Handle, data []byte) (vault.Signature, error) {
	rec, err := v.records.Get(h)
	if err != nil {
		return vault.Signature{}, err
	}
	r, err := v.ask(ctx, Request{Op: OpSign, Algorithm: rec.Algorithm, ID: rec.Blob, Data: data})
	if err != nil {
		return vault.Signature{}, err
	}
	sig := vault.Signature{Algorithm: rec.Algorithm}
	if len(r.Signature) != len(sig.Bytes) {
		return vault.Signature{}, fmt.Errorf("%w: the token's signature has %d bytes", vault.ErrSignature, len(r.Signature))
	}
	copy(sig.Bytes[:], r.Signature)
	return sig, nil
}

// DeleteSigningKey implements vault.Vault.
func (v *Vault) DeleteSigningKey(ctx context.Context, h vault.Handle) error {
	return v.records.Drop(h, func(r vault.Record) error {
		_, err := v.ask(ctx, Request{Op: OpDelete, Algorithm: r.Algorithm, ID: r.Blob})
		return err
	})
}

// ask has the program do something with the token.
func (v *Vault) ask(ctx context.Context, r Request) (Response, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.wrong != nil {
		return Response{}, v.wrong
	}
	pin, err := v.o.PIN(ctx)
	if err != nil {
		return Response{}, err
	}
	defer clear(pin)
	r.Module, r.Token, r.PIN = v.module, v.o.URI, pin
	var resp Response
	if err := v.program.Ask(ctx, r, &resp); err != nil {
		return Response{}, fmt.Errorf("%w: %s: %w", vault.ErrAway, Program, err)
	}
	name := v.o.URI.Token
	if name == "" {
		name = v.o.URI.String()
	}
	switch resp.Code {
	case CodeOK:
		return resp, nil
	case CodePIN:
		v.wrong = fmt.Errorf("token %s: %w: the PIN is not tried again, since tokens lock themselves", name, vault.ErrUnlock)
		return resp, v.wrong
	case CodePINLocked:
		v.wrong = fmt.Errorf("token %s: %w: its PIN is locked after wrong ones; its security officer sets a new one", name, vault.ErrRefused)
		return resp, v.wrong
	case CodeNoToken:
		return resp, fmt.Errorf("%w: there is no such token: %s (plug it in, or see what there is: pkcs11-tool --module %s -L)%s", vault.ErrAway, v.o.URI, v.module, v.confined())
	case CodeNoKey:
		return resp, fmt.Errorf("token %s: %w", name, vault.ErrNotFound)
	case CodeKeyType:
		return resp, fmt.Errorf("token %s: %w: %s; a key must be of Ed25519 or P-256", name, vault.ErrAlgorithm, resp.Text)
	case CodeAlgorithm:
		return resp, fmt.Errorf("token %s: %w: it has no %s (%s)", name, vault.ErrAlgorithm, r.Algorithm, resp.Text)
	case CodeModule:
		return resp, fmt.Errorf("%w: the module %s: %s%s", vault.ErrAway, v.module, resp.Text, v.confined())
	}
	return resp, fmt.Errorf("%w: token %s: %s%s", vault.ErrAway, name, resp.Text, v.confined())
}

// confined says what else may be the reason of an error.
func (v *Vault) confined() string {
	if !v.o.Confined {
		return ""
	}
	return "; if its module has to write to a device or file, as one for USB tokens does: this vault was made after the node had confined itself: start the node again"
}
