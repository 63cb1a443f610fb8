package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"sallyport/bench/wire"
)

// Addresses in the tunnel of nebula, and the port of its datagrams.
const (
	nebulaInlet  = "10.88.0.1"
	nebulaOutlet = "10.88.0.2"
	nebulaPort   = 4242
)

// nebula joins the machines at the ends by a tunnel of nebula (Debian package nebula), which sends datagrams from one to the other, sealed as ours are.
// Clients connect to the server's address in it.
func (p *path) nebula() error {
	for _, program := range []string{"nebula", "nebula-cert"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%s is not there (Debian package nebula)", program)
		}
	}
	cert := func(args ...string) error {
		cmd := exec.Command("nebula-cert", args...)
		cmd.Dir = p.dir
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("nebula-cert %v: %w: %s", args, err, out)
		}
		return nil
	}
	if err := cert("ca", "-name", "distance"); err != nil {
		return err
	}
	for _, end := range []struct {
		n                        *wire.Namespace
		name, inside, far, farAt string
	}{
		{p.world.inlet, "inlet", nebulaInlet, nebulaOutlet, outletAddr},
		{p.world.outlet, "outlet", nebulaOutlet, nebulaInlet, inletAddr},
	} {
		if err := cert("sign", "-name", end.name, "-ip", end.inside+"/24"); err != nil {
			return err
		}
		conf := filepath.Join(p.dir, end.name+".yml")
		text := fmt.Sprintf(`pki: {ca: %[1]s/ca.crt, cert: %[1]s/%[2]s.crt, key: %[1]s/%[2]s.key}
static_host_map: {"%[3]s": ["%[4]s:%[5]d"]}
lighthouse: {am_lighthouse: false}
listen: {host: 0.0.0.0, port: %[5]d, read_buffer: 4194304, write_buffer: 4194304}
tun: {dev: nebula, mtu: 1300, tx_queue: 4000}
logging: {level: error}
firewall:
  outbound: [{port: any, proto: any, host: any}]
  inbound: [{port: any, proto: any, host: any}]
`, p.dir, end.name, end.far, end.farAt, nebulaPort)
		if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
			return err
		}
		if err := p.begin(end.n, "nebula", "-config", conf); err != nil {
			return err
		}
	}
	p.target = fmt.Sprintf("%s:%d", nebulaOutlet, serverPort)
	return nil
}
