// Package awskms keeps signing keys, of P-256, in AWS KMS. AWS's SDK is in a program of its own, sallyport-aws-kms, which runs while KMS is asked: it
// would take a megabyte of every node. Credentials and region come through the SDK's usual chain: the environment, the files below
// ~/.aws, a role of the machine.
package awskms

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"

	"sallyport/crypto/vault"
	"sallyport/crypto/vault/program"
)

// maxRaw is how long a message may be that KMS hashes, in bytes.
const maxRaw = 4096

// idle is how long the program waits for another request before it ends.
const idle = 30 * time.Second

var _ vault.Vault = (*Vault)(nil)

// Vault is keys in KMS. What is known of them, key ids and public keys, is in the files of a directory.
type Vault struct {
	records vault.Records
	program program.Process
}

// Open makes a vault. KMS is asked when a key is made or used; the program that asks it must be there.
func Open(records string) (*Vault, error) {
	r, err := vault.OpenRecords(records)
	if err != nil {
		return nil, err
	}
	v := &Vault{records: r, program: program.Process{
		Program: Program, Made: "make aws-kms", Wait: Wait, Idle: idle, Env: func(string) bool { return true },
	}}
	_, err = v.program.Find()
	return v, err
}

// Close ends the program that asks KMS, if it runs.
func (v *Vault) Close() { v.program.Stop() }

// ask has the program do something with KMS.
func (v *Vault) ask(ctx context.Context, r Request) (resp Response, err error) {
	if err := v.program.Ask(ctx, r, &resp); err != nil {
		if ctx.Err() != nil {
			return resp, err
		}
		return resp, fmt.Errorf("%w: %s: %w", vault.ErrAway, Program, err)
	}
	what := strings.TrimSpace(r.Op + " " + r.ID)
	if r.Op != OpPublic {
		what = r.Op
	}
	if resp.Code == CodeOK {
		return resp, nil
	}
	if fault := faults[resp.Code]; fault != nil {
		return resp, fmt.Errorf("AWS KMS %s: %w: %s", what, fault, resp.Text)
	}
	return resp, fmt.Errorf("%w: AWS KMS %s: %s", vault.ErrAway, what, resp.Text)
}

// GenerateSigningKey implements vault.Vault.
func (v *Vault) GenerateSigningKey(ctx context.Context, a vault.KeyAlgorithm) (h vault.Handle, key vault.VerifyingKey, err error) {
	if a != vault.P256 {
		return "", key, fmt.Errorf("AWS KMS: %w: it has P-256 (--algorithm p256), not %s", vault.ErrAlgorithm, a)
	}
	r, err := v.ask(ctx, Request{Op: OpCreate})
	if err != nil {
		return "", key, err
	}
	if h, key, err = v.AdoptSigningKey(ctx, r.ID); err != nil { // nothing half-made stays, as far as that can be seen to
		err = errors.Join(err, v.schedule(context.WithoutCancel(ctx), r.ID))
	}
	return h, key, err
}

// AdoptSigningKey takes a key into use that KMS has, by its id, ARN or alias.
func (v *Vault) AdoptSigningKey(ctx context.Context, id string) (vault.Handle, vault.VerifyingKey, error) {
	r, err := v.ask(ctx, Request{Op: OpPublic, ID: id})
	if err != nil {
		return "", vault.VerifyingKey{}, err
	}
	parsed, err := x509.ParsePKIXPublicKey(r.Public)
	public, ok := parsed.(*ecdsa.PublicKey)
	if err != nil || !ok || public.Curve != elliptic.P256() || !r.Signs { // not every service tells the KeySpec
		return "", vault.VerifyingKey{}, fmt.Errorf("AWS KMS key %s: %w: it must be ECC_NIST_P256 for SIGN_VERIFY", id, vault.ErrAlgorithm)
	}
	b, err := public.Bytes()
	key := vault.VerifyingKey{Algorithm: vault.P256, Bytes: b}
	if err == nil {
		err = vault.CheckPublic(key)
	}
	if err != nil {
		return "", vault.VerifyingKey{}, err
	}
	h, err := v.records.Put(vault.Record{Algorithm: vault.P256, Public: b, Name: r.ID})
	return h, key, err
}

// VerifyingKey implements vault.Vault. KMS is not asked.
func (v *Vault) VerifyingKey(ctx context.Context, h vault.Handle) (vault.VerifyingKey, error) {
	return v.records.VerifyingKey(ctx, h)
}

// Sign implements vault.Vault.
func (v *Vault) Sign(ctx context.Context, h vault.Handle, data []byte) (vault.Signature, error) {
	sig := vault.Signature{Algorithm: vault.P256}
	rec, err := v.records.Get(h)
	if err != nil {
		return sig, err
	}
	// KMS hashes a short message itself. Of a longer one it is given the hash, which comes to the same.
	req := Request{Op: OpSign, ID: rec.Name, Data: data}
	if len(data) > maxRaw {
		digest := sha256.Sum256(data)
		req.Data, req.Hashed = digest[:], true
	}
	r, err := v.ask(ctx, req)
	if err != nil {
		return sig, err
	}
	var rs struct{ R, S *big.Int }
	if rest, err := asn1.Unmarshal(r.Signature, &rs); err != nil || len(rest) > 0 || rs.R.Sign() <= 0 || rs.S.Sign() <= 0 || rs.R.BitLen() > 256 || rs.S.BitLen() > 256 {
		return sig, fmt.Errorf("AWS KMS: %w: it cannot be read", vault.ErrSignature)
	}
	rs.R.FillBytes(sig.Bytes[:32])
	rs.S.FillBytes(sig.Bytes[32:])
	return sig, nil
}

// DeleteSigningKey implements vault.Vault. KMS deletes the key after seven days.
func (v *Vault) DeleteSigningKey(ctx context.Context, h vault.Handle) error {
	return v.records.Drop(h, func(r vault.Record) error { return v.schedule(ctx, r.Name) })
}

func (v *Vault) schedule(ctx context.Context, id string) error {
	_, err := v.ask(ctx, Request{Op: OpSchedule, ID: id})
	return err
}
