package main

import (
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"sallyport/bench/wire"
)

// Addresses in the tunnel of WireGuard, and the port of its datagrams.
const (
	wireguardInlet  = "10.89.0.1"
	wireguardOutlet = "10.89.0.2"
	wireguardPort   = 51820
	wireguardMTU    = "1420" // what wg-quick sets for a line of 1500 bytes
)

// wireguard joins the machines at the ends by a tunnel of WireGuard in user space (Debian package wireguard-go), which needs no module of the kernel.
func (p *path) wireguard() error {
	program, err := exec.LookPath("wireguard-go")
	if err != nil {
		return errors.New("wireguard-go is not there (Debian package wireguard-go)")
	}
	var keys [2]*ecdh.PrivateKey
	for i := range keys {
		if keys[i], err = ecdh.X25519().GenerateKey(rand.Reader); err != nil {
			return err
		}
	}
	for i, end := range []struct {
		n                          *wire.Namespace
		device, inside, far, farAt string
	}{
		// The names are those of sockets in the file system too, which namespaces of networks share.
		{p.world.inlet, fmt.Sprintf("wgi%d", os.Getpid()), wireguardInlet, wireguardOutlet, outletAddr},
		{p.world.outlet, fmt.Sprintf("wgo%d", os.Getpid()), wireguardOutlet, wireguardInlet, inletAddr},
	} {
		socket := filepath.Join("/var/run/wireguard", end.device+".sock")
		p.files = append(p.files, socket)
		if err := p.begin(end.n, program, "-f", end.device); err != nil {
			return err
		}
		if err := configureWireguard(socket, fmt.Sprintf("private_key=%x\nlisten_port=%d\nreplace_peers=true\npublic_key=%x\nendpoint=%s:%d\nallowed_ip=%s/32\n",
			keys[i].Bytes(), wireguardPort, keys[1-i].PublicKey().Bytes(), end.farAt, wireguardPort, end.far)); err != nil {
			return err
		}
		if err := end.n.Run("ip", "addr", "add", end.inside+"/24", "dev", end.device); err != nil {
			return err
		}
		if err := end.n.Run("ip", "link", "set", end.device, "mtu", wireguardMTU, "up"); err != nil {
			return err
		}
	}
	p.target = fmt.Sprintf("%s:%d", wireguardOutlet, serverPort)
	return nil
}

// configureWireguard gives a device its configuration through its socket, once that is there.
func configureWireguard(socket, configuration string) error {
	var c net.Conn
	var err error
	for begun := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		if c, err = net.Dial("unix", socket); err == nil {
			break
		}
		if time.Since(begun) > 20*time.Second {
			return fmt.Errorf("wireguard-go does not serve its socket: %w", err)
		}
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if _, err := io.WriteString(c, "set=1\n"+configuration+"\n"); err != nil {
		return err
	}
	answer := make([]byte, 100)
	n, err := c.Read(answer)
	if err != nil {
		return err
	}
	if text := strings.TrimSpace(string(answer[:n])); text != "errno=0" {
		return fmt.Errorf("wireguard-go refuses its configuration: %s", text)
	}
	return nil
}
