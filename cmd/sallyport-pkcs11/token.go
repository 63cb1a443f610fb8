//go:build cgo && linux

package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/asn1"
	"errors"
	"fmt"
	"strconv"
	"strings"

	p11 "github.com/miekg/pkcs11"

	"sallyport/crypto/vault"
	"sallyport/crypto/vault/pkcs11"
)

// What PKCS#11 3.0 added for Ed25519, which the library has no names for.
const (
	ckkECEdwards         = 0x40
	ckmECEdwardsKeyPair  = 0x1055
	ckmEDDSA             = 0x1057
	ckrPINLocked         = 0xa4
	maxObjects           = 16
	oidP256              = "\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07"
	oidEd25519           = "\x06\x03\x2b\x65\x70"
	printableEdwards     = "\x13\x0cedwards25519"
	oidEd25519Deprecated = "\x06\x09\x2b\x06\x01\x04\x01\xda\x47\x0f\x01"
)

// token is a session with a token.
type token struct {
	ctx     *p11.Ctx
	session p11.SessionHandle
}

// fault is an error with its code.
type fault struct {
	code, text string
}

func (f *fault) Error() string { return f.text }

// do does what a request asks.
func do(r pkcs11.Request) pkcs11.Response {
	resp, err := perform(r)
	if err == nil {
		return resp
	}
	resp = pkcs11.Response{Code: pkcs11.CodeFailed, Text: err.Error()}
	var f *fault
	var ck p11.Error
	switch {
	case errors.As(err, &f):
		resp.Code = f.code
	case errors.As(err, &ck):
		switch uint(ck) {
		case p11.CKR_PIN_INCORRECT, p11.CKR_PIN_INVALID, p11.CKR_PIN_LEN_RANGE:
			resp.Code = pkcs11.CodePIN
		case ckrPINLocked:
			resp.Code = pkcs11.CodePINLocked
		case p11.CKR_TOKEN_NOT_PRESENT, p11.CKR_DEVICE_REMOVED, p11.CKR_SLOT_ID_INVALID, p11.CKR_TOKEN_NOT_RECOGNIZED:
			resp.Code = pkcs11.CodeNoToken
		case p11.CKR_MECHANISM_INVALID, p11.CKR_MECHANISM_PARAM_INVALID, p11.CKR_DOMAIN_PARAMS_INVALID, p11.CKR_CURVE_NOT_SUPPORTED:
			resp.Code = pkcs11.CodeAlgorithm
		}
	}
	return resp
}

func perform(r pkcs11.Request) (pkcs11.Response, error) {
	ctx := p11.New(r.Module)
	if ctx == nil {
		return pkcs11.Response{}, &fault{pkcs11.CodeModule, "it cannot be loaded"}
	}
	defer ctx.Destroy()
	if err := ctx.Initialize(); err != nil {
		return pkcs11.Response{}, &fault{pkcs11.CodeModule, err.Error()}
	}
	defer func() { _ = ctx.Finalize() }()
	slot, err := find(ctx, r.Token)
	if err != nil {
		return pkcs11.Response{}, err
	}
	session, err := ctx.OpenSession(slot, p11.CKF_SERIAL_SESSION|p11.CKF_RW_SESSION)
	if err != nil {
		return pkcs11.Response{}, fmt.Errorf("open a session: %w", err)
	}
	defer func() { _ = ctx.CloseSession(session) }()
	if err := ctx.Login(session, p11.CKU_USER, string(r.PIN)); err != nil && !errors.Is(err, p11.Error(p11.CKR_USER_ALREADY_LOGGED_IN)) {
		return pkcs11.Response{}, fmt.Errorf("log in: %w", err)
	}
	defer func() { _ = ctx.Logout(session) }()
	t := &token{ctx, session}
	switch r.Op {
	case pkcs11.OpCheck:
		return pkcs11.Response{}, nil
	case pkcs11.OpGenerate:
		return t.generate(r)
	case pkcs11.OpFind:
		return t.find(r)
	case pkcs11.OpSign:
		return t.sign(r)
	case pkcs11.OpDelete:
		return pkcs11.Response{}, t.delete(r)
	}
	return pkcs11.Response{}, fmt.Errorf("unknown operation %q", r.Op)
}

// find returns the slot with the token that a URI names. Of several it names none.
func find(ctx *p11.Ctx, u pkcs11.URI) (uint, error) {
	slots, err := ctx.GetSlotList(true)
	if err != nil {
		return 0, &fault{pkcs11.CodeNoToken, err.Error()}
	}
	var found []uint
	for _, s := range slots {
		info, err := ctx.GetTokenInfo(s)
		if err != nil || info.Flags&p11.CKF_TOKEN_INITIALIZED == 0 {
			continue
		}
		is := func(want, have string) bool { return want == "" || want == strings.TrimRight(have, " \x00") }
		if is(u.Token, info.Label) && is(u.Manufacturer, info.ManufacturerID) && is(u.Serial, info.SerialNumber) && is(u.Model, info.Model) &&
			is(u.SlotID, strconv.FormatUint(uint64(s), 10)) {
			found = append(found, s)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return 0, &fault{pkcs11.CodeNoToken, "no token matches"}
	}
	return 0, fmt.Errorf("%d tokens match the URI: name one by token= or serial=", len(found))
}

// generate makes a key that cannot leave the token. Its id is the hash of its public key.
func (t *token) generate(r pkcs11.Request) (pkcs11.Response, error) {
	kinds := []struct {
		mechanism, kind uint
		params          string
	}{{p11.CKM_EC_KEY_PAIR_GEN, p11.CKK_EC, oidP256}}
	if r.Algorithm == vault.Ed25519 {
		kinds[0].mechanism, kinds[0].kind, kinds[0].params = ckmECEdwardsKeyPair, ckkECEdwards, oidEd25519
		kinds = append(kinds, kinds[0])
		kinds[1].params = printableEdwards
	}
	var pub, priv p11.ObjectHandle
	var err error
	for _, k := range kinds {
		common := []*p11.Attribute{p11.NewAttribute(p11.CKA_TOKEN, true), p11.NewAttribute(p11.CKA_KEY_TYPE, k.kind), p11.NewAttribute(p11.CKA_LABEL, r.Label)}
		pub, priv, err = t.ctx.GenerateKeyPair(t.session, []*p11.Mechanism{p11.NewMechanism(k.mechanism, nil)},
			append([]*p11.Attribute{p11.NewAttribute(p11.CKA_EC_PARAMS, []byte(k.params)), p11.NewAttribute(p11.CKA_VERIFY, true)}, common...),
			append([]*p11.Attribute{
				p11.NewAttribute(p11.CKA_SIGN, true), p11.NewAttribute(p11.CKA_PRIVATE, true),
				p11.NewAttribute(p11.CKA_SENSITIVE, true), p11.NewAttribute(p11.CKA_EXTRACTABLE, false),
			}, common...))
		if err == nil {
			break
		}
	}
	if err != nil {
		return pkcs11.Response{}, fmt.Errorf("make a key: %w", err)
	}
	undo := func(err error) (pkcs11.Response, error) {
		_ = t.ctx.DestroyObject(t.session, priv)
		_ = t.ctx.DestroyObject(t.session, pub)
		return pkcs11.Response{}, err
	}
	algorithm, public, err := t.public(pub)
	if err != nil {
		return undo(err)
	}
	id := sha256.Sum256(public)
	for _, o := range []p11.ObjectHandle{priv, pub} {
		if err := t.ctx.SetAttributeValue(t.session, o, []*p11.Attribute{p11.NewAttribute(p11.CKA_ID, id[:])}); err != nil {
			return undo(fmt.Errorf("name the key: %w", err))
		}
	}
	return pkcs11.Response{Algorithm: algorithm, Public: public, ID: id[:]}, nil
}

// public reads a public key.
func (t *token) public(o p11.ObjectHandle) (vault.KeyAlgorithm, []byte, error) {
	attrs, err := t.ctx.GetAttributeValue(t.session, o, []*p11.Attribute{
		p11.NewAttribute(p11.CKA_KEY_TYPE, nil), p11.NewAttribute(p11.CKA_EC_PARAMS, nil), p11.NewAttribute(p11.CKA_EC_POINT, nil),
	})
	if err != nil {
		return 0, nil, &fault{pkcs11.CodeKeyType, "its public key is not of an elliptic curve"}
	}
	params, point := string(attrs[1].Value), attrs[2].Value
	var inner []byte
	if rest, err := asn1.Unmarshal(point, &inner); err == nil && len(rest) == 0 {
		point = inner
	}
	key := vault.VerifyingKey{Bytes: point}
	switch params {
	case oidP256:
		key.Algorithm = vault.P256
	case oidEd25519, printableEdwards, oidEd25519Deprecated:
		key.Algorithm = vault.Ed25519
	default:
		return 0, nil, &fault{pkcs11.CodeKeyType, fmt.Sprintf("it is of another curve (%x)", params)}
	}
	if err := vault.CheckPublic(key); err != nil {
		return 0, nil, &fault{pkcs11.CodeKeyType, err.Error()}
	}
	return key.Algorithm, key.Bytes, nil
}

// object returns the only object of a class that has the label and id asked for.
func (t *token) object(class uint, label string, id []byte) (p11.ObjectHandle, error) {
	template := []*p11.Attribute{p11.NewAttribute(p11.CKA_CLASS, class)}
	if label != "" {
		template = append(template, p11.NewAttribute(p11.CKA_LABEL, label))
	}
	if len(id) > 0 {
		template = append(template, p11.NewAttribute(p11.CKA_ID, id))
	}
	if len(template) == 1 {
		return 0, &fault{pkcs11.CodeNoKey, "no key is named"}
	}
	if err := t.ctx.FindObjectsInit(t.session, template); err != nil {
		return 0, err
	}
	found, _, err := t.ctx.FindObjects(t.session, maxObjects)
	if err = errors.Join(err, t.ctx.FindObjectsFinal(t.session)); err != nil {
		return 0, err
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return 0, &fault{pkcs11.CodeNoKey, "there is no such key"}
	}
	return 0, fmt.Errorf("%d keys have this name: name one by its id", len(found))
}

// find looks a key up by its label or id.
func (t *token) find(r pkcs11.Request) (pkcs11.Response, error) {
	priv, err := t.object(p11.CKO_PRIVATE_KEY, r.Label, r.ID)
	if err != nil {
		return pkcs11.Response{}, err
	}
	attrs, err := t.ctx.GetAttributeValue(t.session, priv, []*p11.Attribute{p11.NewAttribute(p11.CKA_ID, nil)})
	if err != nil {
		return pkcs11.Response{}, err
	}
	id := attrs[0].Value
	if len(id) == 0 {
		return pkcs11.Response{}, errors.New("the key has no CKA_ID: give it one")
	}
	pub, err := t.object(p11.CKO_PUBLIC_KEY, "", id)
	if err != nil {
		return pkcs11.Response{}, fmt.Errorf("its public key: %w", err)
	}
	algorithm, public, err := t.public(pub)
	if err != nil {
		return pkcs11.Response{}, err
	}
	// That the two belong together is proved, not believed.
	probe := []byte("sallyport: is this the key?")
	resp, err := t.sign(pkcs11.Request{Algorithm: algorithm, ID: id, Data: probe})
	if err != nil {
		return pkcs11.Response{}, err
	}
	sig := vault.Signature{Algorithm: algorithm}
	if len(resp.Signature) != copy(sig.Bytes[:], resp.Signature) || vault.Verify(vault.VerifyingKey{Algorithm: algorithm, Bytes: public}, probe, sig) != nil {
		return pkcs11.Response{}, &fault{pkcs11.CodeKeyType, "its public key is of another key"}
	}
	return pkcs11.Response{Algorithm: algorithm, Public: public, ID: bytes.Clone(id)}, nil
}

// sign signs as vault.Vault says.
func (t *token) sign(r pkcs11.Request) (pkcs11.Response, error) {
	priv, err := t.object(p11.CKO_PRIVATE_KEY, "", r.ID)
	if err != nil {
		return pkcs11.Response{}, err
	}
	mechanism, data := p11.NewMechanism(ckmEDDSA, nil), r.Data
	if r.Algorithm == vault.P256 {
		digest := sha256.Sum256(data)
		mechanism, data = p11.NewMechanism(p11.CKM_ECDSA, nil), digest[:]
	}
	if err := t.ctx.SignInit(t.session, []*p11.Mechanism{mechanism}, priv); err != nil {
		return pkcs11.Response{}, fmt.Errorf("sign: %w", err)
	}
	sig, err := t.ctx.Sign(t.session, data)
	if err != nil {
		return pkcs11.Response{}, fmt.Errorf("sign: %w", err)
	}
	return pkcs11.Response{Algorithm: r.Algorithm, Signature: sig}, nil
}

// delete destroys both halves of a key.
func (t *token) delete(r pkcs11.Request) error {
	if len(r.ID) == 0 {
		return &fault{pkcs11.CodeNoKey, "no key is named"}
	}
	priv, err := t.object(p11.CKO_PRIVATE_KEY, "", r.ID)
	if err != nil {
		return err
	}
	if err := t.ctx.DestroyObject(t.session, priv); err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	if pub, err := t.object(p11.CKO_PUBLIC_KEY, "", r.ID); err == nil {
		return t.ctx.DestroyObject(t.session, pub)
	}
	return nil
}
