package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"strings"

	"golang.org/x/crypto/ssh"
)

const sshCipher = "aes256-gcm@openssh.com"

// startSSH forwards ports with `ssh -L` through a jump host: the jump's sshd is
// the relay (it sees only ciphertext), the second sshd the outlet.
func startSSH(ctx context.Context, i *instance) error {
	me, err := user.Current()
	if err != nil {
		return err
	}
	if os.Getuid() == 0 {
		// sshd refuses to start as root without its empty directory, which the
		// service's start script makes. It is the system's, so it stays.
		if err := os.Mkdir("/run/sshd", 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	hostKey, hostPublic, err := i.sshKey("host")
	if err != nil {
		return err
	}
	userKey, userPublic, err := i.sshKey("user")
	if err != nil {
		return err
	}
	authorized, err := i.file("authorized_keys", userPublic)
	if err != nil {
		return err
	}
	portNumbers, err := freePorts(2)
	if err != nil {
		return err
	}
	sshd, err := lookTool("sshd")
	if err != nil {
		return err
	}
	var known strings.Builder
	for n, role := range []string{roleRelay, roleOutlet} {
		conf, err := i.file(role+"-sshd", fmt.Sprintf(`ListenAddress 127.0.0.1
Port %d
HostKey %s
AuthorizedKeysFile %s
PidFile none
StrictModes no
UsePAM no
UseDNS no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
AllowTcpForwarding yes
MaxStartups 100
Ciphers %s
LogLevel ERROR
`, portNumbers[n], hostKey, authorized, sshCipher))
		if err != nil {
			return err
		}
		// sshd starts itself again for each connection and wants its full path.
		if err := i.spawn(role, sshd, "-D", "-e", "-f", conf); err != nil {
			return err
		}
		fmt.Fprintf(&known, "[127.0.0.1]:%d %s", portNumbers[n], hostPublic)
	}
	if err := waitListening(ctx, i.procs, portNumbers...); err != nil {
		return err
	}
	knownHosts, err := i.file("known_hosts", known.String())
	if err != nil {
		return err
	}
	var c strings.Builder
	fmt.Fprintf(&c, `Host *
  HostName 127.0.0.1
  User %s
  IdentityFile %s
  IdentitiesOnly yes
  IdentityAgent none
  UserKnownHostsFile %s
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
  BatchMode yes
  Compression no
  ServerAliveInterval 15
  ControlMaster no
  Ciphers %s
Host jump
  Port %d
Host end
  Port %d
  ProxyJump jump
  ExitOnForwardFailure yes
`, me.Username, userKey, knownHosts, sshCipher, portNumbers[0], portNumbers[1])
	for _, s := range services {
		fmt.Fprintf(&c, "  LocalForward %s %s\n", loopback(i.front[s]), loopback(i.back[s]))
	}
	conf, err := i.file("ssh_config", c.String())
	if err != nil {
		return err
	}
	return i.spawn(roleInlet, "ssh", "-N", "-F", conf, "end")
}

// sshKey makes an Ed25519 key pair: the private key as a file, the public key as
// a line.
func (i *instance) sshKey(name string) (file, public string, err error) {
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", "", err
	}
	block, err := ssh.MarshalPrivateKey(priv, "bench")
	if err != nil {
		return "", "", err
	}
	sshPub, err := ssh.NewPublicKey(pub)
	if err != nil {
		return "", "", err
	}
	file, err = i.file(name+"_key", string(pem.EncodeToMemory(block)))
	return file, string(ssh.MarshalAuthorizedKey(sshPub)), err
}
